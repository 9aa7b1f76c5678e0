"""Athena, seen by a real SDK: parameters, layouts, the life of a query, pages, quotas and switches."""

import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from harness import ACCOUNT, REGION, T0, record
from trail_harness import OTHER, RESULTS, STORE, TABLE, TrailTest, athena_statement

COUNT = "SELECT count(*) AS n FROM cloudtrail_logs"
DAY = 86_400_000
TOKEN = "t" * 32
DAYS = ("2026-06-01T00:00:00Z", "2026-06-03T00:00:00Z")


class Parameters(TrailTest):
    def test_statements(self) -> None:
        start = self.loose["athena"].start_query_execution
        for parameters in (
            {},
            {"QueryString": ""},
            {"QueryString": " " * 262_145},
            {"QueryString": COUNT, "ClientRequestToken": "short"},
            {"QueryString": COUNT, "WorkGroup": "none"},
            {"QueryString": COUNT},
            {"QueryString": COUNT, "ResultConfiguration": {"OutputLocation": "results"}},
        ):
            with self.subTest(parameters):
                self.refused("InvalidRequestException", start, **parameters)
        self.assertEqual(self.control("stats")["queries"], [])

    def test_syntax(self) -> None:
        """Seen at StartQueryExecution, github.com/guardian/athena-cli/issues/39; or in the state of the query."""
        error = self.refused("InvalidRequestException", self.athena_start, "SELEC 1")
        self.assertRegex(error["Error"]["Message"], "^line 1:1: mismatched input 'SELEC'")
        self.assertEqual(error["AthenaErrorCode"], "MALFORMED_QUERY")
        self.switch(athena_syntax="while_running")
        execution = self.athena_ended(self.athena_start("SELEC 1"))
        self.assertRegex(execution["Status"]["StateChangeReason"], "^SYNTAX_ERROR: line 1:1: mismatched input")
        self.assertEqual(execution["Statistics"]["DataScannedInBytes"], 0)

    def test_errors_of_the_statement(self) -> None:
        self.control("tables", [TABLE | {"table": "documented", "key_exchange": False}])
        for statement, reason in (
            (
                "SELECT tlsdetails.keyexchange FROM documented",
                "COLUMN_NOT_FOUND: line 1:8: Column 'tlsdetails.keyexchange' cannot be resolved or requester is not "
                "authorized to access requested resources",
            ),
            ("SELECT 1 FROM none", "TABLE_NOT_FOUND: line 1:15: Table 'awsdatacatalog.default.none' does not exist"),
            (
                "SELECT 1 FROM documented WHERE eventtime > timestamp '2026-06-01 00:00:00'",
                "TYPE_MISMATCH: line 1:32: Cannot apply operator: varchar > timestamp",
            ),
            ("SELECT frob(1)", "FUNCTION_NOT_FOUND: line 1:8: Function 'frob' not registered"),
        ):
            query = self.athena_start(statement)
            status = self.athena_ended(query)["Status"]
            self.assertEqual((status["State"], status["StateChangeReason"]), ("FAILED", reason))
            error = status["AthenaError"]
            self.assertEqual((error["ErrorCategory"], error["Retryable"], error["ErrorMessage"]), (2, False, reason))
            self.refused("InvalidRequestException", self.athena.get_query_results, QueryExecutionId=query)
        self.assertEqual(self.control("stats")["orphans"], [])

    def test_names_of_tables(self) -> None:
        self.deliver(record(), table="default.cloudtrail_logs")
        for name, context in (
            ("cloudtrail_logs", {}),
            ("CloudTrail_Logs", {}),
            ('"AwsDataCatalog"."default"."cloudtrail_logs"', {}),
            ("cloudtrail_logs", {"Database": "default", "Catalog": "AwsDataCatalog"}),
            ("default.cloudtrail_logs", {"Database": "other"}),
        ):
            statement = f"SELECT count(*) AS n FROM {name}"
            self.assertEqual(self.athena_rows(statement, QueryExecutionContext=context), [{"n": "1"}], name)
        for context in ({"Database": "other"}, {"Catalog": "other"}):
            status = self.athena_ended(self.athena_start(COUNT, QueryExecutionContext=context))["Status"]
            self.assertIn("TABLE_NOT_FOUND", status["StateChangeReason"])

    def test_workgroups(self) -> None:
        place = {"account": ACCOUNT, "region": REGION}
        self.control(
            "workgroups",
            [
                {"name": "located", "output_location": "s3://group/", **place},
                {"name": "enforced", "output_location": "s3://group/", "enforce": True, **place},
                {"name": "managed", "managed": True, **place},
                {"name": "foreign", "account": OTHER, "region": REGION},
            ],
        )
        for group, asked, location in (
            ("primary", "s3://mine", "s3://mine"),
            ("located", None, "s3://group"),
            ("located", "s3://mine", "s3://mine"),
            ("enforced", "s3://mine", "s3://group"),
            ("managed", None, None),
        ):
            configuration = {"OutputLocation": asked} if asked else {}
            query = self.athena_start(COUNT, WorkGroup=group, ResultConfiguration=configuration)
            execution = self.athena.get_query_execution(QueryExecutionId=query)["QueryExecution"]
            given = execution.get("ResultConfiguration", {}).get("OutputLocation")
            self.assertEqual(given, location and f"{location}/{query}.csv")
        for group, configuration in (("managed", RESULTS), ("foreign", RESULTS), ("primary", {})):
            self.refused(
                "InvalidRequestException", self.athena_start, COUNT, WorkGroup=group, ResultConfiguration=configuration
            )
        found = self.athena.get_work_group(WorkGroup="enforced")["WorkGroup"]["Configuration"]
        self.assertEqual(found["ResultConfiguration"], {"OutputLocation": "s3://group/"})
        self.assertTrue(found["EnforceWorkGroupConfiguration"])
        self.assertNotIn("BytesScannedCutoffPerQuery", found)
        error = self.refused("InvalidRequestException", self.athena.get_work_group, WorkGroup="none")
        self.assertEqual(error["Error"]["Message"], "WorkGroup none is not found.")

    def test_table_metadata(self) -> None:
        found = self.athena.get_table_metadata
        names = {"CatalogName": "AwsDataCatalog", "DatabaseName": "default", "TableName": "cloudtrail_logs"}
        table = found(**names)["TableMetadata"]
        columns = {column["Name"]: column["Type"] for column in table["Columns"]}
        fields = ("tlsversion", "ciphersuite", "clientprovidedhostheader", "keyexchange")
        self.assertEqual(columns["tlsdetails"], f"struct<{','.join(f'{field}:string' for field in fields)}>")
        self.assertEqual(columns["eventtime"], "string")
        self.assertEqual(table["PartitionKeys"], [{"Name": "timestamp", "Type": "string"}])
        self.refused("MetadataException", found, **names | {"TableName": "none"})

    def test_cutoff(self) -> None:
        size = self.deliver(record(), table="default.cloudtrail_logs")
        for cutoff, state in ((size, "SUCCEEDED"), (size - 1, "CANCELLED")):
            group = {"name": "small", "account": ACCOUNT, "region": REGION, "cutoff_bytes": cutoff}
            self.control("workgroups", [group])
            execution = self.athena_ended(self.athena_start(COUNT, WorkGroup="small"))
            self.assertEqual(execution["Status"]["State"], state)
            self.assertEqual(execution["Statistics"]["DataScannedInBytes"], size)
        self.assertEqual(execution["Status"]["StateChangeReason"], "Bytes scanned limit was exceeded")

    def test_tokens(self) -> None:
        first = self.athena_start(COUNT, ClientRequestToken=TOKEN)
        self.athena_ended(first)
        self.assertEqual(self.athena_start(COUNT, ClientRequestToken=TOKEN), first)
        self.assertNotEqual(self.athena_start(COUNT, ClientRequestToken="u" * 32), first)
        self.assertNotEqual(self.athena_start(COUNT), self.athena_start(COUNT), "the SDK makes a token for each")
        for more in ({"WorkGroup": "primary"}, {"ResultConfiguration": {"OutputLocation": "s3://other"}}):
            error = self.refused("InvalidRequestException", self.athena_start, COUNT, ClientRequestToken=TOKEN, **more)
            self.assertEqual(error["Error"]["Message"], "Idempotent parameters do not match")
        self.assertEqual([query["id"] for query in self.control("stats")["queries"]].count(first), 1)
        self.assertEqual(self.control("stats")["queries"][0]["clientRequestToken"], TOKEN)


class Layouts(TrailTest):
    """Records lie in the UTC day of their delivery; only the partition columns spare bytes."""

    def setUp(self) -> None:
        super().setUp()
        self.records = [
            (T0, record()),
            (T0 + DAY, record(eventTime="2026-06-01T23:59:00Z", awsRegion="us-east-1")),
            (T0 + 9 * DAY, record(recipientAccountId=OTHER)),
        ]

    def scanned(self, table: str, condition: str) -> tuple[str, int]:
        query = self.athena_start(f"SELECT count(*) AS n FROM {table} WHERE {condition}")
        size = self.athena_ended(query)["Statistics"]["DataScannedInBytes"]
        rows = self.athena.get_query_results(QueryExecutionId=query)["ResultSet"]["Rows"]
        return rows[1]["Data"][0]["VarCharValue"], size

    def sizes(self, table: str) -> list[int]:
        self.switch(signature_tolerance_seconds=10**9)
        self.control("clock", {"set_ms": T0 + 30 * DAY})
        return [self.deliver(entry, table=table) for entry in self.records]

    def test_partition_projection(self) -> None:
        one, two, three = self.sizes("default.cloudtrail_logs")
        table = "cloudtrail_logs"
        self.assertEqual(self.scanned(table, "\"timestamp\" = '2026/06/01'"), ("1", one))
        self.assertEqual(self.scanned(table, "\"timestamp\" IN ('2026/06/01', '2026/06/02')"), ("2", one + two))
        self.assertEqual(self.scanned(table, "\"timestamp\" >= '2026/06/02'"), ("2", two + three))
        self.assertEqual(self.scanned(table, "eventtime < '2026-06-01T11:00:00Z'"), ("2", one + two + three))
        self.assertEqual(self.scanned(table, "\"timestamp\" = '2026/06/02' AND eventname = 'none'"), ("0", two))
        statement = athena_statement(*DAYS, "\"timestamp\" IN ('2026/06/01', '2026/06/02')")
        rows = self.athena_rows(statement)
        self.assertEqual(
            sorted((row["aws_region"], row["bucket"], row["calls"]) for row in rows),
            [(REGION, "1780308000", "1"), ("us-east-1", "1780358100", "1")],
        )
        self.assertEqual(self.last_query()["bytesScanned"], one + two)
        self.assertEqual(self.last_query()["bytes_held_columns"], one + two + three)

    def test_manual_partitions(self) -> None:
        self.control("tables", [TABLE | {"table": "manual", "layout": "year_month_day"}])
        one, two, three = self.sizes("default.manual")
        days = "(year = '2026' AND month = '06' AND day = '01' OR year = '2026' AND month = '06' AND day = '02')"
        self.assertEqual(self.scanned("manual", days), ("2", one + two))
        self.assertEqual(self.scanned("manual", f"{days} AND region = 'us-east-1'"), ("1", two))
        self.assertEqual(self.scanned("manual", "month = '6'"), ("0", 0))
        self.assertEqual(self.scanned("manual", f"{days} OR eventname = 'x'"), ("2", one + two + three))
        rows = self.athena_rows(athena_statement(*DAYS, days, '"default"."manual"'))
        self.assertEqual(sum(int(row["calls"]) for row in rows), 2)

    def test_organization(self) -> None:
        self.control("tables", [TABLE | {"table": "whole", "layout": "organization"}])
        one, two, three = self.sizes("default.whole")
        self.assertEqual(self.scanned("whole", f"account = '{OTHER}'"), ("1", three))
        self.assertEqual(self.scanned("whole", f"account = '{ACCOUNT}' AND day = '01'"), ("1", one))

    def test_federated_lake(self) -> None:
        """The records of the store itself, with Lake's columns and bytes."""
        lake = TABLE | {"database": "aws:cloudtrail", "table": STORE, "layout": "lake", "key_exchange": False}
        self.control("tables", [lake])
        self.deliver(record(), record(eventTime="2026-06-03T00:00:00Z"))
        table = f'"AwsDataCatalog"."aws:cloudtrail"."{STORE}"'
        self.assertEqual(self.scanned(table, "eventtime >= timestamp '2026-06-02 00:00:00'"), ("1", 19))
        status = self.athena_ended(self.athena_start(f"SELECT 1 FROM {table} WHERE eventtime > '2026-06-01'"))["Status"]
        self.assertIn("TYPE_MISMATCH", status["StateChangeReason"])
        rows = self.athena_rows(f"SELECT json_extract_scalar(eventjson, '$.eventName') AS e FROM {table}")
        self.assertEqual(rows, [{"e": "GetObject"}] * 2)
        with self.assertRaises(OSError) as caught:
            self.deliver(record(), table=f"aws:cloudtrail.{STORE}")
        caught.exception.close()

    def test_a_lake_table_of_its_own(self) -> None:
        other = STORE.replace("0", "f")
        self.control("tables", [TABLE | {"database": "aws:cloudtrail", "table": other, "layout": "lake"}])
        self.deliver(record(tlsDetails={"keyExchange": "x25519"}), table=f"aws:cloudtrail.{other}")
        statement = f'SELECT tlsdetails.keyexchange AS k, readonly AS r FROM "aws:cloudtrail"."{other}"'
        self.assertEqual(self.athena_rows(statement), [{"k": "x25519", "r": "true"}])


class Life(TrailTest):
    def test_states(self) -> None:
        query = self.athena_start(COUNT)
        seen = []
        for _ in range(4):
            state = self.athena.get_query_execution(QueryExecutionId=query)["QueryExecution"]["Status"]["State"]
            if state != "SUCCEEDED":
                error = self.refused("InvalidRequestException", self.athena.get_query_results, QueryExecutionId=query)
                self.assertEqual(error["Error"]["Message"], f"Query has not yet finished. Current state: {state}")
            seen.append(state)
        self.assertEqual(seen, ["QUEUED", "RUNNING", "RUNNING", "SUCCEEDED"])
        self.switch(athena_requeues=True)
        query = self.athena_start(COUNT)
        get = self.athena.get_query_execution
        seen = [get(QueryExecutionId=query)["QueryExecution"]["Status"]["State"] for _ in range(6)]
        self.assertEqual(seen, ["QUEUED", "RUNNING", "QUEUED", "RUNNING", "RUNNING", "SUCCEEDED"])

    def test_pages(self) -> None:
        """The header is the first row of the first page, and counts as one."""
        self.deliver(*(record(eventName=f"E{number:02}") for number in range(7)), table="default.cloudtrail_logs")
        query = self.athena_start("SELECT eventname AS E, awsregion FROM cloudtrail_logs ORDER BY 1")
        self.athena_ended(query)
        pages, token = [], {}
        while True:
            answer = self.athena.get_query_results(QueryExecutionId=query, MaxResults=4, **token)
            pages.append([row["Data"][0]["VarCharValue"] for row in answer["ResultSet"]["Rows"]])
            columns = answer["ResultSet"]["ResultSetMetadata"]["ColumnInfo"]
            self.assertEqual(
                [(column["Name"], column["Type"]) for column in columns], [("e", "varchar"), ("awsregion", "varchar")]
            )
            if "NextToken" not in answer:
                break
            self.assertEqual(self.control("stats")["orphans"], [query])
            token = {"NextToken": answer["NextToken"]}
        self.assertEqual(pages, [["e", "E00", "E01", "E02"], ["E03", "E04", "E05", "E06"]])
        self.assertEqual(self.control("stats")["orphans"], [])
        results, other = self.loose["athena"].get_query_results, self.athena_start(COUNT)
        self.athena_ended(other)
        for wrong in (
            {"QueryExecutionId": other, **token},
            {"QueryExecutionId": query, "NextToken": "frob"},
            {"QueryExecutionId": query, "MaxResults": 0},
            {"QueryExecutionId": query, "MaxResults": 1001},
            {"QueryExecutionId": STORE},
        ):
            self.refused("InvalidRequestException", results, **wrong)

    def test_header_and_null(self) -> None:
        self.deliver(record(awsRegion=None), table="default.cloudtrail_logs")
        data = [{"VarCharValue": "GetObject"}, {}, {"VarCharValue": ""}]
        names = [{"VarCharValue": name} for name in ("eventname", "awsregion", "_col2")]
        for header, rows in ((True, [names, data]), (False, [data])):
            self.switch(athena_header=header)
            query = self.athena_start("SELECT eventName, awsRegion, '' FROM cloudtrail_logs")
            self.athena_ended(query)
            answer = self.athena.get_query_results(QueryExecutionId=query)
            self.assertEqual([row["Data"] for row in answer["ResultSet"]["Rows"]], rows)

    def test_a_thousand_rows_with_the_header(self) -> None:
        self.deliver(*(record() for _ in range(1000)), table="default.cloudtrail_logs")
        query = self.athena_start("SELECT eventname FROM cloudtrail_logs")
        self.athena_ended(query)
        answer = self.athena.get_query_results(QueryExecutionId=query)
        self.assertEqual((len(answer["ResultSet"]["Rows"]), "NextToken" in answer), (1000, True))

    def test_stop(self) -> None:
        query = self.athena_start(COUNT)
        self.athena.stop_query_execution(QueryExecutionId=query)
        status = self.athena_ended(query)["Status"]
        self.assertEqual(status["State"], "CANCELLED")
        self.athena.stop_query_execution(QueryExecutionId=query)
        self.assertEqual(self.control("stats")["orphans"], [])
        self.refused("InvalidRequestException", self.athena.stop_query_execution, QueryExecutionId=STORE)

    def test_fates(self) -> None:
        size = self.deliver(record(), table="default.cloudtrail_logs")
        for fate, state, category, retryable, reason in (
            ("Failed", "FAILED", 2, False, "GENERIC_USER_ERROR"),
            ("retryable", "FAILED", 1, True, "INTERNAL_ERROR"),
            ("Timeout", "FAILED", 2, False, "^Query timeout$"),
            ("exhausted", "FAILED", 2, False, "^Query exhausted resources at this scale factor$"),
            ("Cancelled", "CANCELLED", None, None, ""),
        ):
            self.control("faults", [{"operation": "StartQueryExecution", "action": {"query": fate}}])
            execution = self.athena_ended(self.athena_start(COUNT))
            status = execution["Status"]
            error = status.get("AthenaError", {})
            self.assertEqual(
                (status["State"], error.get("ErrorCategory"), error.get("Retryable")), (state, category, retryable)
            )
            self.assertRegex(status.get("StateChangeReason", "none"), reason or "none")
            self.assertEqual(execution["Statistics"]["DataScannedInBytes"], size)
        self.control("faults", [{"operation": "athena:StartQueryExecution", "action": {"query": "forever"}}])
        query = self.athena_start(COUNT)
        for _ in range(9):
            state = self.athena.get_query_execution(QueryExecutionId=query)["QueryExecution"]["Status"]["State"]
        self.assertEqual((state, self.control("stats")["orphans"]), ("RUNNING", [query]))
        self.control("faults", [{"operation": "athena:StartQueryExecution", "action": {"query": "vanish"}}])
        query = self.athena_start(COUNT)
        error = self.refused("InvalidRequestException", self.athena.get_query_execution, QueryExecutionId=query)
        self.assertEqual(error["Error"]["Message"], f"QueryExecution {query} was not found")

    def test_time_takes_it_away(self) -> None:
        self.switch(signature_tolerance_seconds=10**9)
        self.control("clock", {"set_ms": T0})
        slow, done = self.athena_start(COUNT), self.athena_start(COUNT)
        self.athena_ended(done)
        self.control("clock", {"advance_ms": 31 * 60_000})
        self.assertEqual(self.athena_ended(slow)["Status"]["StateChangeReason"], "Query timeout")
        self.control("clock", {"advance_ms": 45 * DAY})
        self.refused("InvalidRequestException", self.athena.get_query_execution, QueryExecutionId=done)


class Quotas(TrailTest):
    def test_concurrency(self) -> None:
        self.switch(athena_concurrent_queries=2)
        first, _ = self.athena_start(COUNT, ClientRequestToken=TOKEN), self.athena_start(COUNT)
        error = self.refused("TooManyRequestsException", self.athena_start, COUNT)
        self.assertEqual(error["Reason"], "CONCURRENT_QUERY_LIMIT_EXCEEDED")
        self.assertEqual(self.athena_start(COUNT, ClientRequestToken=TOKEN), first, "no new query")
        self.athena.stop_query_execution(QueryExecutionId=first)
        self.athena_start(COUNT)
        self.assertEqual(self.control("stats")["peaks_running"]["athena"], {f"{ACCOUNT}/{REGION}": 2})

    def test_rates(self) -> None:
        query = self.athena_start(COUNT)
        self.athena_ended(query)
        time.sleep(1.05)
        self.switch(
            athena_starts_per_second=2,
            athena_polls_per_second=3,
            athena_results_per_second=4,
            athena_stops_per_second=2,
        )
        calls = (
            (2, self.athena_start, {"statement": COUNT}),
            (3, self.athena.get_query_execution, {"QueryExecutionId": query}),
            (4, self.athena.get_query_results, {"QueryExecutionId": query}),
            (2, self.athena.stop_query_execution, {"QueryExecutionId": query}),
        )

        def attempt(call) -> bool:
            try:
                call[1](**call[2])
            except self.athena.exceptions.ClientError as error:
                return error.response["Error"] != {"Code": "ThrottlingException", "Message": "Rate exceeded"}
            return True

        for call in calls:
            with ThreadPoolExecutor(4) as pool:
                self.assertEqual(list(pool.map(attempt, [call] * 6)).count(True), call[0])

    def test_defaults_are_those_of_aws(self) -> None:
        self.control("reset", {})
        switches = self.control("switches")
        names = (
            "starts_per_second",
            "polls_per_second",
            "results_per_second",
            "stops_per_second",
            "concurrent_queries",
        )
        self.assertEqual([switches[f"athena_{name}"] for name in names], [20, 100, 100, 20, 20])


if __name__ == "__main__":
    unittest.main()
