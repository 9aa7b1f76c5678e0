"""What the tests of Lake, Athena and the event history share: a store, a table, and statements run to their end."""

from __future__ import annotations

import json

from harness import ACCOUNT, REGION, T0, DoubleTest

STORE = "01234567-89ab-cdef-0123-456789abcdef"
ARN = f"arn:aws:cloudtrail:{REGION}:{ACCOUNT}:eventdatastore/{STORE}"
OTHER = "444455556666"
TABLE = {
    "database": "default",
    "table": "cloudtrail_logs",
    "account": ACCOUNT,
    "region": REGION,
    "layout": "timestamp",
    "key_exchange": True,
}
RESULTS = {"OutputLocation": "s3://results/"}
# The exporter's own statement to Lake; Athena's is the same but for the time.
KEYS = """coalesce(eventName, '') AS event_name, coalesce(eventSource, '') AS event_source,
  coalesce(tlsDetails.tlsVersion, '') AS tls_version, coalesce(tlsDetails.cipherSuite, '') AS cipher_suite,
  coalesce({exchange}, '') AS key_exchange,
  coalesce(recipientAccountId, '') AS account_id, coalesce(awsRegion, '') AS aws_region,
  CASE WHEN tlsDetails.clientProvidedHostHeader IS NULL THEN 'no' ELSE 'yes' END AS tls_host,
  CAST(to_unixtime({time}) AS bigint) / 300 * 300 AS bucket,
  count(DISTINCT eventID) + count_if(eventID IS NULL) AS calls, count(*) AS records,
  max(CAST(to_unixtime({time}) AS bigint)) AS last_time"""
GROUPED = "GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9"
FROM_JSON, FROM_STRUCT = "json_extract_scalar(eventJson, '$.tlsDetails.keyExchange')", "tlsDetails.keyExchange"
PARSED_TIME = "from_iso8601_timestamp(eventtime)"


def lake_statement(first: str, last: str, exchange: str = FROM_JSON, more: str = "") -> str:
    """`first` and `last` as in `2026-06-01 10:00:00`, the last one not within."""
    keys = KEYS.format(exchange=exchange, time="eventTime")
    bounds = f"eventTime >= timestamp '{first}' AND eventTime < timestamp '{last}'"
    return f"SELECT {keys}\nFROM {STORE}\nWHERE {bounds}{more}\n{GROUPED}"


def athena_statement(first: str, last: str, partitions: str, table: str = '"default"."cloudtrail_logs"') -> str:
    keys = KEYS.format(exchange=FROM_STRUCT, time=PARSED_TIME)
    bounds = f"{partitions} AND eventtime >= '{first}' AND eventtime < '{last}'"
    return f'SELECT {keys}\nFROM "AwsDataCatalog".{table}\nWHERE {bounds}\n{GROUPED}'


class TrailTest(DoubleTest):
    """One store and one table, both empty."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.lake = cls.double.client(service="cloudtrail")
        cls.athena = cls.double.client(service="athena")
        cls.loose = {
            name: cls.double.client(service=name, parameter_validation=False) for name in ("cloudtrail", "athena")
        }

    def setUp(self) -> None:
        super().setUp()
        self.control("stores", [{"id": STORE, "account": ACCOUNT, "region": REGION}])
        self.control("tables", [TABLE])

    def deliver(self, *records: dict | tuple[int, dict], **place) -> int:
        """Records, each with the time in ms from which it can be queried, or T0; their size in bytes."""
        pairs = [entry if isinstance(entry, tuple) else (T0, entry) for entry in records]
        events = [
            {"timestamp": T0, "queryable": at, "message": json.dumps(message, separators=(",", ":"))}
            for at, message in pairs
        ]
        self.control("events", {**(place or {"event_data_store": STORE}), "events": events})
        return sum(len(event["message"]) for event in events)

    def lake_start(self, statement: str, **more) -> str:
        return self.lake.start_query(QueryStatement=statement.replace("$EDS_ID", STORE), **more)["QueryId"]

    def lake_ended(self, query: str) -> dict:
        while (answer := self.lake.describe_query(QueryId=query))["QueryStatus"] in ("QUEUED", "RUNNING"):
            pass
        return answer

    def lake_rows(self, statement: str, **more) -> list[dict]:
        query = self.lake_start(statement, **more)
        self.assertEqual(self.lake_ended(query)["QueryStatus"], "FINISHED")
        answer = self.lake.get_query_results(QueryId=query)
        rows = answer["QueryResultRows"]
        while token := answer.get("NextToken"):
            answer = self.lake.get_query_results(QueryId=query, NextToken=token)
            rows += answer["QueryResultRows"]
        return [{name: value for cell in row for name, value in cell.items()} for row in rows]

    def athena_start(self, statement: str, **more) -> str:
        more.setdefault("ResultConfiguration", RESULTS)
        return self.athena.start_query_execution(QueryString=statement, **more)["QueryExecutionId"]

    def athena_ended(self, query: str) -> dict:
        while True:
            execution = self.athena.get_query_execution(QueryExecutionId=query)["QueryExecution"]
            if execution["Status"]["State"] not in ("QUEUED", "RUNNING"):
                return execution

    def athena_rows(self, statement: str, **more) -> list[dict]:
        query = self.athena_start(statement, **more)
        status = self.athena_ended(query)["Status"]
        self.assertEqual(status["State"], "SUCCEEDED", status)
        answer = self.athena.get_query_results(QueryExecutionId=query)
        rows = answer["ResultSet"]["Rows"]
        while token := answer.get("NextToken"):
            answer = self.athena.get_query_results(QueryExecutionId=query, NextToken=token)
            rows += answer["ResultSet"]["Rows"]
        names, *rest = [[cell.get("VarCharValue") for cell in row["Data"]] for row in rows]
        return [dict(zip(names, row, strict=True)) for row in rest]

    def last_query(self) -> dict:
        return self.control("stats")["queries"][-1]
