"""The rules as shipped: promtool, the lints of the trade, and that what they name exists."""

import re
import unittest
from collections import defaultdict

import promql_parser
import rules
import scaled
import yaml

# Families of sources that ask AWS; the golden scrape is of files.
OF_AWS = {
    "cloudtrail_tls_exporter_clock_skew_seconds": {"source"},
    "cloudtrail_tls_exporter_budget_exhausted": {"source"},
}
# Labels that Prometheus gives to a target, and the metric that it makes of one.
OF_TARGETS = {"cluster", "namespace", "job", "instance"}
RUNBOOK = rules.ALERTS / "RUNBOOK.md"


def golden_families() -> dict[str, set[str]]:
    families: dict[str, set[str]] = defaultdict(set)
    for line in (rules.ROOT / "tests" / "golden" / "metrics.prom").read_text().splitlines():
        if not line.startswith("#"):
            name = re.match(r"\w+", line)[0]
            families[name] |= set(re.findall(r'[{,](\w+)="', line))
    return families


def labels_named(expression: str) -> set[str]:
    """The labels of its `by`, `on` and `group_left`."""
    found: set[str] = set()
    for node in rules.nodes(expression):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier:
            found |= set(node.modifier.labels)
        if isinstance(node, promql_parser.BinaryExpr) and node.modifier and node.modifier.matching:
            found |= set(node.modifier.matching.labels)
    return found


class EachRule(unittest.TestCase):
    def test_is_taken_by_promtool(self) -> None:
        code, output = rules.promtool("check", "rules", *rules.RULE_FILES)
        self.assertEqual(code, 0, output)
        self.assertEqual(output.count("SUCCESS"), 3)

    def test_passes_its_tests(self) -> None:
        code, output = rules.promtool("test", "rules", *rules.TEST_FILES)
        self.assertEqual(code, 0, output)
        self.assertEqual(output.count("SUCCESS"), len(rules.TEST_FILES))

    def test_parses_by_another_parser_too(self) -> None:
        """promtool is the machine's, here 2.42; the other one follows Prometheus 2.45."""
        for rule in rules.rules():
            with self.subTest(rules.name(rule)):
                for text in [rule["expr"], *rules.queries(rule)]:
                    promql_parser.parse(text)

    def test_has_only_keys_that_every_version_from_2_42_knows(self) -> None:
        known = {"alert", "record", "expr", "for", "keep_firing_for", "labels", "annotations"}
        for file in rules.RULE_FILES:
            for group in rules.load(file)["groups"]:
                self.assertLessEqual(set(group), {"name", "interval", "rules"})
                self.assertLessEqual(len(group["rules"]), 20)
                self.assertLessEqual(len(group["name"]), 40)
        for rule in rules.rules():
            with self.subTest(rules.name(rule)):
                self.assertLessEqual(set(rule), known)

    def test_names_families_and_labels_that_exist(self) -> None:
        families = {**golden_families(), **OF_AWS, "up": set()}
        recorded = {rules.name(rule) for rule in rules.rules() if "record" in rule}
        everything = set().union(*families.values(), OF_TARGETS, {"alertname"})
        for rule in rules.rules():
            with self.subTest(rules.name(rule)):
                for text in [rule["expr"], *rules.queries(rule)]:
                    for selector in rules.selectors(text):
                        self.assertIn(selector.name, families.keys() | recorded)
                        labels = families.get(selector.name, everything) | OF_TARGETS
                        for matcher in selector.matchers.matchers:
                            self.assertIn(matcher.name, labels, selector.name)
                    self.assertLessEqual(labels_named(text), everything)
                self.assertLessEqual(
                    set(re.findall(r"abels\.(\w+)", str(rule.get("annotations")))), everything
                )

    def test_families_of_aws_are_in_the_code(self) -> None:
        code = (rules.ROOT / "src" / "metrics.rs").read_text()
        for family in OF_AWS:
            self.assertIn(f'"{family.removeprefix("cloudtrail_tls_exporter_")}"', code)

    def test_keeps_cluster_namespace_job_and_source(self) -> None:
        """An aggregation over sources adds up what is no sum; one over clusters names none."""
        families = golden_families() | OF_AWS
        without_source = {"CloudtrailTlsAccountInTwoSources"}  # it counts them
        for rule in rules.rules():
            with self.subTest(rules.name(rule)):
                for node in rules.nodes(rule["expr"]):
                    if isinstance(node, promql_parser.AggregateExpr):
                        labels, inside = set(node.modifier.labels), node.expr.prettify()
                    elif isinstance(node, promql_parser.BinaryExpr) and node.modifier and node.modifier.matching:
                        labels, inside = set(node.modifier.matching.labels), None
                    else:
                        continue
                    self.assertLessEqual({"cluster", "namespace", "job"}, labels)
                    if inside and rules.name(rule) not in without_source:
                        read = [selector.name for selector in rules.selectors(inside)]
                        of_sources = [name for name in read if "source" in families.get(name, ())]
                        self.assertTrue("source" in labels or not of_sources, of_sources)

    def test_names_no_version(self) -> None:
        """Outdated is what `tls.minimum_version` says. TLS 1.3 is named where the goal is TLS 1.3, and there alone."""
        goal = "account_service:cloudtrail_tls13_window_calls:sum"
        versioned = "account_service:cloudtrail_tls_versioned_window_calls:sum"
        for rule in rules.rules():
            with self.subTest(rules.name(rule)):
                named = re.findall(r"(?i)tlsv?1[^\"|]*|TLSv[^\"|]*", rule["expr"].replace("cloudtrail_tls13", ""))
                allowed = {goal: ["TLSv1.3"], versioned: ["TLSv.+"]}.get(rules.name(rule), [])
                self.assertEqual(named, allowed)
                if "Outdated" in rules.name(rule):
                    read = [selector.name for selector in rules.selectors(rule["expr"])]
                    self.assertNotIn("cloudtrail_tls_window_calls", read)

    def test_writes_times_so_that_they_can_be_scaled(self) -> None:
        for rule in rules.rules():
            with self.subTest(rules.name(rule)):
                rest = scaled.SECONDS.sub("", rule["expr"])
                rest = re.sub(r'"[^"]*"|\[[^\]]*\]|offset \w+|[A-Za-z_:][\w:]*', "", rest)
                self.assertLessEqual(set(re.findall(r"[\d.]+", rest)), {"0", "0.1", "0.25", "1", "3", "100"})


class EachAlert(unittest.TestCase):
    def test_is_told_as_the_trade_tells_alerts(self) -> None:
        for alert in rules.alerts():
            with self.subTest(alert["alert"]):
                self.assertRegex(alert["alert"], r"^CloudtrailTls([A-Z0-9]+[a-z0-9]*)+$")
                self.assertLessEqual(len(alert["alert"]), 40)
                self.assertIn(alert["labels"]["severity"], {"critical", "warning", "info"})
                notes = alert["annotations"]
                self.assertEqual(set(notes), {"summary", "description", "runbook_url"})
                self.assertRegex(notes["summary"], r"^[A-Z][^{}]+\.$")
                self.assertRegex(notes["description"], r"\{\{")
                self.assertRegex(notes["description"], r"\.$|\}\}$")

    def test_has_a_name_of_its_own(self) -> None:
        """Alertmanagers that mute the warning of a name by its critical one mute nothing here."""
        names = [alert["alert"] for alert in rules.alerts()]
        self.assertEqual(sorted(set(names)), sorted(names))

    def test_has_its_place_in_the_runbook(self) -> None:
        headings = re.findall(r"^#+ (.+)$", RUNBOOK.read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        bases = set()
        for alert in rules.alerts():
            with self.subTest(alert["alert"]):
                base, anchor = alert["annotations"]["runbook_url"].split("#")
                bases.add(base)
                self.assertEqual(anchor, alert["alert"].lower())
                self.assertIn(anchor, anchors)
        self.assertEqual({base.split("/main/")[1] for base in bases}, {"deploy/alerts/RUNBOOK.md"})
        links = re.findall(r"\]\(#([^)]+)\)", RUNBOOK.read_text())
        self.assertLessEqual(set(links), anchors)
        alerts = {alert["alert"].lower() for alert in rules.alerts()}
        self.assertEqual({anchor for anchor in anchors if anchor.startswith("cloudtrailtls")}, alerts)

    def test_is_tested_firing_in_full_and_silent(self) -> None:
        names = {alert["alert"] for alert in rules.alerts()}
        firing, silent = set(), set()
        for file in map(rules.load, rules.TEST_FILES):
            for test in file["tests"]:
                for each in test.get("alert_rule_test", []):
                    (firing if each["exp_alerts"] else silent).add(each["alertname"])
                    for alert in each["exp_alerts"]:
                        self.assertEqual(set(alert["exp_annotations"]), {"summary", "description", "runbook_url"})
                for each in test.get("promql_expr_test", []):
                    patterns = re.findall(r'alertname=~?"([^"]+)"', each["expr"])
                    silent |= {name for name in names if any(re.fullmatch(one, name) for one in patterns)}
        for alert in rules.alerts():
            with self.subTest(alert["alert"]):
                self.assertIn(alert["alert"], firing)
                self.assertIn(alert["alert"], silent)


class Times(unittest.TestCase):
    REGRESSIONS = rules.ALERTS / "cloudtrail-tls-regressions.yaml"

    def test_scaled_rules_page_as_the_shipped_ones_do(self) -> None:
        """An hour is 10 s, the quiet period 28 minutes: 360 times faster."""
        quick = scaled.scaled(rules.load(self.REGRESSIONS), 360)
        alert = next(rule for rule in quick["groups"][0]["rules"] if rule.get("alert", "").endswith("OutdatedCalls"))
        self.assertEqual(alert["for"], "10000ms")
        page = rules.load(rules.ALERTS / "tests" / "regressions_in_memory.test.yaml")["tests"][0]
        hours = lambda text: f"{int(text.removesuffix('h')) * 10}s"
        asked = [each for each in page["promql_expr_test"] if '="CloudtrailTlsOutdatedRegression"' in each["expr"]]
        asked = [{**each, "eval_time": hours(each["eval_time"])} for each in asked]
        # Without what goes by the exporter's times, which are not scaled in these tests.
        series = [each for each in page["input_series"] if "timestamp" not in each["series"]]
        test = {**page, "interval": "10s", "input_series": series, "promql_expr_test": asked}
        passed, output = rules.run_tests(quick, [{"evaluation_interval": "10s", "tests": [test]}])
        self.assertTrue(passed, output)
        self.assertGreaterEqual(len(asked), 2)

    def test_every_time_is_scaled(self) -> None:
        for file in rules.RULE_FILES:
            for group in scaled.scaled(rules.load(file), 10)["groups"]:
                for rule in group["rules"]:
                    with self.subTest(rules.name(rule)):
                        self.assertNotRegex(rule["expr"], r"\[\d+[smhd]\b|offset \d+[smhd]\b|\* (60|3600|86400)")

    def test_no_time_is_scaled_below_the_shortest(self) -> None:
        shorter = lambda text: scaled.scaled_expression(text, scaled.DAY_IS_A_MINUTE, scaled.SHORTEST)
        self.assertEqual(shorter("increase(x[2h]) > 7 * 86400"), "increase(x[10000ms]) > 420")
        self.assertEqual(shorter("x[7d] offset 1d < 15 * 60"), "x[420000ms] offset 60000ms < 10")
        rule = {"alert": "A", "expr": "x", "for": "1h", "keep_firing_for": "2d"}
        made = scaled.scaled_rule(rule, scaled.DAY_IS_A_MINUTE, scaled.SHORTEST)
        self.assertEqual((made["for"], made["keep_firing_for"]), ("10000ms", "120000ms"))

    def test_the_quiet_period_is_changed_by_the_command_in_the_file(self) -> None:
        text = self.REGRESSIONS.read_text()
        command = re.search(r"^#   sed -i '(.+)' ", text, re.MULTILINE)[1]
        body = text.split("\ngroups:")[1]
        for change in command.split("; "):
            _, before, after, _ = change.split("/")
            body = re.sub(before, after, body)
        changed = yaml.safe_load("groups:" + body)
        # What was clean for 7 days and less than 14 is no regression any more, but an early one.
        worker = '{source="s",worker_account="",worker_region=""}'
        history = f"cloudtrail_tls_exporter_history_start_timestamp_seconds{worker}"
        service = '{source="s",account_id="1",aws_service="kms"}'
        series = {
            'cloudtrail_tls_account_outdated_window_calls{source="s",account_id="1"}': "1x9",
            f"cloudtrail_tls_outdated_window_calls{service}": "1x9",
            f"cloudtrail_tls_outdated_since_timestamp_seconds{service}": "0x9",
            f"cloudtrail_tls_outdated_detected_timestamp_seconds{service}": "0x9",
        }

        def fires(days: int) -> list[str]:
            names = [f"CloudtrailTlsOutdated{kind}" for kind in ("Regression", "EarlyRegression")]
            found = []
            for name in names:
                inputs = {**series, history: f"-{days * 86400}x9"}
                test = {
                    "interval": "1m",
                    "input_series": [{"series": key, "values": value} for key, value in inputs.items()],
                    "promql_expr_test": [
                        {
                            "expr": f'count(ALERTS{{alertname="{name}"}})',
                            "eval_time": "2m",
                            "exp_samples": [{"labels": "{}", "value": 1}],
                        }
                    ],
                }
                if rules.run_tests(changed, [{"evaluation_interval": "1m", "tests": [test]}])[0]:
                    found.append(name.removeprefix("CloudtrailTlsOutdated"))
            return found

        self.assertEqual(fires(13), ["EarlyRegression"])
        self.assertEqual(fires(14), ["Regression"])
        ranges = re.findall(r"\[\d+d\]|offset \d+d", body)
        self.assertEqual(set(ranges), {"[14d]", "offset 1d", "offset 15d"})


if __name__ == "__main__":
    unittest.main()
