"""The Alertmanager example: where each alert goes, and a real Alertmanager that is not to swallow a page."""

import pathlib
import subprocess
import tempfile
import time
import unittest

import rules
import yaml
from alertmanager import EXAMPLE, Alertmanager, Webhook
from programs import DEADLINE

RECEIVERS = {"critical": "pager", "warning": "tickets", "info": "nobody"}


def amtool(*arguments: str) -> str:
    run = subprocess.run(["amtool", *arguments], capture_output=True, text=True, timeout=DEADLINE)
    if run.returncode != 0:
        raise AssertionError(run.stdout + run.stderr)
    return run.stdout


class Example(unittest.TestCase):
    def test_is_taken_by_amtool(self) -> None:
        self.assertIn("SUCCESS", amtool("check-config", str(EXAMPLE)))

    def test_sends_each_alert_by_its_severity(self) -> None:
        for alert in rules.alerts():
            labels = [f"alertname={alert['alert']}", f"severity={alert['labels']['severity']}", "account_id=1"]
            with self.subTest(alert["alert"]):
                receiver = amtool("config", "routes", "test", f"--config.file={EXAMPLE}", *labels)
                self.assertEqual(receiver.strip(), RECEIVERS[alert["labels"]["severity"]])

    def test_names_alerts_that_exist_and_inhibits_no_regression(self) -> None:
        names = {alert["alert"] for alert in rules.alerts()}
        for inhibition in yaml.safe_load(EXAMPLE.read_text())["inhibit_rules"]:
            for side in ("source_matchers", "target_matchers"):
                operator, value = inhibition[side][0].removeprefix("alertname ").split(" ", 1)
                value = value.strip('"')
                found = expanded(value)
                with self.subTest(value):
                    self.assertLessEqual(found, names)
                    self.assertEqual(operator, "=~" if len(found) > 1 else "=")
                    if side == "target_matchers":
                        self.assertFalse([name for name in found if name.endswith("Regression")])


def expanded(pattern: str) -> set[str]:
    """`a(b|c)d` as its words; `(x)?` is one with and one without."""
    before, bracket, rest = pattern.partition("(")
    if not bracket:
        return {pattern}
    inside, _, after = rest.partition(")")
    alternatives = inside.split("|") + [""] * after.startswith("?")
    return {before + alternative + after.removeprefix("?") for alternative in alternatives}


SEVERITIES = {alert["alert"]: alert["labels"]["severity"] for alert in rules.alerts()}


def alert(kind: str, **labels: str) -> dict:
    name = f"CloudtrailTls{kind}"
    return {"alertname": name, "severity": SEVERITIES[name], "job": "ct", **labels}


def sent(webhook: Webhook) -> list[tuple[str, list[dict]]]:
    """The receiver of each notification, and the labels of its alerts."""
    return [(receiver, [each["labels"] for each in alerts]) for receiver, alerts in list(webhook.notifications)]


class RealAlertmanager(unittest.TestCase):
    def delivered(self, arrives: list[dict], others: list[dict], last: dict) -> list[tuple[str, list[dict]]]:
        """What is sent until `last`, which is posted when all that `arrives` has arrived, and so waits the time that
        every group waits once more. The `others` are posted with those that arrive."""
        webhook = Webhook()
        self.addCleanup(webhook.close)
        with tempfile.TemporaryDirectory() as folder:
            alertmanager = Alertmanager(pathlib.Path(folder), webhook)
            self.addCleanup(alertmanager.close)
            alertmanager.post(arrives + others)
            self.wait_for(arrives, webhook)
            alertmanager.post([last])
            self.wait_for([last], webhook)
            alertmanager.close()
        return [(receiver, group) for receiver, group in sent(webhook) if last not in group]

    def wait_for(self, arrives: list[dict], webhook: Webhook) -> None:
        until = time.monotonic() + DEADLINE
        missing = arrives
        while missing and time.monotonic() < until:
            time.sleep(0.05)
            missing = [labels for labels in arrives if not any(labels in group for _, group in sent(webhook))]
        self.assertEqual(missing, [], f"not delivered within {DEADLINE} s")

    def test_pages_are_grouped_by_account_and_nobody_elses_is_swallowed(self) -> None:
        mine = {"source": "trail", "account_id": "111"}
        theirs = {"source": "trail", "account_id": "222"}
        arrives = [
            alert("OutdatedRegression", **mine, aws_service="kms"),
            alert("OutdatedRegression", **mine, aws_service="s3"),
            alert("OutdatedRegression", **theirs, aws_service="kms"),
            alert("OutdatedCalls", **mine, aws_service="ec2"),
            alert("OutdatedCalls", **theirs, aws_service="s3"),
            alert("OutdatedCalls", source="lake", account_id="111", aws_service="kms"),
            alert("OutdatedCalls", cluster="two", **mine, aws_service="kms"),
            alert("OutdatedAccountRegression", **mine),
            alert("OutdatedCallRegression", **mine, aws_service="s3", event_name="PutObject"),
            # One source stands still: its own alerts only.
            alert("DataStale", source="stale"),
            alert("AccountSilent", source="trail", account_id="111"),
            alert("OutdatedRegression", source="stale", account_id="111", aws_service="kms"),
            alert("OutdatedCalls", source="stale", account_id="222", aws_service="kms"),
            # A worker of one account: nothing of others.
            alert("DataStale", source="roles", worker_account="111", worker_region="eu-central-1"),
            alert("AccountSilent", source="roles", account_id="222"),
            alert("SourceSilent", source="silent"),
            alert("AccessDenied", source="denied", worker_account="111", reason="access_denied"),
            alert("DataStale", source="denied", worker_account="222"),
            alert("ExporterDown", cluster="down"),
            alert("Throttled", cluster="up", source="trail", reason="throttled"),
            alert("OutdatedRegression", cluster="down", **theirs, aws_service="kms"),
        ]
        inhibited = [
            alert("OutdatedCalls", **mine, aws_service="kms"),
            alert("OutdatedCalls", **theirs, aws_service="kms"),
            alert("AccountSilent", source="stale", account_id="111"),
            alert("CoverageDropped", source="stale", account_id="111"),
            alert("SourceSilent", source="stale"),
            alert("AccountControlLost", source="silent", account_id="111"),
            alert("ControlLost", source="silent"),
            alert("DataStale", source="denied", worker_account="111"),
            alert("Throttled", cluster="down", source="trail", reason="throttled"),
        ]
        last = alert("ReloadFailed", cluster="last")
        groups = self.delivered(arrives, inhibited, last)
        by_labels = lambda labels: sorted(labels.items())
        came = [labels for _, group in groups for labels in group]
        self.assertEqual(sorted(came, key=by_labels), sorted(arrives, key=by_labels))
        for receiver, group in groups:
            for labels in group:
                self.assertEqual(receiver, RECEIVERS[labels["severity"]], labels)
        pages = [group for receiver, group in groups if "OutdatedRegression" in group[0]["alertname"]]
        accounts = sorted((page[0]["source"], page[0]["account_id"], len(page)) for page in pages)
        self.assertEqual(accounts, [("stale", "111", 1), ("trail", "111", 2), ("trail", "222", 1), ("trail", "222", 1)])


if __name__ == "__main__":
    unittest.main()
