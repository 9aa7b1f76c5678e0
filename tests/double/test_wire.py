"""The wire: signatures, clocks, error bodies, and faults, seen by a real SDK."""

import http.client
import json
import time
import unittest
import urllib.request
from email.utils import parsedate_to_datetime

import botocore.exceptions

from harness import ACCOUNT, GROUP, REGION, T0, Double, DoubleTest, record

QUERY = "stats count(*) as n"
SENT_NOTHING = (botocore.exceptions.ConnectionClosedError, botocore.exceptions.EndpointConnectionError)


class Process(unittest.TestCase):
    def test_ends_with_its_stdin(self) -> None:
        double = Double()
        self.assertTrue(double.endpoint.startswith("http://127.0.0.1:"))
        self.assertEqual(double.close(), 0)


class Signatures(DoubleTest):
    def test_good(self) -> None:
        self.logs.describe_log_groups()
        self.assertEqual(self.control("stats")["signed_with"], ["AKIADOUBLE"])

    def test_wrong_secret(self) -> None:
        client = self.double.client(secret="guess")
        self.refused("InvalidSignatureException", client.describe_log_groups)

    def test_unknown_key(self) -> None:
        client = self.double.client(key="AKIAUNKNOWN")
        self.refused("UnrecognizedClientException", client.describe_log_groups)

    def test_unsigned(self) -> None:
        request = urllib.request.Request(self.double.endpoint, b"{}", {"X-Amz-Target": "Logs_20140328.StartQuery"})
        with self.assertRaises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request)
        self.assertEqual(json.load(caught.exception)["__type"], "MissingAuthenticationTokenException")
        caught.exception.close()

    def test_changed_body(self) -> None:
        """A signature is of its body: what was signed for one call does not open another."""
        sent = {}
        self.logs.meta.events.register("before-send.logs", lambda request, **_: sent.update(request=request))
        self.logs.describe_log_groups(limit=5)
        headers = {name: value for name, value in sent["request"].headers.items()}
        for name in headers:
            if isinstance(headers[name], bytes):
                headers[name] = headers[name].decode()
        body = b'{"limit": 6}'
        headers["Content-Length"] = str(len(body))
        with self.assertRaises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(urllib.request.Request(self.double.endpoint, body, headers))
        self.assertEqual(json.load(caught.exception)["__type"], "InvalidSignatureException")
        caught.exception.close()

    def test_session(self) -> None:
        session = {"access_key": "ASIA", "secret": "secret", "session_token": "token", "account": ACCOUNT}
        self.control("credentials", [session | {"expires_ms": T0}])
        self.control("clock", {"real": True})
        client = self.double.client(key="ASIA", token="token")
        self.refused("ExpiredTokenException", client.describe_log_groups)
        self.control("credentials", [session | {"expires_ms": int(time.time() * 1000) + 60_000}])
        client.describe_log_groups()
        self.refused("UnrecognizedClientException", self.double.client(key="ASIA", token="other").describe_log_groups)
        self.refused("UnrecognizedClientException", self.double.client(key="ASIA").describe_log_groups)

    def test_skewed_clock(self) -> None:
        for offset, said in ((901, "Signature expired"), (-902, "Signature not yet current")):
            self.control("clock", {"real": True, "offset_ms": offset * 1000})
            error = self.refused("InvalidSignatureException", self.logs.describe_log_groups)
            self.assertIn(said, error["Error"]["Message"])
        self.control("clock", {"real": True, "offset_ms": 890_000})
        self.logs.describe_log_groups()
        self.switch(signature_tolerance_seconds=300)
        self.refused("InvalidSignatureException", self.logs.describe_log_groups)

    def test_denied(self) -> None:
        self.control(
            "credentials",
            [{"access_key": "AKIADOUBLE", "secret": "secret", "account": ACCOUNT, "denied": ["StartQuery"]}],
        )
        error = self.refused("AccessDeniedException", self.start, QUERY)
        self.assertEqual(error["ResponseMetadata"]["HTTPStatusCode"], 400)
        self.assertIn("is not authorized to perform: logs:StartQuery", error["Error"]["Message"])
        self.logs.describe_log_groups()

    def test_unknown_operation(self) -> None:
        self.refused("UnknownOperationException", self.logs.create_log_group, logGroupName="x")


class Clock(DoubleTest):
    def date(self, answer: dict) -> float:
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp() * 1000

    def test_date_header(self) -> None:
        """Of the double's clock, in errors too: clients correct their own by it."""
        self.control("clock", {"set_ms": T0})
        self.assertEqual(self.date(self.refused("InvalidSignatureException", self.logs.describe_log_groups)), T0)
        self.control("clock", {"advance_ms": 60_000})
        self.switch(signature_tolerance_seconds=10**9)
        answer = self.logs.describe_log_groups()
        self.assertEqual(self.date(answer), T0 + 60_000)
        self.assertTrue(answer["ResponseMetadata"]["RequestId"])
        self.control("clock", {"real": True, "offset_ms": 5000})
        self.assertAlmostEqual(self.date(self.logs.describe_log_groups()), time.time() * 1000 + 5000, delta=3000)

    def test_queryable(self) -> None:
        """An event that cannot be queried when the query starts is not in it, whatever happens later."""
        self.switch(signature_tolerance_seconds=10**9)
        self.control("clock", {"set_ms": T0 + 60_000})
        self.put((T0, record()), queryable=T0 + 60_001)
        early = self.start("fields eventName")
        self.control("clock", {"advance_ms": 1})
        self.assertEqual(self.ended(early)["results"], [])
        self.assertEqual(len(self.rows("fields eventName")), 1)


class Faults(DoubleTest):
    def order(self, action: dict, operation: str = "StartQuery", **more) -> None:
        self.control("faults", [{"operation": operation, "action": action, **more}])

    def calls(self, operation: str = "StartQuery") -> int:
        return self.control("stats")["calls"].get(f"logs:{operation}", 0)

    def started(self) -> int:
        return len(self.control("stats")["queries"])

    def test_error_with_skip_and_times(self) -> None:
        self.order(
            {"error": {"status": 400, "code": "ThrottlingException", "message": "Rate exceeded"}}, skip=1, times=2
        )
        self.order({"error": {"status": 503, "code": "ServiceUnavailable", "message": ""}})
        self.start(QUERY)
        for code in ("ThrottlingException", "ThrottlingException", "ServiceUnavailable"):
            self.refused(code, self.start, QUERY)
        self.start(QUERY)
        stats = self.control("stats")
        self.assertEqual(stats["errors"]["logs:StartQuery"], {"ThrottlingException": 2, "ServiceUnavailable": 1})
        self.assertEqual((stats["calls"]["logs:StartQuery"], len(stats["queries"])), (5, 2))

    def test_sdk_retries(self) -> None:
        self.order({"error": {"status": 400, "code": "ThrottlingException", "message": "Rate exceeded"}}, times=2)
        client = self.double.client(retries={"total_max_attempts": 4, "mode": "standard"})
        client.start_query(logGroupName=GROUP, startTime=0, endTime=1, queryString=QUERY)
        self.assertEqual((self.calls(), self.started()), (3, 1))

    def test_clear(self) -> None:
        self.order({"error": {"code": "InternalFailure"}}, times=-1)
        self.assertEqual(self.refused("InternalFailure", self.start, QUERY)["ResponseMetadata"]["HTTPStatusCode"], 500)
        self.refused("InternalFailure", self.start, QUERY)
        self.control("faults", method="DELETE")
        self.start(QUERY)

    def test_reset(self) -> None:
        for when, started in (("before", 0), ("after", 1)):
            self.order({"reset": when})
            with self.assertRaises(SENT_NOTHING):
                self.start(QUERY)
            self.assertEqual(self.started(), started, when)
        self.assertEqual(len(self.control("stats")["orphans"]), 1)

    def test_hang(self) -> None:
        client = self.double.client()
        for carried_out, started in ((False, 0), (True, 1)):
            self.order({"hang_seconds": 0.3, "carried_out": carried_out})
            begin = time.monotonic()
            try:
                client.start_query(logGroupName=GROUP, startTime=0, endTime=1, queryString=QUERY)
                self.assertTrue(carried_out)
            except SENT_NOTHING:
                self.assertFalse(carried_out)
            self.assertGreaterEqual(time.monotonic() - begin, 0.3)
            self.assertEqual(self.started(), started)

    def test_garbage(self) -> None:
        self.order({"garbage": True})
        body = {"logGroupName": GROUP, "startTime": 0, "endTime": 1, "queryString": QUERY}
        answer = self.logs.start_query(**body)
        self.assertNotIn("queryId", answer, "botocore swallows a body that is no JSON")
        self.assertEqual((answer["ResponseMetadata"]["HTTPStatusCode"], self.started()), (200, 0))

    def test_truncate(self) -> None:
        self.order({"truncate": True}, operation="StopQuery")
        query = self.start(QUERY)
        connection = http.client.HTTPConnection("127.0.0.1", int(self.double.endpoint.rsplit(":")[-1]))
        connection.request("POST", "/", b"{}", {"X-Amz-Target": "Logs_20140328.StopQuery"})
        with self.assertRaises(http.client.IncompleteRead):
            connection.getresponse().read()
        connection.close()
        self.assertEqual(self.ended(query)["status"], "Complete")

    def test_fates(self) -> None:
        for fate in ("Failed", "Timeout", "Cancelled", "Unknown"):
            self.order({"query": fate})
            query = self.start(QUERY)
            self.assertEqual(self.ended(query)["status"], fate)
        self.order({"query": "forever"})
        query = self.start(QUERY)
        states = [self.logs.get_query_results(queryId=query)["status"] for _ in range(20)]
        self.assertEqual(states[-1], "Running")
        self.assertEqual(self.control("stats")["orphans"], [query])
        self.logs.stop_query(queryId=query)
        self.assertEqual(self.ended(query)["status"], "Cancelled")
        self.order({"query": "vanish"})
        self.refused("ResourceNotFoundException", self.logs.get_query_results, queryId=self.start(QUERY))
        self.assertEqual(self.control("stats")["orphans"], [])

    def test_keep_alive(self) -> None:
        """Many requests on one connection, errors and all."""
        connection = http.client.HTTPConnection("127.0.0.1", int(self.double.endpoint.rsplit(":")[-1]))
        for _ in range(3):
            connection.request("GET", "/control/stats")
            self.assertEqual(connection.getresponse().read()[:1], b"{")
            local = connection.sock.getsockname()
            connection.request("POST", "/", b"{}", {"X-Amz-Target": "Logs_20140328.Nothing"})
            answer = connection.getresponse()
            self.assertEqual((answer.status, json.loads(answer.read())["__type"]), (404, "UnknownOperationException"))
            self.assertEqual(connection.sock.getsockname(), local)
        connection.close()

    def test_wrong_orders(self) -> None:
        """A test's mistake is an error, not silence."""
        for name, body in (
            ("faults", [{"operation": "StartQuery", "action": {"frob": 1}}]),
            ("switches", {"frob": 1}),
            ("switches", {"missing_key": "perhaps"}),
            ("groups", [{"name": "x", "account": ACCOUNT, "region": REGION, "class": "GLACIER"}]),
            (
                "events",
                {
                    "log_group": "none",
                    "account": ACCOUNT,
                    "region": REGION,
                    "events": [{"timestamp": 1, "message": ""}],
                },
            ),
            ("frob", {}),
        ):
            with self.subTest(name), self.assertRaises(urllib.error.HTTPError) as caught:
                self.control(name, body)
            caught.exception.close()


if __name__ == "__main__":
    unittest.main()
