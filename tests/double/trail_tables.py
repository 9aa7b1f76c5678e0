"""CloudTrail records as tables: event data stores of Lake, and Athena's tables of every documented layout.

Records lie in DuckDB, one table of it for each store or Athena table, with hidden columns whose names begin with `$`.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import duckdb

VARCHAR, TIMESTAMP, BOOLEAN = "varchar", "timestamp", "boolean"
TLS_FIELDS = ("tlsversion", "ciphersuite", "clientprovidedhostheader", "keyexchange")
ISSUER_FIELDS = ("type", "principalid", "arn", "accountid", "username")
IDENTITY_FIELDS = ("type", "principalid", "arn", "accountid", "invokedby", "accesskeyid", "username")

# Members of a record that are columns by themselves, as the record spells them.
MEMBERS = [
    "eventVersion",
    "eventTime",
    "eventSource",
    "eventName",
    "awsRegion",
    "sourceIPAddress",
    "userAgent",
    "errorCode",
    "errorMessage",
    "requestParameters",
    "requestID",
    "eventID",
    "readOnly",
    "eventType",
    "recipientAccountId",
    "sharedEventID",
    "eventCategory",
    "managementEvent",
]
SPELLING = {
    "tlsversion": "tlsVersion",
    "ciphersuite": "cipherSuite",
    "clientprovidedhostheader": "clientProvidedHostHeader",
    "keyexchange": "keyExchange",
    "principalid": "principalId",
    "accountid": "accountId",
    "invokedby": "invokedBy",
    "accesskeyid": "accessKeyId",
    "username": "userName",
}


def struct(parent: str, fields: tuple[str, ...]) -> dict[str, str]:
    """The path in a record of each field of a struct."""
    return {field: f"{parent}.{SPELLING.get(field, field)}" for field in fields}


TLS = struct("$.tlsDetails", TLS_FIELDS)
IDENTITY = struct("$.userIdentity", IDENTITY_FIELDS)
ISSUER = struct("$.userIdentity.sessionContext.sessionIssuer", ISSUER_FIELDS)
PATHS = [f"$.{name}" for name in MEMBERS] + [*TLS.values(), *IDENTITY.values(), *ISSUER.values()]
OBJECTS = [
    "$.tlsDetails",
    "$.userIdentity",
    "$.userIdentity.sessionContext",
    "$.userIdentity.sessionContext.sessionIssuer",
]


def _packed(paths: dict[str, str], more: str = "") -> str:
    fields = [f"{field} := p[{PATHS.index(path) + 1}]" for field, path in paths.items()]
    return f"struct_pack({', '.join(fields)}{more})"


def _when(path: str, value: str) -> str:
    """A struct is NULL where the record has no object."""
    return f"CASE WHEN k[{OBJECTS.index(path) + 1}] = 'OBJECT' THEN {value} END"


def _stored() -> str:
    """SELECT of all stored columns out of a delivery, with one look at each record."""
    issuer = _when("$.userIdentity.sessionContext.sessionIssuer", _packed(ISSUER))
    context = _when("$.userIdentity.sessionContext", f"struct_pack(sessionissuer := {issuer})")
    columns = [
        'q AS "$queryable"',
        'strlen(m) AS "$bytes"',
        'make_timestamp_ms(q)::DATE AS "$day"',
        f"try_strptime(p[{MEMBERS.index('eventTime') + 1}], '%Y-%m-%dT%H:%M:%SZ') AS \"$time\"",
        "m AS eventjson",
        *(f"p[{number}] AS {name.lower()}" for number, name in enumerate(MEMBERS, 1)),
        f"{_when('$.tlsDetails', _packed(TLS))} AS tlsdetails",
        f"{_when('$.userIdentity', _packed(IDENTITY, f', sessioncontext := {context}'))} AS useridentity",
    ]
    texts = ", ".join(f"'{path}'" for path in PATHS)
    kinds = ", ".join(f"'{path}'" for path in OBJECTS)
    return (
        f"SELECT {', '.join(columns)} FROM (SELECT q, m, json_extract_string(m, [{texts}]) AS p, "
        f"json_type(m, [{kinds}]) AS k FROM (SELECT unnest(?::BIGINT[]) AS q, unnest(?::VARCHAR[]) AS m))"
    )


STORED = _stored()
TLS_PLAIN = "CASE WHEN tlsdetails IS NOT NULL THEN struct_pack({}) END".format(
    ", ".join(f"{field} := tlsdetails.{field}" for field in TLS_FIELDS[:3])
)
ROW_ISSUER = "ROW({})".format(", ".join(f"{field} varchar" for field in ISSUER_FIELDS))
ROW_IDENTITY = "ROW({}, sessioncontext ROW(sessionissuer {}))".format(
    ", ".join(f"{field} varchar" for field in IDENTITY_FIELDS), ROW_ISSUER
)
# Partition columns of the layouts: create-cloudtrail-table-partition-projection, -table (manual partitions), and
# -table-org-wide-trail of the Athena guide. A record lies in the day of its delivery, not of its eventTime.
PARTITIONS = {
    "timestamp": {"timestamp": "strftime(\"$day\", '%Y/%m/%d')"},
    "year_month_day": {
        "region": "coalesce(awsregion, '')",
        "year": "strftime(\"$day\", '%Y')",
        "month": "strftime(\"$day\", '%m')",
        "day": "strftime(\"$day\", '%d')",
    },
    "lake": {},
}
PARTITIONS["organization"] = {"account": "coalesce(recipientaccountid, '')"} | PARTITIONS["year_month_day"]


@dataclass(frozen=True)
class Column:
    type: str  # Trino's
    stored: str  # SQL over the stored columns


def layout_columns(layout: str, key_exchange: bool) -> dict[str, Column]:
    """The columns of a table, in the order of `SELECT *`."""
    lake = layout == "lake"
    columns = {"eventversion": Column(VARCHAR, "eventversion"), "useridentity": Column(ROW_IDENTITY, "useridentity")}
    for name in map(str.lower, MEMBERS[1:-2]):
        columns[name] = Column(VARCHAR, name)
    fields = TLS_FIELDS if key_exchange else TLS_FIELDS[:3]
    row = "ROW({})".format(", ".join(f"{field} varchar" for field in fields))
    if lake:  # query-supported-event-schemas of the CloudTrail guide
        columns["eventtime"] = Column(TIMESTAMP, '"$time"')
        columns["readonly"] = Column(BOOLEAN, "TRY_CAST(readonly AS BOOLEAN)")
        columns["managementevent"] = Column(BOOLEAN, "TRY_CAST(managementevent AS BOOLEAN)")
        columns["eventcategory"] = Column(VARCHAR, "eventcategory")
        columns["eventjson"] = Column(VARCHAR, "eventjson")
    columns["tlsdetails"] = Column(row, "tlsdetails" if key_exchange else TLS_PLAIN)
    for name, stored in PARTITIONS[layout].items():
        columns[name] = Column(VARCHAR, stored)
    return columns


class Records:
    """The records of one store or table; only ever added to."""

    numbers = itertools.count()

    def __init__(self, base: duckdb.DuckDBPyConnection) -> None:
        self.base = base
        self.name = f"records_{next(self.numbers)}"
        self.count, self.bytes = 0, 0
        base.execute(f"CREATE TABLE {self.name} AS {STORED}", [[], []])

    def append(self, deliveries: list[tuple[int, str]]) -> None:
        """Deliveries of (queryable in ms, record)."""
        queryable, messages = [at for at, _ in deliveries], [message for _, message in deliveries]
        with self.base.cursor() as cursor:
            try:
                cursor.execute(f"INSERT INTO {self.name} {STORED}", [queryable, messages])
            except duckdb.Error as error:
                raise ValueError(f"not a CloudTrail record: {error}") from None
            self.count, self.bytes = cursor.execute(f'SELECT count(*), sum("$bytes") FROM {self.name}').fetchone()


@dataclass
class TrailTable:
    """What a statement reads from: Lake's schema or one of the layouts over some records."""

    records: Records
    layout: str
    columns: dict[str, Column]

    @property
    def partitions(self) -> set[str]:
        return set(PARTITIONS[self.layout])

    def schema(self) -> dict[str, str]:
        return {name: column.type for name, column in self.columns.items()}

    def select(self, condition: str) -> str:
        """SQL of its rows, with the bytes of each record beside its columns."""
        columns = ", ".join(f'{column.stored} AS "{name}"' for name, column in self.columns.items())
        return f'(SELECT {columns}, "$bytes" FROM {self.records.name} WHERE {condition})'


@dataclass
class Store:
    """An event data store of Lake."""

    id: str
    account: str
    region: str
    records: Records
    name: str
    status: str
    created_ms: int
    partition_keys: list[dict]
    multi_region: bool
    organization: bool

    @property
    def arn(self) -> str:
        return f"arn:aws:cloudtrail:{self.region}:{self.account}:eventdatastore/{self.id}"

    def table(self, key_exchange: bool) -> TrailTable:
        return TrailTable(self.records, "lake", layout_columns("lake", key_exchange))


@dataclass
class AthenaTable:
    catalog: str
    database: str
    table: str
    account: str
    region: str
    layout: str
    key_exchange: bool
    records: Records
    federated: bool = False  # its records are those of a store

    @property
    def name(self) -> str:
        return f"{self.database}.{self.table}"

    def view(self) -> TrailTable:
        return TrailTable(self.records, self.layout, layout_columns(self.layout, self.key_exchange))


@dataclass
class WorkGroup:
    name: str
    account: str
    region: str
    output_location: str | None = None
    enforce: bool = False
    managed: bool = False
    cutoff_bytes: int | None = None


class TrailData:
    """All stores, tables and workgroups, and the DuckDB that holds their records."""

    def __init__(self) -> None:
        self._base: duckdb.DuckDBPyConnection | None = None
        self._lock = threading.Lock()
        self.stores: dict[str, Store] = {}
        self.tables: dict[tuple[str, str, str, str, str], AthenaTable] = {}
        self.workgroups: dict[tuple[str, str, str], WorkGroup] = {}
        self.weights: dict = {}  # of columns that some query reads, see sql_bytes

    @property
    def base(self) -> duckdb.DuckDBPyConnection:
        """Made when first needed. Its `/` is Trino's: whole numbers stay whole, and by zero is an error."""
        with self._lock:
            if self._base is None:
                self._base = duckdb.connect()
                self._base.execute("SET GLOBAL TimeZone = 'UTC'; SET GLOBAL integer_division = true")
                self._base.execute(MACROS)
            return self._base

    def add_store(self, order: dict) -> None:
        order = dict(order)
        store = Store(
            id=order.pop("id"),
            account=order.pop("account"),
            region=order.pop("region"),
            records=Records(self.base),
            name=order.pop("name", "trail"),
            status=order.pop("status", "ENABLED"),
            created_ms=order.pop("creationTime", 0),
            partition_keys=order.pop("partition_keys", [{"Name": "calendarday", "Type": "string"}]),
            multi_region=order.pop("multi_region", True),
            organization=order.pop("organization", False),
        )
        if order:
            raise ValueError(f"a store has no {sorted(order)}")
        self.stores[store.id] = store

    def add_table(self, order: dict) -> None:
        order = {"catalog": "AwsDataCatalog", "key_exchange": False} | order
        if order["layout"] not in PARTITIONS:
            raise ValueError(f"a layout is one of {sorted(PARTITIONS)}")
        store = self.stores.get(order["table"]) if order["layout"] == "lake" else None
        records = store.records if store else Records(self.base)
        table = AthenaTable(**order, records=records, federated=store is not None)
        self.tables[table.account, table.region, *self.path(table.catalog, table.database, table.table)] = table

    @staticmethod
    def path(catalog: str, database: str, table: str) -> tuple[str, str, str]:
        return catalog.lower(), database.lower(), table.lower()

    def workgroup(self, account: str, region: str, name: str) -> WorkGroup | None:
        """`primary` is there in every account and Region, without an output location."""
        found = self.workgroups.get((account, region, name))
        if found is None and name == "primary":
            found = WorkGroup(name, account, region)
        return found

    def place(self, order: dict) -> Records:
        """The records that an order to deliver names."""
        if "event_data_store" in order:
            if order["event_data_store"] not in self.stores:
                raise ValueError(f"no event data store {order['event_data_store']}")
            return self.stores[order["event_data_store"]].records
        database, _, name = order["table"].partition(".")
        found = [
            table
            for table in self.tables.values()
            if self.path("", table.database, table.table) == self.path("", database, name)
            and table.account == order.get("account", table.account)
            and table.region == order.get("region", table.region)
        ]
        if len(found) != 1:
            raise ValueError(f"{len(found)} tables {order['table']}")
        if found[0].federated:
            raise ValueError(f"{order['table']} shows an event data store: deliver to that")
        return found[0].records

    def held(self) -> Iterator[dict]:
        for store in self.stores.values():
            yield held(store.records, event_data_store=store.id, account=store.account, region=store.region)
        for table in self.tables.values():
            yield held(table.records, table=table.name, account=table.account, region=table.region)


def held(records: Records, **place: str) -> dict:
    return {**place, "events": records.count, "bytes": records.bytes or 0}


# Functions of Trino that DuckDB has otherwise. json_extract_scalar: NULL for objects, arrays and what is no JSON.
MACROS = """
CREATE MACRO trino_json_scalar(j, p) AS CASE WHEN NOT json_valid(j) THEN NULL
    WHEN json_type(j, p) IN ('OBJECT', 'ARRAY', 'NULL') THEN NULL ELSE json_extract_string(j, p) END;
CREATE MACRO trino_date_diff(unit, a, b) AS date_sub(lower(unit), a, b);
"""
