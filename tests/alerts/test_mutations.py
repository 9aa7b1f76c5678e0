"""A rule that is wrong in one place turns promtool's tests red: every mutant is killed, or stands below with the reason
why it cannot be told apart."""

import concurrent.futures
import os
import pathlib
import re
import time
import unittest

import mutations
import rules

# (rule, beginning of what was changed): why no test can or should tell.
SURVIVORS = {
    **{
        (f"{level}_window_calls:ratio", change): "0 / 0 is below nothing; the guard keeps it out of graphs"
        for level in (
            "account_service:cloudtrail_tls13_per_versioned",
            "account_service:cloudtrail_tls_post_quantum_per_key_exchange",
            "account:cloudtrail_tls_detailed_per",
        )
        for change in ("0 -> 1 in", "> -> >= in")
    },
    **{
        (f"CloudtrailTls{share}Dropped", "< -> <= in"): "shares are no round numbers"
        for share in ("13Share", "PostQuantumShare", "Coverage")
    },
    **{
        ("account:cloudtrail_tls_account_outdated_window_calls:max_before_quiet_period", f"1 -> {seconds} in"): (
            "a look at one time; how long it is only bridges scrapes that failed"
        )
        for seconds in (7200, 1800)
    },
    ("CloudtrailTlsOutdatedCallRegression", "7 -> 1209600 in"): "the comparison with its value leaves out older calls",
    **{
        ("CloudtrailTlsExporterCrashLooping", f"1 -> {seconds} in"): "the step of the subquery, finer than a restart"
        for seconds in (120, 30)
    },
}


def affected(of: dict, all_rules: list[dict]) -> list[dict]:
    """The rule and all that read what it records."""
    names = {rules.name(of)}
    for rule in all_rules:
        if any(selector.name in names for selector in rules.selectors(rule["expr"])):
            names.add(rules.name(rule))
    return [rule for rule in all_rules if rules.name(rule) in names]


def needed(looked_at: list[dict], tests: list[dict], all_rules: list[dict]) -> list[dict]:
    """What the tests' outcome hangs on: these rules, those that the tests query, and what all of them read."""
    queries = [each["expr"] for file in tests for test in file["tests"] for each in test["promql_expr_test"]]
    names = {rules.name(rule) for rule in looked_at}
    names |= {rules.name(rule) for rule in all_rules if any(looks_at(query, rules.name(rule)) for query in queries)}
    for rule in reversed(all_rules):
        if rules.name(rule) in names:
            names |= {selector.name for selector in rules.selectors(rule["expr"])}
    return [rule for rule in all_rules if rules.name(rule) in names]


def looks_at(query: str, name: str) -> bool:
    patterns = re.findall(r'alertname=~?"([^"]*)"', query)
    return name in query or any(re.fullmatch(each, name) for each in patterns)


def tests_of(file: pathlib.Path, names: set[str]) -> list[dict]:
    """promtool's tests that look at one of these rules, each as a file, without what looks at others alone."""
    reduced = []
    for tests in map(rules.load, rules.TEST_FILES):
        chosen = []
        for test in tests["tests"] if tests["rule_files"] == [f"../{file.name}"] else ():
            by_alert = [each for each in test.get("alert_rule_test", []) if each["alertname"] in names]
            by_query = [
                each for each in test.get("promql_expr_test", []) if any(looks_at(each["expr"], name) for name in names)
            ]
            if by_alert or by_query:
                by_alert = [without_annotations(each) for each in by_alert]
                chosen.append({**test, "alert_rule_test": by_alert, "promql_expr_test": by_query})
        reduced += [{**tests, "tests": [test]} for test in chosen]
    return reduced


def without_annotations(alert_test: dict) -> dict:
    """Mutants are run without annotations, whose queries take most of the time."""
    alerts = [{"exp_labels": alert["exp_labels"]} for alert in alert_test["exp_alerts"]]
    return {**alert_test, "exp_alerts": alerts}


def run(mutant: dict, beside: list[dict], tests: list[dict]) -> str:
    """What the first test that fails says of the mutant; nothing when all pass."""
    chosen = [mutant if rules.name(rule) == rules.name(mutant) else rule for rule in beside]
    plain = [{key: value for key, value in rule.items() if key != "annotations"} for rule in chosen]
    for test in tests:
        passed, output = rules.run_tests({"groups": [{"name": "mutated", "rules": plain}]}, [test])
        if not passed:
            return output
    return ""


def quickest_first(rule: dict, beside: list[dict], tests: list[dict]) -> list[dict]:
    """The tests by the time that they take over the rule as shipped, which passes them all."""
    seconds = []
    for test in tests:
        begin = time.monotonic()
        failure = run(rule, beside, [test])
        seconds.append(time.monotonic() - begin)
        assert not failure, f"{rules.name(rule)} as shipped: {failure}"
    return [test for _, test in sorted(zip(seconds, tests, strict=True), key=lambda pair: pair[0])]


def outcomes(rule: dict, beside: list[dict], tests: list[dict]) -> list[tuple[str, str, str]]:
    """Each mutant of the rule: its rule, what was changed, what failed."""
    tests = quickest_first(rule, beside, tests)
    return [(rules.name(rule), what, run(mutant, beside, tests)) for what, mutant in mutations.mutants(rule)]


class Mutations(unittest.TestCase):
    maxDiff = None

    def test_every_mutant_is_killed_or_explained(self) -> None:
        survived, killed, broken = [], 0, []
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            runs = []
            for file in rules.RULE_FILES:
                all_rules = [rule for group in rules.load(file)["groups"] for rule in group["rules"]]
                for rule in all_rules:
                    looked_at = affected(rule, all_rules)
                    tests = tests_of(file, {rules.name(each) for each in looked_at})
                    beside = needed(looked_at, tests, all_rules)
                    runs.append(pool.submit(outcomes, rule, beside, tests))
            for name, what, failure in (each for run in runs for each in run.result()):
                if not failure:
                    survived.append((name, what))
                elif "got:" in failure or "many-to-many" in failure or "multiple matches" in failure:
                    killed += 1
                else:
                    broken.append((name, what, failure))
        print(f"\n{killed} mutants of the rules killed, {len(survived)} not")
        self.assertEqual(broken, [], "no test said what differs")
        self.assertGreater(killed, 300)
        explained = lambda name, what: any(name == rule and what.startswith(begin) for rule, begin in SURVIVORS)
        self.assertEqual([each for each in sorted(survived) if not explained(*each)], [])
        for rule, begin in SURVIVORS:
            with self.subTest("is killed by now", rule=rule, mutant=begin):
                self.assertTrue(any(name == rule and what.startswith(begin) for name, what in survived))


if __name__ == "__main__":
    unittest.main()
