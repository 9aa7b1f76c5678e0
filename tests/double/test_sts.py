"""STS: roles assumed through moto, refused as IAM would, and what their sessions may see."""

import json
import socket
import time
import unittest

import botocore
import botocore.exceptions

from harness import ACCOUNT, GROUP, REGION, T0, Double, DoubleTest, record
from trail_harness import STORE

OTHER, THIRD = "444455556666", "777788889999"
ROLE, THIRD_ROLE = f"arn:aws:iam::{OTHER}:role/path/reader", f"arn:aws:iam::{THIRD}:role/reader"


class Process(unittest.TestCase):
    def test_ends_with_the_double(self) -> None:
        for end in (Double.close, lambda double: (double.process.kill(), double.close())):
            double = Double()
            port = double.control("sts", {"start": True})["port"]
            socket.create_connection(("127.0.0.1", port)).close()
            end(double)
            until = time.monotonic() + 10
            with self.assertRaises(ConnectionRefusedError):
                while time.monotonic() < until:
                    socket.create_connection(("127.0.0.1", port)).close()
                    time.sleep(0.02)


class StsTest(DoubleTest):
    """Two accounts beside the caller's own, each with a role that trusts it."""

    def setUp(self) -> None:
        super().setUp()
        self.control("groups", [{"name": GROUP, "account": OTHER, "region": REGION}])
        self.roles({"arn": ROLE}, {"arn": THIRD_ROLE, "external_id": "in-common"})
        self.sts = self.double.client(service="sts")

    def roles(self, *orders: dict) -> None:
        self.control("roles", [{"trusts": [ACCOUNT]} | order for order in orders])

    def assume(self, arn: str = ROLE, sts=None, **more) -> dict:
        more = {"RoleSessionName": "exporter"} | more
        return (sts or self.sts).assume_role(RoleArn=arn, **more)

    def under(self, answer: dict, service: str = "logs", region: str = REGION, **config):
        given = answer["Credentials"]
        return self.double.client(
            given["SecretAccessKey"], given["AccessKeyId"], given["SessionToken"], service, region, **config
        )

    def denied(self, *args, **kwargs) -> None:
        error = self.refused("AccessDenied", self.assume, *args, **kwargs)
        self.assertEqual(error["ResponseMetadata"]["HTTPStatusCode"], 403)
        self.assertIn(f"arn:aws:iam::{ACCOUNT}:user/double is not authorized", error["Error"]["Message"])


class AssumeByToken(StsTest):
    """As a pod with a token of its cluster's OIDC provider."""

    def setUp(self) -> None:
        super().setUp()
        self.roles({"arn": ROLE, "web_identity_token": "the.right.token"}, {"arn": THIRD_ROLE})
        self.sts = self.double.client("", "", service="sts", signature_version=botocore.UNSIGNED)

    def assume_by(self, token: str, arn: str = ROLE) -> dict:
        return self.sts.assume_role_with_web_identity(RoleArn=arn, RoleSessionName="pod", WebIdentityToken=token)

    def test_gives_a_session_of_the_role(self) -> None:
        logs = self.under(self.assume_by("the.right.token"))
        self.assertEqual(len(logs.describe_log_groups()["logGroups"]), 1)

    def test_takes_no_other_token_and_no_other_role(self) -> None:
        self.refused("InvalidIdentityToken", self.assume_by, "another.token")
        self.refused("AccessDenied", self.assume_by, "the.right.token", THIRD_ROLE)


class Assume(StsTest):
    def test_without_external_id(self) -> None:
        answer = self.assume()
        self.assertEqual(answer["AssumedRoleUser"]["Arn"], f"arn:aws:sts::{OTHER}:assumed-role/reader/exporter")
        given = answer["Credentials"]
        self.assertAlmostEqual(given["Expiration"].timestamp(), time.time() + 3600, delta=10)
        self.assertTrue(answer["ResponseMetadata"]["RequestId"])
        self.assertEqual(
            answer["ResponseMetadata"]["RequestId"], answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"]
        )
        stats = self.control("stats")
        self.assertEqual((stats["calls"]["sts:AssumeRole"], stats["errors"]), (1, {}))
        (session,) = stats["sessions"]
        self.assertEqual(
            (session["access_key"], session["role"], session["caller"], session["region"], session["external_id"]),
            (given["AccessKeyId"], ROLE, "AKIADOUBLE", REGION, None),
        )

    def test_external_id(self) -> None:
        self.assume(THIRD_ROLE, ExternalId="in-common")
        self.assertEqual(self.control("stats")["sessions"][0]["external_id"], "in-common")
        self.denied(THIRD_ROLE, ExternalId="another")
        self.denied(THIRD_ROLE)
        self.assume(ExternalId="not-asked-for")
        self.assertEqual(self.control("stats")["errors"], {"sts:AssumeRole": {"AccessDenied": 2}})

    def test_unknown_role(self) -> None:
        self.denied(ROLE + "s")

    def test_untrusted(self) -> None:
        self.roles({"arn": ROLE, "trusts": [THIRD]})
        self.denied()

    def test_not_allowed(self) -> None:
        """The caller's own policy, and not the role's trust, is against it."""
        caller = {"access_key": "AKIADOUBLE", "secret": "secret", "account": ACCOUNT, "denied": ["sts:AssumeRole"]}
        self.control("credentials", [caller])
        self.denied()
        self.sts.get_caller_identity()

    def test_signatures(self) -> None:
        for code, changes in (
            ("InvalidClientTokenId", {"key": "AKIAUNKNOWN"}),
            ("SignatureDoesNotMatch", {"secret": "guess"}),
        ):
            sts = self.double.client(service="sts", **changes)
            error = self.refused(code, self.assume, sts=sts)
            self.assertEqual(error["ResponseMetadata"]["HTTPStatusCode"], 403)
            self.refused(code, sts.get_caller_identity)

    def test_unknown_operation(self) -> None:
        """What moto gives out for these is nobody's key."""
        self.refused("InvalidAction", self.sts.get_session_token)

    def test_wrong_members(self) -> None:
        loose = self.double.client(service="sts", parameter_validation=False)
        self.refused("ValidationError", loose.assume_role, RoleArn=ROLE)
        for changes in (
            {"RoleSessionName": "two words"},
            {"RoleSessionName": "x" * 65},
            {"ExternalId": "x x"},
            {"DurationSeconds": 60},
            {"DurationSeconds": 3601},
        ):
            with self.subTest(changes):
                self.refused("ValidationError", self.assume, sts=loose, **changes)
        self.roles({"arn": ROLE, "max_session_seconds": 7200})
        expiration = self.assume(DurationSeconds=7200)["Credentials"]["Expiration"]
        self.assertAlmostEqual(expiration.timestamp(), time.time() + 7200, delta=10)

    def test_chain(self) -> None:
        """A role's session assumes another role, for an hour at most."""
        first = self.under(self.assume(), "sts")
        chained = THIRD_ROLE + "-chained"
        self.roles({"arn": chained, "trusts": [OTHER], "max_session_seconds": 43_200})
        self.denied(chained)
        self.refused("ValidationError", self.assume, chained, first, DurationSeconds=3601)
        identity = self.under(self.assume(chained, first), "sts").get_caller_identity()
        self.assertEqual(identity["Account"], THIRD)

    def test_wrong_orders(self) -> None:
        for name, body in (
            ("roles", [{"arn": "reader", "trusts": []}]),
            ("roles", [{"arn": ROLE, "trusts": ACCOUNT}]),
            ("roles", [{"arn": ROLE, "trusts": [], "frob": 1}]),
            ("sts", {"start": False}),
        ):
            with self.subTest(body), self.assertRaises(OSError) as caught:
                self.control(name, body)
            self.assertEqual(caught.exception.code, 400)
            caught.exception.close()


class Sessions(StsTest):
    def test_identity(self) -> None:
        self.assertEqual(self.sts.get_caller_identity()["Account"], ACCOUNT)
        identity = self.under(self.assume(), "sts").get_caller_identity()
        self.assertEqual(
            (identity["Account"], identity["Arn"]), (OTHER, f"arn:aws:sts::{OTHER}:assumed-role/reader/exporter")
        )
        self.assertEqual(self.control("stats")["calls"]["sts:GetCallerIdentity"], 2)

    def test_denied_operation(self) -> None:
        self.roles({"arn": ROLE, "denied": ["StartQuery"]})
        logs = self.under(self.assume())
        self.assertEqual(len(logs.describe_log_groups()["logGroups"]), 1)
        error = self.refused(
            "AccessDeniedException", logs.start_query, logGroupName=GROUP, startTime=0, endTime=1, queryString="limit 1"
        )
        self.assertIn("User: arn:aws:sts::444455556666:assumed-role/reader/exporter is", error["Error"]["Message"])
        self.start("limit 1")

    def test_own_accounts(self) -> None:
        """Each session sees the groups, stores and history of its account, in the Region of its signature."""
        self.control("clock", {"set_ms": T0 + 3_600_000})  # the event history ends after 90 days
        self.switch(signature_tolerance_seconds=10**9)
        for account in (ACCOUNT, OTHER, THIRD):
            self.control("stores", [{"id": STORE[:-3] + account[:3], "account": account, "region": REGION}])
            if account != THIRD:
                self.history(account, REGION)
        self.history(THIRD, "us-east-1")
        other, third = self.assume(), self.assume(THIRD_ROLE, ExternalId="in-common")
        for given, account, groups in ((other, OTHER, 1), (third, THIRD, 0)):
            for region in (REGION, "us-east-1"):
                with self.subTest(account, region=region):
                    here = region == REGION
                    logs, trail = (self.under(given, service, region) for service in ("logs", "cloudtrail"))
                    arns = [group["arn"] for group in logs.describe_log_groups()["logGroups"]]
                    self.assertEqual(len(arns), groups * here)
                    self.assertTrue(all(account in arn for arn in arns))
                    stores = [one["EventDataStoreArn"] for one in trail.list_event_data_stores()["EventDataStores"]]
                    self.assertEqual(len(stores), int(here))
                    self.assertTrue(all(account in arn for arn in stores))
                    events = trail.lookup_events(StartTime=T0 / 1000, EndTime=T0 / 1000 + 60)["Events"]
                    seen = [json.loads(event["CloudTrailEvent"])["recipientAccountId"] for event in events]
                    self.assertEqual(seen, [account] if here == (account == OTHER) else [])

    def history(self, account: str, region: str) -> None:
        made = record(recipientAccountId=account, awsRegion=region, eventName="DeleteBucket", readOnly=False)
        event = {"timestamp": T0, "message": json.dumps(made)}
        self.control("events", {"event_history": True, "account": account, "region": region, "events": [event]})

    def test_expiry(self) -> None:
        """Shortened in the answer too, and by real time whatever the double's clock says."""
        self.roles({"arn": ROLE, "expires_in_seconds": 0.4})
        self.control("clock", {"set_ms": T0})
        self.switch(signature_tolerance_seconds=10**9)
        answer = self.assume()
        self.assertAlmostEqual(answer["Credentials"]["Expiration"].timestamp(), time.time() + 0.4, delta=0.4)
        logs, sts = self.under(answer), self.under(answer, "sts")
        logs.describe_log_groups()
        self.control("clock", {"advance_ms": 10**10})
        logs.describe_log_groups()
        time.sleep(0.5)
        self.refused("ExpiredTokenException", logs.describe_log_groups)
        error = self.refused("ExpiredToken", sts.get_caller_identity)
        self.assertEqual(error["ResponseMetadata"]["HTTPStatusCode"], 403)
        self.roles({"arn": ROLE})
        self.under(self.assume()).describe_log_groups()

    def test_reset(self) -> None:
        """Roles and sessions go; moto stays."""
        logs = self.under(self.assume())
        port = self.control("sts", {"start": True})["port"]
        self.control("reset", {})
        self.refused("UnrecognizedClientException", logs.describe_log_groups)
        self.assertEqual(self.control("sts", {"start": True})["port"], port)


class Faults(StsTest):
    def order(self, action: dict, **more) -> None:
        self.control("faults", [{"operation": "sts:AssumeRole", "action": action, **more}])

    def test_errors(self) -> None:
        self.order({"error": {"status": 400, "code": "Throttling", "message": "Rate <exceeded>"}})
        self.order({"error": {"status": 503, "code": "ServiceUnavailable"}}, times=2)
        error = self.refused("Throttling", self.assume)
        self.assertEqual((error["Error"]["Message"], error["Error"]["Type"]), ("Rate <exceeded>", "Sender"))
        self.sts.get_caller_identity()
        error = self.refused("ServiceUnavailable", self.assume)
        self.assertEqual(error["Error"]["Type"], "Receiver")
        retrying = self.double.client(service="sts", retries={"total_max_attempts": 2, "mode": "standard"})
        self.assume(sts=retrying)
        stats = self.control("stats")
        self.assertEqual(stats["calls"]["sts:AssumeRole"], 4)
        self.assertEqual(stats["errors"]["sts:AssumeRole"], {"Throttling": 1, "ServiceUnavailable": 2})
        self.assertEqual(len(stats["sessions"]), 1)

    def test_wire(self) -> None:
        for action, sessions in (
            ({"reset": "before"}, 0),
            ({"reset": "after"}, 1),
            ({"garbage": True}, 1),
            ({"truncate": True}, 2),
        ):
            with self.subTest(action):
                self.order(action)
                with self.assertRaises((botocore.exceptions.BotoCoreError, botocore.parsers.ResponseParserError)):
                    self.assume()
                self.assertEqual(len(self.control("stats")["sessions"]), sessions)
        self.order({"hang_seconds": 0.2, "carried_out": True})
        self.assume()


if __name__ == "__main__":
    unittest.main()
