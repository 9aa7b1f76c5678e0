"""CloudTrail Lake, seen by a real SDK: parameters, the life of a query, pages, accounts, quotas and switches."""

import json
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from harness import ACCOUNT, REGION, T0, generated, record
from trail_harness import ARN, FROM_STRUCT, OTHER, STORE, TrailTest, lake_statement

COUNT = f"SELECT count(*) AS n FROM {STORE}"
HOUR = ("2026-06-01 10:00:00", "2026-06-01 11:00:00")


class Parameters(TrailTest):
    def test_statements(self) -> None:
        start = self.loose["cloudtrail"].start_query
        self.assertEqual(len(self.lake_start(COUNT)), 36)
        for code, parameters in (
            ("InvalidParameterException", {}),
            ("InvalidParameterException", {"QueryStatement": ""}),
            ("InvalidParameterException", {"QueryStatement": COUNT + " " * 10_000}),
            ("InvalidParameterException", {"QueryAlias": "template"}),
            ("InvalidParameterException", {"QueryStatement": COUNT, "DeliveryS3Uri": "s3://bucket"}),
            ("InvalidQueryStatementException", {"QueryStatement": "SELEC 1"}),
            ("InvalidQueryStatementException", {"QueryStatement": f"DELETE FROM {STORE}"}),
            ("InvalidQueryStatementException", {"QueryStatement": "SELECT 1 FROM cloudtrail_logs"}),
            ("InvalidQueryStatementException", {"QueryStatement": f"SELECT 1 FROM x.{STORE}"}),
            ("EventDataStoreNotFoundException", {"QueryStatement": COUNT.replace("01234567", "76543210")}),
            ("EventDataStoreARNInvalidException", {"QueryStatement": f'SELECT 1 FROM "{ARN}"'}),
        ):
            with self.subTest(parameters):
                self.refused(code, start, **parameters)
        self.assertEqual(len(self.control("stats")["queries"]), 1)

    def test_wrong_column(self) -> None:
        """What Trino says of it, at the start or when it runs."""
        said = "line 1:8: Column 'tlsdetails.keyexchange' cannot be resolved"
        statement = f"SELECT tlsDetails.keyExchange AS k FROM {STORE}"
        error = self.refused("InvalidQueryStatementException", self.lake_start, statement)
        self.assertEqual(error["Error"]["Message"], said)
        self.switch(lake_checks_columns="while_running")
        query = self.lake_start(statement)
        answer = self.lake_ended(query)
        self.assertEqual((answer["QueryStatus"], answer["ErrorMessage"]), ("FAILED", said))
        self.assertEqual(answer["QueryStatistics"]["BytesScanned"], 0)
        self.assertEqual(self.lake.get_query_results(QueryId=query)["ErrorMessage"], said)
        self.refused("InvalidQueryStatementException", self.lake_start, "SELEC 1")
        self.switch(lake_key_exchange="column")
        self.deliver(record(tlsDetails={"keyExchange": "x25519"}))
        self.assertEqual(self.lake_rows(statement), [{"k": "x25519"}])

    def test_a_statement_that_fails_on_the_way(self) -> None:
        size = self.deliver(record())
        answer = self.lake_ended(self.lake_start(f"SELECT CAST(eventJson AS bigint) FROM {STORE}"))
        self.assertEqual((answer["QueryStatus"], answer["QueryStatistics"]["BytesScanned"]), ("FAILED", size))
        answer = self.lake_ended(self.lake_start(f"SELECT 1 FROM {STORE} WHERE eventTime > 'no time'"))
        self.assertEqual(answer["QueryStatus"], "FAILED")

    def test_stores(self) -> None:
        self.control(
            "stores",
            [
                {"id": STORE.replace("0", "a"), "account": ACCOUNT, "region": REGION, "name": "second"},
                {"id": STORE.replace("0", "b"), "account": OTHER, "region": REGION},
                {"id": STORE.replace("0", "c"), "account": ACCOUNT, "region": "us-east-1"},
            ],
        )
        page = self.lake.list_event_data_stores(MaxResults=1)
        self.assertEqual(page["EventDataStores"], [{"EventDataStoreArn": ARN, "Name": "trail"}])
        rest = self.lake.list_event_data_stores(MaxResults=1, NextToken=page["NextToken"])
        self.assertEqual([store["Name"] for store in rest["EventDataStores"]], ["second"])
        self.assertNotIn("NextToken", rest)
        self.refused("InvalidNextTokenException", self.lake.list_event_data_stores, NextToken="frob")
        self.refused("InvalidMaxResultsException", self.loose["cloudtrail"].list_event_data_stores, MaxResults=1001)
        for given in (STORE, ARN):
            store = self.lake.get_event_data_store(EventDataStore=given)
            self.assertEqual((store["EventDataStoreArn"], store["Status"]), (ARN, "ENABLED"))
            self.assertEqual(store["PartitionKeys"], [{"Name": "calendarday", "Type": "string"}])
        for code, given in (
            ("EventDataStoreARNInvalidException", "arn:aws:cloudtrail:frob"),
            ("EventDataStoreNotFoundException", STORE.replace("0", "d")),
            ("EventDataStoreNotFoundException", STORE.replace("0", "b")),
            ("EventDataStoreNotFoundException", STORE.replace("0", "c")),
            ("EventDataStoreNotFoundException", ARN.replace(ACCOUNT, OTHER)),
        ):
            self.refused(code, self.lake.get_event_data_store, EventDataStore=given)

    def test_inactive_store(self) -> None:
        self.control("stores", [{"id": STORE, "account": ACCOUNT, "region": REGION, "status": "INACTIVE"}])
        self.refused("InactiveEventDataStoreException", self.lake_start, COUNT)
        self.assertEqual(self.lake.get_event_data_store(EventDataStore=STORE)["Status"], "PENDING_DELETION")

    def test_delegated_administrator(self) -> None:
        """The owner's store by its bare id, with the owner's number beside it."""
        self.deliver(record())
        self.control(
            "credentials",
            [
                {"access_key": "AKIADELEGATE", "secret": "secret", "account": OTHER, "delegates_for": [ACCOUNT]},
                {"access_key": "AKIASTRANGER", "secret": "secret", "account": OTHER},
            ],
        )
        delegate = self.double.client(service="cloudtrail", key="AKIADELEGATE")
        stranger = self.double.client(service="cloudtrail", key="AKIASTRANGER")
        owner = {"EventDataStoreOwnerAccountId": ACCOUNT}
        started = delegate.start_query(QueryStatement=COUNT, **owner)
        self.assertEqual(started["EventDataStoreOwnerAccountId"], ACCOUNT)
        for client, more in ((delegate, {}), (stranger, owner), (stranger, {})):
            self.refused("EventDataStoreNotFoundException", client.start_query, QueryStatement=COUNT, **more)
        self.assertEqual(delegate.describe_query(QueryId=started["QueryId"], **owner)["QueryStatus"], "QUEUED")
        self.refused("QueryIdNotFoundException", self.lake.describe_query, QueryId=started["QueryId"])
        self.assertEqual(delegate.get_event_data_store(EventDataStore=ARN)["EventDataStoreArn"], ARN)


class Life(TrailTest):
    def test_partial_rows_while_running(self) -> None:
        """Right in form and wrong in numbers; only DescribeQuery moves a query on."""
        self.deliver(*(record(eventName=f"E{number % 3}") for number in range(30)))
        query = self.lake_start(f"SELECT eventName AS e, count(*) AS n FROM {STORE} GROUP BY 1")
        seen = []
        for _ in range(4):
            described = self.lake.describe_query(QueryId=query)["QueryStatus"]
            answers = [self.lake.get_query_results(QueryId=query) for _ in range(2)]
            self.assertEqual([answer["QueryStatus"] for answer in answers], [described] * 2)
            seen.append((described, sum(int(row[1]["n"]) for row in answers[0]["QueryResultRows"])))
        self.assertEqual(seen, [("QUEUED", 0), ("RUNNING", 15), ("RUNNING", 15), ("FINISHED", 30)])
        self.switch(partial_rows=False, polls_scheduled=0, polls_running=1)
        query = self.lake_start(COUNT)
        self.lake.describe_query(QueryId=query)
        self.assertEqual(self.lake.get_query_results(QueryId=query)["QueryResultRows"], [])

    def test_statistics(self) -> None:
        self.deliver(record(), record(eventName="Other"), record(eventTime="2026-06-03T00:00:00Z"))
        bound = "eventTime < timestamp '2026-06-02 00:00:00'"
        query = self.lake_start(f"SELECT eventName AS e FROM {STORE} WHERE {bound} AND eventName = 'Other'")
        numbers = self.lake_ended(query)["QueryStatistics"]
        self.assertEqual((numbers["EventsMatched"], numbers["EventsScanned"]), (1, 2))
        self.assertEqual(numbers["BytesScanned"], len("GetObject") + len("Other") + 2 * 19)
        self.assertAlmostEqual(numbers["CreationTime"].timestamp(), time.time(), delta=60)
        numbers = self.lake.get_query_results(QueryId=query)["QueryStatistics"]
        self.assertEqual((numbers["ResultsCount"], numbers["TotalResultsCount"]), (1, 1))
        self.switch(lake_total=False)
        query = self.lake_start(COUNT)
        self.lake_ended(query)
        self.assertNotIn("TotalResultsCount", self.lake.get_query_results(QueryId=query)["QueryStatistics"])

    def test_stats_of_the_double(self) -> None:
        size = self.deliver(record(), record(eventTime="2026-06-03T00:00:00Z"))
        self.lake_rows(f"SELECT eventJson FROM {STORE} WHERE eventTime < timestamp '2026-06-02 00:00:00'")
        stats = self.last_query()
        self.assertEqual(
            (stats["service"], stats["status"], stats["fetched_complete"]), ("cloudtrail", "FINISHED", True)
        )
        self.assertEqual((stats["bytesScanned"], stats["bytes_held_columns"]), (size // 2 + 19, size + 2 * 19))
        (held,) = [place for place in self.control("stats")["held"] if "event_data_store" in place]
        self.assertEqual((held["event_data_store"], held["events"], held["bytes"]), (STORE, 2, size))
        calls = self.control("stats")["calls"]
        self.assertEqual((calls["cloudtrail:StartQuery"], calls.get("logs:StartQuery")), (1, None))

    def test_pages(self) -> None:
        self.deliver(*(record(eventName=f"E{number:02}") for number in range(23)))
        query, other = (self.lake_start(f"SELECT eventName AS e FROM {STORE} ORDER BY 1") for _ in range(2))
        self.lake_ended(query), self.lake_ended(other)
        names, token = [], {}
        while True:
            answer = self.lake.get_query_results(QueryId=query, MaxQueryResults=7, **token)
            names.append([row[0]["e"] for row in answer["QueryResultRows"]])
            if "NextToken" not in answer:
                break
            self.assertIn(query, self.control("stats")["orphans"])
            token = {"NextToken": answer["NextToken"]}
        self.assertEqual([len(page) for page in names], [7, 7, 7, 2])
        self.assertEqual(sum(names, []), [f"E{number:02}" for number in range(23)])
        self.assertEqual(self.control("stats")["orphans"], [other])
        results = self.loose["cloudtrail"].get_query_results
        self.refused("InvalidNextTokenException", results, QueryId=other, **token)
        self.refused("InvalidNextTokenException", results, QueryId=query, NextToken="frob")
        for most in (0, 1001):
            self.refused("InvalidMaxResultsException", results, QueryId=query, MaxQueryResults=most)

    def test_a_thousand_rows_a_page(self) -> None:
        self.deliver(*(record(eventName=f"E{number}") for number in range(1001)))
        query = self.lake_start(f"SELECT eventName AS e FROM {STORE}")
        self.lake_ended(query)
        self.assertEqual(len(self.lake.get_query_results(QueryId=query)["QueryResultRows"]), 1000)

    def test_cancel(self) -> None:
        query = self.lake_start(COUNT)
        self.assertEqual(self.control("stats")["orphans"], [query])
        self.assertEqual(self.lake.cancel_query(QueryId=query)["QueryStatus"], "CANCELLED")
        self.assertEqual(self.lake_ended(query)["QueryStatus"], "CANCELLED")
        self.refused("InactiveQueryException", self.lake.cancel_query, QueryId=query)
        self.assertEqual(self.control("stats")["orphans"], [])
        self.assertTrue(self.last_query()["stopped"])
        for call in (self.lake.cancel_query, self.lake.describe_query, self.lake.get_query_results):
            self.refused("QueryIdNotFoundException", call, QueryId=STORE)

    def test_restart_forgets(self) -> None:
        query = self.lake_start(COUNT)
        self.control("restart", {})
        self.refused("QueryIdNotFoundException", self.lake.describe_query, QueryId=query)
        self.assertTrue(self.last_query()["forgotten"])

    def test_time_takes_it_away(self) -> None:
        self.deliver(*(record() for _ in range(10)))
        self.switch(signature_tolerance_seconds=10**9)
        self.control("clock", {"set_ms": T0})
        slow, done = self.lake_start(COUNT), self.lake_start(COUNT)
        self.lake_ended(done)
        self.control("clock", {"advance_ms": 61 * 60_000})
        self.assertEqual(self.lake.describe_query(QueryId=slow)["QueryStatus"], "TIMED_OUT")
        partial = self.lake.get_query_results(QueryId=slow)["QueryResultRows"]
        self.assertEqual(partial, [[{"n": "5"}]], "what it had found can be had, and is not all")
        self.control("clock", {"advance_ms": 7 * 86_400_000})
        self.refused("QueryIdNotFoundException", self.lake.get_query_results, QueryId=done)

    def test_queryable(self) -> None:
        """What cannot be queried when a query starts is not in it, whatever happens later."""
        self.switch(signature_tolerance_seconds=10**9)
        self.control("clock", {"set_ms": T0})
        self.deliver(record(), (T0 + 1, record()))
        early = self.lake_start(COUNT)
        self.control("clock", {"advance_ms": 1})
        self.deliver(record())
        self.lake_ended(early)
        self.assertEqual(self.lake.get_query_results(QueryId=early)["QueryResultRows"], [[{"n": "1"}]])
        self.assertEqual(self.lake_rows(COUNT), [{"n": "3"}])

    def test_fates(self) -> None:
        self.deliver(record())
        statement = f"SELECT eventName AS e FROM {STORE}"
        for fate, status in (
            ("Failed", "FAILED"),
            ("Cancelled", "CANCELLED"),
            ("Timeout", "TIMED_OUT"),
            ("exhausted", "FAILED"),
        ):
            self.control("faults", [{"operation": "cloudtrail:StartQuery", "action": {"query": fate}}])
            answer = self.lake_ended(self.lake_start(statement))
            self.assertEqual((answer["QueryStatus"], answer["QueryStatistics"]["BytesScanned"]), (status, 9), fate)
        self.assertEqual(answer["ErrorMessage"], "Query exhausted resources at this scale factor")
        self.control("faults", [{"operation": "StartQuery", "action": {"query": "forever"}}])
        query = self.lake_start(statement)
        states = [self.lake.describe_query(QueryId=query)["QueryStatus"] for _ in range(9)]
        self.assertEqual((states[-1], self.control("stats")["orphans"]), ("RUNNING", [query]))
        self.control("faults", [{"operation": "StartQuery", "action": {"query": "vanish"}}])
        self.refused("QueryIdNotFoundException", self.lake.describe_query, QueryId=self.lake_start(statement))
        self.control("faults", [{"operation": "logs:StartQuery", "action": {"error": {"code": "InternalFailure"}}}])
        self.lake_start(statement)

    def test_denied(self) -> None:
        credential = {"access_key": "AKIADOUBLE", "secret": "secret", "account": ACCOUNT}
        self.control("credentials", [credential | {"denied": ["cloudtrail:StartQuery", "logs:DescribeQuery"]}])
        error = self.refused("AccessDeniedException", self.lake_start, COUNT)
        self.assertIn("cloudtrail:StartQuery", error["Error"]["Message"])
        self.refused("QueryIdNotFoundException", self.lake.describe_query, QueryId=STORE)


class Quotas(TrailTest):
    def test_rates(self) -> None:
        """Of each operation its own, and none of those of Logs Insights."""
        self.switch(
            lake_starts_per_second=3,
            lake_describes_per_second=4,
            lake_results_per_second=5,
            lake_cancels_per_second=1,
            lake_stores_per_second=2,
            lake_lists_per_second=2,
            starts_per_second=0,
        )
        query = self.lake_start(COUNT)
        time.sleep(1.05)
        calls = {
            "StartQuery": (3, lambda: self.lake_start(COUNT)),
            "DescribeQuery": (4, lambda: self.lake.describe_query(QueryId=query)),
            "GetQueryResults": (5, lambda: self.lake.get_query_results(QueryId=query)),
            "GetEventDataStore": (2, lambda: self.lake.get_event_data_store(EventDataStore=STORE)),
            "ListEventDataStores": (2, self.lake.list_event_data_stores),
            "CancelQuery": (1, lambda: self.lake.cancel_query(QueryId=query)),
        }

        def attempt(run) -> bool:
            try:
                run()
            except self.lake.exceptions.ClientError as error:
                return error.response["Error"] != {"Code": "ThrottlingException", "Message": "Rate exceeded"}
            return True

        for name, (limit, run) in calls.items():
            with ThreadPoolExecutor(4) as pool:
                answers = list(pool.map(attempt, [run] * (limit + 2)))
            self.assertEqual(answers.count(True), limit, name)
            self.assertEqual(self.control("stats")["peaks"][f"cloudtrail:{name}"], {f"{ACCOUNT}/{REGION}": limit + 2})
        self.assertEqual(self.control("stats")["peak_starts_per_second"], {})

    def test_concurrency(self) -> None:
        queries = [self.lake_start(COUNT) for _ in range(10)]
        self.refused("MaxConcurrentQueriesException", self.lake_start, COUNT)
        self.lake.cancel_query(QueryId=queries[0])
        self.lake_start(COUNT)
        self.assertEqual(self.control("stats")["peaks_running"]["cloudtrail"], {f"{ACCOUNT}/{REGION}": 10})
        self.assertEqual(self.athena_rows("SELECT 1 AS one"), [{"one": "1"}])
        self.switch(lake_concurrent_queries=11)
        self.lake_start(COUNT)

    def test_defaults_are_those_of_aws(self) -> None:
        self.control("reset", {})
        switches = self.control("switches")
        names = ("starts", "describes", "results", "stores", "lists", "cancels")
        self.assertEqual([switches[f"lake_{name}_per_second"] for name in names], [3, 10, 10, 10, 10, 1])


class Switches(TrailTest):
    def test_columns_and_null(self) -> None:
        self.deliver(record(awsRegion=None))
        statement = f"SELECT eventName AS theName, awsRegion FROM {STORE}"
        for null, expected in (("absent", {}), ("empty", {"awsRegion": ""}), ("null", {"awsRegion": None})):
            self.switch(lake_null=null)
            self.assertEqual(self.lake_rows(statement), [{"theName": "GetObject", **expected}])
        self.switch(lake_columns="lower")
        self.assertEqual(self.lake_rows(statement), [{"thename": "GetObject", "awsregion": None}])

    def test_prunes(self) -> None:
        self.deliver(record(), record(eventTime="2026-06-01T12:00:00Z"), record(eventTime="2026-06-02T12:00:00Z"))
        statement = lake_statement(*HOUR)
        for setting, events in (("calendarday", 2), ("time", 1)):
            self.switch(lake_prunes=setting)
            numbers = self.lake_ended(self.lake_start(statement))["QueryStatistics"]
            self.assertEqual((numbers["EventsScanned"], numbers["EventsMatched"]), (events, 1))

    def test_prunes_by_times_that_lie_apart(self) -> None:
        hours = [f"2026-06-0{day}T{hour}:30:00Z" for day in (1, 2, 3) for hour in ("10", "12", "14")]
        self.deliver(*(record(eventTime=time) for time in hours))
        time = "eventTime >= timestamp '2026-06-0{} {}:00:00'".format
        until = "eventTime < timestamp '2026-06-0{} {}:00:00'".format
        whole = f"{time(1, 10)} AND {until(3, 15)}"
        for parts, by_time, by_day in (
            ("true", 9, 9),
            (f"({time(1, 10)} AND {until(1, 11)} OR {time(1, 14)} AND {until(1, 15)})", 2, 3),
            (f"({time(1, 10)} AND {until(1, 11)} OR {time(3, 14)} AND {until(3, 15)})", 2, 6),
            # One side that bounds nothing bounds nothing together.
            (f"({time(1, 10)} AND {until(1, 11)} OR eventSource = 'x')", 9, 9),
        ):
            statement = f"SELECT count(*) AS n FROM {STORE} WHERE {whole} AND {parts}"
            for setting, events in (("time", by_time), ("calendarday", by_day)):
                self.switch(lake_prunes=setting)
                numbers = self.lake_ended(self.lake_start(statement))["QueryStatistics"]
                self.assertEqual(numbers["EventsScanned"], events, (parts, setting))

    def test_both_ways_to_the_key_exchange(self) -> None:
        self.switch(lake_key_exchange="column")
        self.deliver(*(message for _, message in generated(500)))
        by_json = self.lake_rows(lake_statement(*HOUR))
        by_struct = self.lake_rows(lake_statement(*HOUR, FROM_STRUCT))
        self.assertEqual(sorted(map(json.dumps, by_json)), sorted(map(json.dumps, by_struct)))
        self.assertGreater(len(by_json), 100)


if __name__ == "__main__":
    unittest.main()
