"""From a call on TLS 1.1 to the page, and from a broken source to the other page, over real programs alone."""

from __future__ import annotations

import unittest

import history
import run
from stack import CLUSTER, JOB, SOURCE, rules

CLEAN, LEGACY, MIGRATION, FAILING = history.CHAPTERS
PAGE, BLIND = "CloudtrailTlsOutdatedRegression", "CloudtrailTlsDataStale"
OF_SOURCE = {"cluster": CLUSTER, "job": JOB, "source": SOURCE}


class EndToEnd(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.chapters = run.chapters()

    def sent(self, chapter: str, receiver: str) -> list[dict]:
        """The alerts that a receiver was sent in a chapter."""
        notifications = self.chapters[chapter].notifications
        return [alert for to, alerts in notifications for alert in alerts if to == receiver]

    def test_ten_clean_days_are_quiet(self) -> None:
        self.assertEqual(self.chapters[CLEAN].notifications, [])

    def test_a_call_on_tls_1_1_is_paged_with_its_service_account_and_caller(self) -> None:
        [page] = self.sent(LEGACY, "pager")
        service = {"account_id": history.LEGACY_ACCOUNT, "aws_service": history.LEGACY.service}
        labels = {"alertname": PAGE, "severity": "critical", **OF_SOURCE, **service}
        self.assertEqual((page["status"], page["labels"]), ("firing", labels))
        text = page["annotations"]["description"]
        self.assertIn(f"{history.LEGACY.service} in account {history.LEGACY_ACCOUNT} is called with outdated TLS", text)
        self.assertIn(f"Latest: {history.LEGACY.event} ({history.LEGACY.caller.tls_version}).", text)
        caller = f"{history.LEGACY_PRINCIPAL} with {history.LEGACY.caller.user_agent}"
        self.assertIn(f"Busiest callers: {history.LEGACY.event} by {caller} (", text)
        self.assertTrue(page["annotations"]["runbook_url"].endswith("/RUNBOOK.md#cloudtrailtlsoutdatedregression"))

    def test_it_resolves_when_its_day_is_over_and_the_call_has_left(self) -> None:
        [page] = self.sent(MIGRATION, "pager")
        [begun] = self.sent(LEGACY, "pager")
        self.assertEqual((page["status"], page["fingerprint"]), ("resolved", begun["fingerprint"]))
        self.assertEqual(page["startsAt"], begun["startsAt"])

    def test_a_crash_of_the_exporter_is_no_second_page_and_loses_no_call(self) -> None:
        self.assertEqual((self.chapters[LEGACY].restarts, self.chapters[MIGRATION].restarts), (0, 1))
        self.assertEqual(self.chapters[MIGRATION].resets, 0)
        self.assertEqual([page["status"] for page in self.sent(MIGRATION, "pager")], ["resolved"])

    def test_a_broken_source_is_paged_instead(self) -> None:
        [page] = self.sent(FAILING, "pager")
        labels = {"alertname": BLIND, "severity": "critical", **OF_SOURCE}
        self.assertEqual((page["status"], page["labels"]), ("firing", labels))
        text = page["annotations"]["description"]
        self.assertRegex(text, r"^trail: what happened in the last [\d.]+s is not counted\.")
        self.assertIn("Failures in the last two hours: not_found.", text)

    def test_the_runbook_leads_from_the_page_to_the_caller(self) -> None:
        """Its first query; every one has an answer while the alert fires that leads there."""
        queries = self.chapters[LEGACY].runbook
        self.assertEqual([query for query, result in queries if not result], [])
        [caller] = queries[0][1]
        told = (caller["metric"]["principal"], caller["metric"]["user_agent"])
        self.assertEqual(told, (history.LEGACY_PRINCIPAL, history.LEGACY.caller.user_agent))

    def test_prometheus_evaluates_every_rule(self) -> None:
        for chapter, seen in self.chapters.items():
            shipped = sorted(rules.name(rule) for rule in rules.rules())
            self.assertEqual(sorted(rule["name"] for rule in seen.rules), shipped)
            ill = [(rule["name"], rule["lastError"]) for rule in seen.rules if rule["health"] != "ok"]
            self.assertEqual(ill, [], chapter)

    def test_no_program_complains_but_of_the_broken_source(self) -> None:
        self.assertEqual(self.chapters[MIGRATION].complaints, [])
        self.assertNotEqual(self.chapters[FAILING].complaints, [])
        for line in self.chapters[FAILING].complaints:
            self.assertIn("reason=not_found", line)

    def test_tickets_are_those_of_the_same_causes(self) -> None:
        names = {
            chapter: {alert["labels"]["alertname"] for alert in self.sent(chapter, "tickets")}
            for chapter in history.CHAPTERS
        }
        outdated = {"CloudtrailTlsOutdatedAccountRegression"}
        # The list of what is to be moved, for the seconds between the end of the page and that of the window.
        left = {"CloudtrailTlsOutdatedCalls"}
        self.assertEqual(names[LEGACY] | (names[MIGRATION] - left), outdated)
        self.assertEqual(names[FAILING] - left, {"CloudtrailTlsSourceFailing"})


if __name__ == "__main__":
    unittest.main()
