"""Operations of CloudWatch Logs: parameters, the life of a query, pages, and quotas."""

import json
import tempfile
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from harness import ACCOUNT, GROUP, REGION, T0, DoubleTest, as_dict, record

S0 = T0 // 1000
COUNT = "stats count(*) as n"
ARN = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{GROUP}"


class Parameters(DoubleTest):
    def test_groups(self) -> None:
        good = {"queryString": COUNT, "startTime": S0, "endTime": S0 + 1}
        for named in (
            {"logGroupName": GROUP},
            {"logGroupNames": [GROUP]},
            {"logGroupIdentifiers": [ARN]},
            {"logGroupIdentifiers": [GROUP]},
        ):
            self.assertIn("queryId", self.logs.start_query(**good, **named))
        for code, named in (
            ("InvalidParameterException", {}),
            ("InvalidParameterException", {"logGroupName": GROUP, "logGroupNames": [GROUP]}),
            ("InvalidParameterException", {"logGroupNames": [GROUP] * 51}),
            ("InvalidParameterException", {"logGroupIdentifiers": [ARN + ":*"]}),
            ("InvalidParameterException", {"logGroupIdentifiers": [ARN + "*"]}),
            ("InvalidParameterException", {"logGroupIdentifiers": [ARN.replace(REGION, "us-east-1")]}),
            ("InvalidParameterException", {"logGroupName": "a*"}),
            ("ResourceNotFoundException", {"logGroupName": "other"}),
            ("ResourceNotFoundException", {"logGroupNames": [GROUP, "other"]}),
            ("ResourceNotFoundException", {"logGroupIdentifiers": [ARN.replace(ACCOUNT, "444455556666")]}),
        ):
            with self.subTest(named):
                self.refused(code, self.logs.start_query, **good, **named)

    def test_numbers(self) -> None:
        good = {"logGroupName": GROUP, "queryString": COUNT, "startTime": S0, "endTime": S0}
        self.logs.start_query(**good | {"limit": 100_000})
        for wrong in ({"endTime": S0 - 1}, {"limit": 0}, {"limit": 100_001}, {"queryLanguage": "SQL"}):
            with self.subTest(wrong):
                self.refused(
                    "InvalidParameterException",
                    self.double.client(parameter_validation=False).start_query,
                    **good | wrong,
                )

    def test_malformed(self) -> None:
        error = self.refused("MalformedQueryException", self.start, "fields a | frobnicate b")
        self.assertEqual(error["queryCompileError"]["location"], {"startCharOffset": 11, "endCharOffset": 20})
        self.assertEqual(error["queryCompileError"]["message"], error["Error"]["Message"])
        self.refused("MalformedQueryException", self.start, "fields a # " + "x" * 10_000)

    def test_before_the_group(self) -> None:
        """A range wholly before the group's creation, or its retention, is malformed."""
        self.control("groups", [{"name": "young", "account": ACCOUNT, "region": REGION, "creationTime": T0}])
        self.put((T0 - 1, record()), (T0, record()), group="young")
        self.refused("MalformedQueryException", self.start, COUNT, S0 - 60, S0 - 1, logGroupNames=["young"])
        self.assertEqual(self.rows(COUNT, start=S0 - 60, logGroupNames=["young"]), [{"n": "1"}])
        now = int(time.time())
        self.control("groups", [{"name": "short", "account": ACCOUNT, "region": REGION, "retentionInDays": 1}])
        self.put(((now - 90_000) * 1000, record()), ((now - 80_000) * 1000, record()), group="short")
        self.assertEqual(self.rows(COUNT, start=0, end=now, logGroupNames=["short"]), [{"n": "1"}])
        self.refused("MalformedQueryException", self.start, COUNT, 0, now - 90_000, logGroupNames=["short"])

    def test_monitoring_account(self) -> None:
        other = "444455556666"
        self.control("groups", [{"name": GROUP, "account": other, "region": REGION}])
        self.control(
            "credentials",
            [{"access_key": "AKIADOUBLE", "secret": "secret", "account": ACCOUNT, "monitors": [other]}],
        )
        self.start(COUNT, logGroupIdentifiers=[ARN, ARN.replace(ACCOUNT, other)])
        linked = self.logs.describe_log_groups(includeLinkedAccounts=True)["logGroups"]
        self.assertEqual([group["logGroupArn"] for group in linked], [ARN, ARN.replace(ACCOUNT, other)])
        self.assertEqual(len(self.logs.describe_log_groups()["logGroups"]), 1)


class Life(DoubleTest):
    def test_partial_rows_while_running(self) -> None:
        self.put(*((T0 + number, record(eventName=f"E{number % 3}")) for number in range(30)))
        query = self.start("stats count(*) as n by eventName")
        seen = [self.logs.get_query_results(queryId=query) for _ in range(4)]
        self.assertEqual([answer["status"] for answer in seen], ["Scheduled", "Running", "Running", "Complete"])
        self.assertEqual(seen[0]["results"], [])
        counts = [{as_dict(row)["eventName"]: int(as_dict(row)["n"]) for row in answer["results"]} for answer in seen]
        self.assertEqual(counts[3], {"E0": 10, "E1": 10, "E2": 10})
        self.assertEqual(sum(counts[1].values()), 15)
        statistics = seen[3]["statistics"]
        self.assertEqual(
            (statistics["recordsMatched"], statistics["recordsScanned"], statistics["resultCount"]), (30, 30, 3)
        )

    def test_switches_of_polls(self) -> None:
        self.put((T0, record()))
        self.switch(polls_scheduled=0, polls_running=0)
        self.assertEqual(self.logs.get_query_results(queryId=self.start(COUNT))["status"], "Complete")
        self.switch(polls_running=1, partial_rows=False)
        answer = self.logs.get_query_results(queryId=self.start(COUNT))
        self.assertEqual((answer["status"], answer["results"]), ("Running", []))

    def test_scanned_whatever_the_filter(self) -> None:
        self.put((T0, record()), (T0 + 1000, record(eventName="Other")), (T0 + 5000, record()))
        size = sum(len(json.dumps(r, separators=(",", ":"))) for r in (record(), record(eventName="Other")))
        answer = self.ended(self.start('filter eventName = "Other"', end=S0 + 1))
        statistics = answer["statistics"]
        self.assertEqual(statistics["bytesScanned"], size)
        self.assertEqual((statistics["recordsScanned"], statistics["recordsMatched"]), (2, 1))
        stats = self.control("stats")
        self.assertEqual((stats["bytes_scanned_started"], stats["bytes_scanned_completed"]), (size, size))
        self.assertEqual(stats["bytes_held"][0]["bytes"], size + len(json.dumps(record(), separators=(",", ":"))))

    def test_stop(self) -> None:
        query = self.start(COUNT)
        self.assertEqual(self.control("stats")["orphans"], [query])
        self.assertIs(self.logs.stop_query(queryId=query)["success"], True)
        self.assertEqual(self.ended(query)["status"], "Cancelled")
        self.refused("InvalidParameterException", self.logs.stop_query, queryId=query)
        self.refused("ResourceNotFoundException", self.logs.stop_query, queryId="none")
        self.assertEqual(self.control("stats")["orphans"], [])

    def test_restart_forgets(self) -> None:
        query = self.start(COUNT)
        self.control("restart", {})
        self.refused("ResourceNotFoundException", self.logs.get_query_results, queryId=query)
        self.assertTrue(self.control("stats")["queries"][0]["forgotten"])

    def test_time_takes_it_away(self) -> None:
        self.switch(signature_tolerance_seconds=10**9)
        self.control("clock", {"set_ms": T0})
        running, done = self.start(COUNT), self.start(COUNT)
        self.ended(done)
        self.control("clock", {"advance_ms": 61 * 60_000})
        self.assertEqual(self.ended(running)["status"], "Timeout")
        self.assertEqual(self.ended(done)["status"], "Complete")
        self.control("clock", {"advance_ms": 7 * 86_400_000})
        self.refused("ResourceNotFoundException", self.logs.get_query_results, queryId=done)

    def test_describe_queries(self) -> None:
        first, second = self.start(COUNT), self.start(COUNT)
        self.ended(first)
        infos = self.logs.describe_queries()["queries"]
        self.assertEqual([info["queryId"] for info in infos], [second, first])
        complete = self.logs.describe_queries(status="Complete", logGroupName=GROUP)["queries"]
        self.assertEqual([(info["queryId"], info["queryString"]) for info in complete], [(first, COUNT)])
        page = self.logs.describe_queries(maxResults=1)
        rest = self.logs.describe_queries(maxResults=1, nextToken=page["nextToken"])
        self.assertEqual([info["queryId"] for info in page["queries"] + rest["queries"]], [second, first])
        self.refused(
            "InvalidParameterException",
            self.double.client(parameter_validation=False).describe_queries,
            maxResults=1001,
        )

    def test_describe_log_groups(self) -> None:
        self.control(
            "groups",
            [
                {
                    "name": f"aws/{name}",
                    "account": ACCOUNT,
                    "region": REGION,
                    "class": log_class,
                    "retentionInDays": 7,
                    "creationTime": 5,
                }
                for name, log_class in (("b", "INFREQUENT_ACCESS"), ("a", "STANDARD"))
            ],
        )
        self.put((T0, "12345"), group="aws/a")
        groups = self.logs.describe_log_groups(logGroupNamePrefix="aws/")["logGroups"]
        self.assertEqual([group["logGroupName"] for group in groups], ["aws/a", "aws/b"])
        arn = ARN.replace(GROUP, "aws/a")
        self.assertEqual((groups[0]["arn"], groups[0]["logGroupArn"], groups[0]["storedBytes"]), (arn + ":*", arn, 5))
        brief = self.logs.describe_log_groups(logGroupNamePattern="ws/a")["logGroups"]
        self.assertEqual(brief, [{"logGroupName": "aws/a", "arn": arn + ":*", "creationTime": 5}])
        self.assertEqual(len(self.logs.describe_log_groups(logGroupClass="INFREQUENT_ACCESS")["logGroups"]), 1)
        self.assertEqual(len(self.logs.describe_log_groups(logGroupIdentifiers=[arn])["logGroups"]), 1)
        page = self.logs.describe_log_groups(limit=2)
        self.assertEqual(len(self.logs.describe_log_groups(limit=2, nextToken=page["nextToken"])["logGroups"]), 1)
        self.refused(
            "InvalidParameterException", self.logs.describe_log_groups, logGroupNamePrefix="a", logGroupNamePattern="a"
        )

    def test_describe_field_indexes(self) -> None:
        group = {"name": "indexed", "account": ACCOUNT, "region": REGION, "fieldIndexes": ["tlsDetails.tlsVersion"]}
        self.control("groups", [group])
        arn = ARN.replace(GROUP, "indexed")
        index = {"logGroupIdentifier": arn, "fieldIndexName": "tlsDetails.tlsVersion", "firstEventTime": 0}
        describe = self.logs.describe_field_indexes
        self.assertEqual(describe(logGroupIdentifiers=["indexed", GROUP])["fieldIndexes"], [index])
        self.refused("ResourceNotFoundException", describe, logGroupIdentifiers=["none"])

    def test_load_from_file(self) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".ndjson") as file:
            for number in range(3):
                event = {
                    "log_group": GROUP,
                    "account": ACCOUNT,
                    "region": REGION,
                    "timestamp": T0 + number,
                    "message": "{}",
                }
                file.write(json.dumps(event) + "\n")
            file.flush()
            self.assertEqual(self.control("events", {"file": file.name}), {"events": 3})
        self.assertEqual(self.rows(COUNT), [{"n": "3"}])


class Pages(DoubleTest):
    def setUp(self) -> None:
        super().setUp()
        self.put(*((T0 + number, record(eventName=f"E{number:05}")) for number in range(23)))

    def test_pages_of_seven(self) -> None:
        query = self.start("stats count(*) as n by eventName | sort eventName")
        answer = self.ended(query, maxItems=7)
        pages = [answer["results"]]
        while token := answer.get("nextToken"):
            self.assertFalse(self.control("stats")["queries"][0]["fetched_complete"])
            answer = self.logs.get_query_results(queryId=query, maxItems=7, nextToken=token)
            pages.append(answer["results"])
        self.assertEqual([len(page) for page in pages], [7, 7, 7, 2])
        names = [as_dict(row)["eventName"] for page in pages for row in page]
        self.assertEqual(names, [f"E{number:05}" for number in range(23)])
        stats = self.control("stats")
        self.assertTrue(stats["queries"][0]["fetched_complete"])
        self.assertEqual(stats["orphans"], [])

    def test_an_unread_page_is_an_orphan(self) -> None:
        query = self.start("fields eventName")
        self.ended(query, maxItems=22)
        self.assertEqual(self.control("stats")["orphans"], [query])

    def test_tokens(self) -> None:
        query, other = self.start("fields eventName"), self.start("fields eventName")
        token = self.ended(query, maxItems=7)["nextToken"]
        for wrong in ("x", "bm8="):
            self.refused("InvalidParameterException", self.logs.get_query_results, queryId=query, nextToken=wrong)
        self.refused("InvalidParameterException", self.logs.get_query_results, queryId=other, nextToken=token)
        self.refused(
            "InvalidParameterException",
            self.double.client(parameter_validation=False).get_query_results,
            queryId=query,
            maxItems=10_001,
        )
        self.control("clock", {"advance_ms": 3_600_001})
        self.switch(signature_tolerance_seconds=10**9)
        self.refused("InvalidParameterException", self.logs.get_query_results, queryId=query, nextToken=token)

    def test_limits(self) -> None:
        self.assertEqual(len(self.rows("fields eventName", limit=10)), 10)
        self.assertEqual(len(self.rows("fields eventName | limit 5")), 5)
        self.assertEqual(len(self.rows("fields eventName | limit 12", limit=10)), 10)
        self.assertEqual(len(self.rows("fields eventName")), 23)

    def test_ten_thousand_by_default(self) -> None:
        self.put(*((T0 + 100 + number, "{}") for number in range(10_100)))
        self.assertEqual(len(self.rows("fields eventName")), 10_000)
        query = self.start("fields eventName", limit=100_000)
        answer = self.ended(query)
        self.assertEqual(len(answer["results"]), 10_000)
        answer = self.logs.get_query_results(queryId=query, nextToken=answer["nextToken"])
        self.assertEqual((len(answer["results"]), "nextToken" in answer), (123, False))


class Quotas(DoubleTest):
    def setUp(self) -> None:
        super().setUp()
        self.switch(starts_per_second=10, polls_per_second=10)

    def test_rates(self) -> None:
        def attempt(number: int) -> str:
            try:
                return self.start(COUNT)
            except self.logs.exceptions.ClientError as error:
                self.assertEqual(error.response["Error"]["Message"], "Rate exceeded")
                return error.response["Error"]["Code"]

        self.start(COUNT)
        time.sleep(1.1)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(attempt, range(14)))
        self.assertEqual(answers.count("ThrottlingException"), 4)
        place = f"{ACCOUNT}/{REGION}"
        self.assertEqual(self.control("stats")["peak_starts_per_second"], {place: 14})
        with self.assertRaises(self.logs.exceptions.ClientError):
            for _ in range(11):
                self.logs.get_query_results(queryId=answers[0])
        self.assertEqual(self.control("stats")["peak_polls_per_second"], {place: 11})
        time.sleep(1.1)
        self.start(COUNT)

    def test_concurrency(self) -> None:
        self.switch(starts_per_second=1000, concurrent_queries=3)
        queries = [self.start(COUNT) for _ in range(3)]
        error = self.refused("LimitExceededException", self.start, COUNT)
        self.assertEqual(error["Error"]["Message"], "Account maximum query concurrency limit of [3] reached")
        self.logs.stop_query(queryId=queries[0])
        self.start(COUNT)
        self.assertEqual(self.control("stats")["peak_running"], {f"{ACCOUNT}/{REGION}": 3})

    def test_defaults_are_those_of_aws(self) -> None:
        self.control("reset", {})
        switches = self.control("switches")
        numbers = ("starts_per_second", "polls_per_second", "describes_per_second", "concurrent_queries")
        self.assertEqual([switches[name] for name in numbers], [10, 10, 10, 100])


if __name__ == "__main__":
    unittest.main()
