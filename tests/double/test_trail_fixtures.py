"""AWS's documented queries and answers of Lake, Athena and the event history (fixtures/, values made here).

Shapes are those of the response syntax of each operation's page in the API references; that nothing else is on the
wire is checked against BC-ct and BC-ath. The queries are from github.com/aws-samples/cloud-trail-lake-query-samples,
from the samples of the CloudTrail console, and from the Athena guide's page on CloudTrail logs.
"""

import json
import tempfile
import unittest
from collections import Counter

from harness import REGION, T0, generated, record
from test_fixtures import FIXTURES, shape
from trail_harness import STORE, TrailTest

BY_SOURCE = f"SELECT eventSource, count(*) AS n FROM {STORE} GROUP BY 1"
UNSUPPORTED = """SELECT eventSource, tlsDetails.tlsVersion, sourceIPAddress, recipientAccountId,
    COUNT(*) AS numOutdatedTlsCalls
FROM $EDS_ID
WHERE tlsDetails.tlsVersion LIKE 'TLSv%' AND CAST(REPLACE(tlsDetails.tlsVersion, 'TLSv', '') AS DOUBLE) <= 1.1
GROUP BY eventSource, tlsDetails.tlsVersion, sourceIPAddress, recipientAccountId
ORDER BY numOutdatedTlsCalls DESC"""
NOT_THE_NEWEST = "SELECT eventSource, tlsdetails.tlsversion FROM $EDS_ID WHERE tlsdetails.tlsversion != 'TLSv1.3'"
CONSOLE = """SELECT eventSource, COUNT(*) AS numOutdatedTlsCalls FROM $EDS_ID
WHERE tlsDetails.tlsVersion IN ('TLSv1', 'TLSv1.1') AND eventTime > '2026-06-01 00:00:00'
GROUP BY eventSource ORDER BY numOutdatedTlsCalls DESC"""
CALLERS = """SELECT recipientAccountId, year(eventTime) AS year_date, month(eventTime) AS month_date, eventSource,
    sourceIPAddress, userAgent, userIdentity.arn, userIdentity.accesskeyid, COUNT(*) AS numOutdatedTlsCalls
FROM $EDS_ID WHERE tlsDetails.tlsVersion IN ('TLSv1', 'TLSv1.1') AND eventTime > '2026-06-01 00:00:00'
GROUP BY recipientAccountId, year(eventTime), month(eventTime), eventSource, sourceIPAddress, userAgent,
    userIdentity.arn, userIdentity.accesskeyid
ORDER BY COUNT(*) DESC"""
ATHENA_GUIDE = """SELECT useridentity.arn, eventname, sourceipaddress, eventtime FROM cloudtrail_logs
WHERE "timestamp" = '2026/06/01' AND useridentity.type = 'IAMUser' AND eventname LIKE 'Get%' LIMIT 100"""


class Fixtures(TrailTest):
    """What goes over the wire, before the SDK has read it."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.bodies: list[tuple[str, dict]] = []

        def note(http_response, model, **_) -> None:
            cls.bodies.append((model.name, json.loads(http_response.content)))

        cls.lake.meta.events.register("after-call.cloudtrail", note)
        cls.athena.meta.events.register("after-call.athena", note)

    def setUp(self) -> None:
        super().setUp()
        self.bodies.clear()
        user = {"type": "IAMUser", "userName": "alice", "accessKeyId": "AKIAEXAMPLE"}
        for place in (
            {},
            {"table": "default.cloudtrail_logs"},
            {"event_history": True, "account": record()["recipientAccountId"], "region": REGION},
        ):
            self.deliver(*(record(eventID=f"id-{number}", userIdentity=user) for number in range(2)), **place)

    def same(self, name: str, body: object = None) -> None:
        """The last body, or a part of it, has the shape of the fixture."""
        body = self.bodies[-1][1] if body is None else body
        self.assertEqual(shape(body), shape(json.loads((FIXTURES / f"{name}.json").read_text())))

    def run_all(self) -> None:
        """Each operation once."""
        query = self.lake_start(BY_SOURCE)
        self.same("lake_start_query")
        self.lake_ended(query)
        self.same("lake_describe_query")
        self.lake.get_query_results(QueryId=query)
        body = dict(self.bodies[-1][1])
        self.assertEqual(body["QueryResultRows"], [[{"eventSource": "s3.amazonaws.com"}, {"n": "2"}]])
        expected = json.loads((FIXTURES / "lake_get_query_results.json").read_text())
        for answer in (body, expected):  # the names of columns are those of the statement
            answer["QueryResultRows"] = [[sorted(cell.values()) for cell in row] for row in answer["QueryResultRows"]]
        self.assertEqual(shape(body), shape(expected))
        self.lake.cancel_query(QueryId=self.lake_start(BY_SOURCE))
        self.same("lake_cancel_query")
        self.lake.list_event_data_stores()
        self.same("lake_list_event_data_stores")
        self.lake.get_event_data_store(EventDataStore=STORE)
        self.switch(signature_tolerance_seconds=10**9)
        self.control("clock", {"set_ms": T0 + 60_000})
        self.lake.lookup_events(MaxResults=1)
        self.same("lookup_events")
        self.control("clock", {"real": True})

    def run_athena(self) -> None:
        query = self.athena_start("SELECT eventsource, eventname FROM cloudtrail_logs")
        self.same("athena_start_query_execution")
        self.athena_ended(query)
        self.athena.get_query_results(QueryExecutionId=query)
        self.same("athena_get_query_results")
        self.athena_ended(self.athena_start("SELECT x FROM cloudtrail_logs"))
        self.same("athena_failed", self.bodies[-1][1]["QueryExecution"]["Status"])
        self.athena.stop_query_execution(QueryExecutionId=self.athena_start("SELECT 1"))
        self.assertEqual(self.bodies[-1][1], {})
        self.athena.get_work_group(WorkGroup="primary")

    def test_answers(self) -> None:
        self.run_all()
        self.run_athena()
        seen = set()
        for name, body in self.bodies:
            client = self.athena if "Execution" in name or "ResultSet" in body or "WorkGroup" in body else self.lake
            model = client.meta.service_model.operation_model(name).output_shape
            self.known(model, body, name)
            seen.add(name)
        self.assertEqual(len(seen), 11)

    def known(self, model, value: object, path: str) -> None:
        """Nothing that the SDK's model of the service does not know, each of the right type."""
        if model.type_name == "structure":
            self.assertLessEqual(set(value), set(model.members), path)
            for name, member in value.items():
                self.known(model.members[name], member, f"{path}.{name}")
        elif model.type_name == "list":
            for item in value:
                self.known(model.member, item, path)
        elif model.type_name == "map":
            for item in value.values():
                self.known(model.value, item, path)
        else:
            types = {"string": str, "boolean": bool, "timestamp": (int, float)}
            self.assertIsInstance(value, types.get(model.type_name, int), path)
            if choices := model.metadata.get("enum"):
                self.assertIn(value, choices, path)

    def test_targets(self) -> None:
        """X-Amz-Target with and without the name of the package before it."""
        prefixes = []
        client = self.double.client(service="cloudtrail")

        def shorten(request, **_) -> None:
            prefixes.append(request.headers["X-Amz-Target"])
            del request.headers["X-Amz-Target"]
            request.headers["X-Amz-Target"] = "CloudTrail_20131101.ListEventDataStores"

        client.list_event_data_stores()
        client.meta.events.register("before-sign.cloudtrail", shorten)
        self.assertEqual(len(client.list_event_data_stores()["EventDataStores"]), 1)
        self.assertEqual(prefixes, ["com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.ListEventDataStores"])
        self.assertEqual(self.control("stats")["calls"], {"cloudtrail:ListEventDataStores": 2})


class Documented(TrailTest):
    def setUp(self) -> None:
        super().setUp()
        user = {"type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/alice", "accessKeyId": "AKIAEXAMPLE"}
        self.records = [
            message | {"userIdentity": user, "sourceIPAddress": "192.0.2.1", "userAgent": "aws-cli"}
            for _, message in generated(300)
        ]
        self.deliver(*self.records)
        self.deliver(*self.records, table="default.cloudtrail_logs")
        self.versions = [message.get("tlsDetails", {}).get("tlsVersion") for message in self.records]
        self.outdated = [
            message
            for message, version in zip(self.records, self.versions, strict=True)
            if version in ("TLSv1", "TLSv1.1")
        ]

    def test_lake(self) -> None:
        by_source = dict(Counter(message["eventSource"] for message in self.outdated))
        rows = self.lake_rows(CONSOLE)
        self.assertEqual({row["eventSource"]: int(row["numOutdatedTlsCalls"]) for row in rows}, by_source)
        counts = [int(row["numOutdatedTlsCalls"]) for row in rows]
        self.assertEqual(counts, sorted(counts, reverse=True))
        rows = self.lake_rows(UNSUPPORTED)
        self.assertEqual(sum(int(row["numOutdatedTlsCalls"]) for row in rows), len(self.outdated))
        self.assertEqual({row["tlsVersion"] for row in rows}, {"TLSv1", "TLSv1.1"})
        rows = self.lake_rows(NOT_THE_NEWEST)
        self.assertEqual(len(rows), sum(version not in (None, "TLSv1.3") for version in self.versions))
        rows = self.lake_rows(CALLERS)
        self.assertEqual(sum(int(row["numOutdatedTlsCalls"]) for row in rows), len(self.outdated))
        first = {name: rows[0][name] for name in ("year_date", "month_date", "userAgent", "accesskeyid")}
        self.assertEqual(
            first, {"year_date": "2026", "month_date": "6", "userAgent": "aws-cli", "accesskeyid": "AKIAEXAMPLE"}
        )

    def test_athena(self) -> None:
        rows = self.athena_rows(ATHENA_GUIDE)
        got = [message for message in self.records if message["eventName"].startswith("Get")]
        self.assertEqual(len(rows), min(100, len(got)))
        self.assertEqual(rows[0]["arn"], "arn:aws:iam::111122223333:user/alice")


class Orders(TrailTest):
    def test_wrong_orders(self) -> None:
        place = {"account": "1", "region": "r"}
        for name, body in (
            ("stores", [{"id": STORE, "frob": 1, **place}]),
            ("tables", [{"database": "d", "table": "t", "layout": "frob", **place}]),
            ("workgroups", [{"name": "w", "frob": 1, **place}]),
            ("switches", {"lake_prunes": "frob"}),
            ("faults", [{"operation": "StartQuery", "action": {"query": "frob"}}]),
            ("events", {"event_data_store": "none", "events": []}),
            ("events", {"table": "default.none", "events": []}),
            ("events", {"events": []}),
            ("events", {"event_data_store": STORE, "table": "default.cloudtrail_logs", "events": []}),
            ("events", {"event_data_store": STORE, "events": [{"timestamp": 1, "message": "no json"}]}),
        ):
            with self.subTest(body), self.assertRaises(OSError) as caught:
                self.control(name, body)
            self.assertEqual(caught.exception.code, 400)
            caught.exception.close()

    def test_places_in_lines(self) -> None:
        """A file whose lines name different places."""
        line = {"timestamp": T0, "message": json.dumps(record())}
        places = ({"event_data_store": STORE}, {"table": "default.cloudtrail_logs"}, {"event_data_store": STORE})
        with tempfile.NamedTemporaryFile("w", suffix=".ndjson") as file:
            file.writelines(json.dumps(line | place) + "\n" for place in places)
            file.flush()
            self.assertEqual(self.control("events", {"file": file.name}), {"events": 3})
        self.assertEqual([place["events"] for place in self.control("stats")["held"]], [2, 1])


if __name__ == "__main__":
    unittest.main()
