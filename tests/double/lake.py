"""CloudTrail Lake: StartQuery, DescribeQuery, GetQueryResults, CancelQuery, GetEventDataStore, ListEventDataStores."""

from __future__ import annotations

import re

from sqlglot import exp

import executions
import sql
from calls import Call
from errors import AwsError
from executions import Execution
from trail_tables import Store, TrailTable
from trino import SqlError

ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ARN = re.compile(rf"arn:aws[a-z-]*:cloudtrail:([a-z0-9-]+):(\d{{12}}):eventdatastore/({ID.pattern})")
RUN_MS = 60 * 60_000  # query-run-query: over one hour it may time out
KEPT_MS = 7 * 86_400_000  # cloudtrail-lake: results are kept 7 days
STATES = {
    "queued": "QUEUED",
    "running": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
    "cancelled": "CANCELLED",
    "timed_out": "TIMED_OUT",
}


def invalid(message: str) -> AwsError:
    return AwsError("InvalidParameterException", message)


def whole(call: Call, name: str, most: int) -> int:
    """How many items a page may have (BC-ct: 1 to 1000); as many as can be unless told."""
    value = call.parameters.get(name, most)
    if type(value) is not int:
        raise AwsError("SerializationException", f"{name} is not a number")
    if not 1 <= value <= most:
        raise AwsError("InvalidMaxResultsException", f"{name} must be between 1 and {most}")
    return value


def start_query(call: Call) -> dict:
    call.check_rate("lake_starts_per_second")
    world = call.world
    text = call.parameters.get("QueryStatement")
    if call.parameters.get("QueryAlias") or call.parameters.get("DeliveryS3Uri"):
        raise invalid("the double has neither query templates nor deliveries")
    if type(text) is not str or not 1 <= len(text) <= 10_000:
        raise invalid("QueryStatement must have 1 to 10000 characters")
    statement, refusal = read(call, text)
    most = world.switches["lake_concurrent_queries"]
    if executions.running(call) >= most:
        said = f"You are already running the maximum number of concurrent queries: {most}. Wait a minute."
        raise AwsError("MaxConcurrentQueriesException", said)
    query = Execution(
        service=call.service,
        account=call.account,
        region=call.region,
        text=text,
        statement=statement,
        refusal=refusal,
        base=world.trail.base,
        switches=dict(world.switches),
        created_ms=world.clock.now_ms(),
        states=STATES,
        run_ms=RUN_MS,
        kept_ms=KEPT_MS,
        fate=call.fate,
    )
    executions.add(call, query)
    return {"QueryId": query.id} | owner(call)


def owner(call: Call) -> dict:
    given = call.parameters.get("EventDataStoreOwnerAccountId")
    return {} if given is None else {"EventDataStoreOwnerAccountId": given}


def read(call: Call, text: str) -> tuple[sql.Statement | None, SqlError | None]:
    """The statement, or what is wrong with its columns, if that is told only while it runs."""
    switches = call.world.switches

    def resolve(table: exp.Table) -> TrailTable:
        return queried_store(call, table).table(switches["lake_key_exchange"] == "column")

    try:
        now = call.world.clock.now_ms()
        statement = sql.compile_statement(sql.quoted_stores(text), resolve, now, time_as_text=True)
        executions.bound(call.world.trail.base, statement)
        return statement, None
    except SqlError as error:
        grammar = error.kind in ("SYNTAX_ERROR", "NOT_SUPPORTED")
        if grammar or switches["lake_checks_columns"] == "at_start":
            raise AwsError("InvalidQueryStatementException", error.message) from None
        return None, error


def queried_store(call: Call, table: exp.Table) -> Store:
    """FROM takes the id alone (query-limitations); that of another account goes with its number as a parameter."""
    name = table.name.lower()
    if name.startswith("arn:"):
        raise AwsError("EventDataStoreARNInvalidException", f"{table.name} is not an event data store id")
    if not ID.fullmatch(name) or table.db:
        raise SqlError("TABLE_NOT_FOUND", f"line 1:1: Table '{table.name}' does not exist")
    account = call.parameters.get("EventDataStoreOwnerAccountId", call.account)
    allowed = account == call.account or account in call.credential.delegates_for
    store = found_store(call, account if allowed else None, name)
    if store.status in ("INACTIVE", "PENDING_DELETION"):
        raise AwsError("InactiveEventDataStoreException", f"Event data store {store.id} is inactive")
    return store


def found_store(call: Call, account: str | None, store_id: str) -> Store:
    store = call.world.trail.stores.get(store_id)
    if store is None or (store.account, store.region) != (account, call.region):
        raise AwsError("EventDataStoreNotFoundException", f"Event data store {store_id} was not found")
    return store


def found_query(call: Call) -> Execution:
    query_id = call.parameters.get("QueryId")
    if query_id is None:
        raise invalid("QueryId is missing")
    return executions.found(call, query_id, AwsError("QueryIdNotFoundException", f"Query {query_id} was not found"))


def describe_query(call: Call) -> dict:
    with call.world.lock:
        call.check_rate("lake_describes_per_second")
        query = found_query(call)
        query.polls += 1
    phase = query.phase()
    answer = {"QueryId": query.id, "QueryString": query.text, "QueryStatus": STATES[phase]}
    numbers = {"EventsMatched": 0, "EventsScanned": 0, "BytesScanned": 0, "ExecutionTimeInMillis": 0}
    if phase != "queued":
        outcome = query.outcome()
        done = 2 if phase == "running" else 1  # while it runs the numbers are not yet those of the bill
        numbers = {
            "EventsMatched": outcome.matched // done,
            "EventsScanned": outcome.scanned.events // done,
            "BytesScanned": outcome.scanned.bytes // done,
            "ExecutionTimeInMillis": 1000 * query.polls,
        }
    answer["QueryStatistics"] = numbers | {"CreationTime": query.created_ms / 1000}
    return answer | failure(query, phase) | owner(call)


def failure(query: Execution, phase: str) -> dict:
    return {"ErrorMessage": query.error_message()} if phase == "failed" else {}


def get_query_results(call: Call) -> dict:
    with call.world.lock:
        call.check_rate("lake_results_per_second")
        most = whole(call, "MaxQueryResults", 1000)
        query = found_query(call)
        first = query.offset(call.parameters.get("NextToken"))
    if first is None:
        raise AwsError("InvalidNextTokenException", "The NextToken is not valid")
    phase = query.phase()
    rows: list[tuple] = []
    if phase == "finished":
        rows = query.outcome().rows
    elif phase in ("running", "timed_out") and query.switches["partial_rows"]:
        rows = query.partial()  # query-run-query: what was found before a time-out can be had
    after = min(first + most, len(rows))
    scanned = 0 if phase == "queued" else query.outcome().scanned.bytes
    numbers = {"ResultsCount": after - first, "BytesScanned": scanned // 2 if phase == "running" else scanned}
    if query.switches["lake_total"]:
        numbers["TotalResultsCount"] = len(rows)
    answer = {
        "QueryStatus": STATES[phase],
        "QueryStatistics": numbers,
        "QueryResultRows": [wire_row(query, row) for row in rows[first:after]],
    }
    if after < len(rows):
        answer["NextToken"] = query.next_token(after)
    if phase == "finished":
        query.note_read(first, after, len(rows))
    return answer | failure(query, phase)


def wire_row(query: Execution, row: tuple) -> list[dict]:
    """A list of columns, each a map of one entry (BC-ct QueryResultRow)."""
    lower = query.switches["lake_columns"] == "lower"
    null = query.switches["lake_null"]
    cells = []
    for name, value in zip(query.statement.names, row, strict=True):
        if value is None and null == "absent":
            continue
        cells.append({name.lower() if lower else name: "" if value is None and null == "empty" else value})
    return cells


def cancel_query(call: Call) -> dict:
    call.check_rate("lake_cancels_per_second")
    query = found_query(call)
    if query.ended():
        raise AwsError("InactiveQueryException", f"Query {query.id} is not running")
    query.stopped = True
    return {"QueryId": query.id, "QueryStatus": "CANCELLED"} | owner(call)


def get_event_data_store(call: Call) -> dict:
    call.check_rate("lake_stores_per_second")
    given = call.parameters.get("EventDataStore")
    if type(given) is not str:
        raise invalid("EventDataStore is missing")
    arn = ARN.fullmatch(given)
    if arn is None and not ID.fullmatch(given):
        raise AwsError("EventDataStoreARNInvalidException", f"{given} is neither an ARN nor an id")
    account = arn[2] if arn else call.account
    allowed = account == call.account or account in call.credential.delegates_for
    store = found_store(call, account if allowed else None, arn[3] if arn else given)
    return {
        "EventDataStoreArn": store.arn,
        "Name": store.name,
        "Status": "PENDING_DELETION" if store.status == "INACTIVE" else store.status,
        "AdvancedEventSelectors": [],
        "MultiRegionEnabled": store.multi_region,
        "OrganizationEnabled": store.organization,
        "RetentionPeriod": 366,
        "TerminationProtectionEnabled": True,
        "CreatedTimestamp": store.created_ms / 1000,
        "UpdatedTimestamp": store.created_ms / 1000,
        "BillingMode": "EXTENDABLE_RETENTION_PRICING",
        "FederationStatus": "DISABLED",
        "PartitionKeys": store.partition_keys,
    }


def list_event_data_stores(call: Call) -> dict:
    call.check_rate("lake_lists_per_second")
    most = whole(call, "MaxResults", 1000)
    token = call.parameters.get("NextToken", "page0")
    if not re.fullmatch(r"page\d+", str(token)):
        raise AwsError("InvalidNextTokenException", "The NextToken is not valid")
    first = int(token[4:])
    stores = [
        store
        for store in call.world.trail.stores.values()
        if (store.account, store.region) == (call.account, call.region)
    ]
    page = [{"EventDataStoreArn": store.arn, "Name": store.name} for store in stores[first : first + most]]
    rest = {"NextToken": f"page{first + most}"} if first + most < len(stores) else {}
    return {"EventDataStores": page, **rest}


OPERATIONS = {
    "StartQuery": start_query,
    "CancelQuery": cancel_query,
    "GetEventDataStore": get_event_data_store,
    "ListEventDataStores": list_event_data_stores,
}
# These lock the world themselves, and not while they evaluate.
UNLOCKED = {"DescribeQuery": describe_query, "GetQueryResults": get_query_results}
