"""The rules of Grafana's dashboard-linter hold, and each of them notices what it is there for."""

import unittest

import boards
from linter_rules import RULES


def of_variable(which: str, **members):
    return lambda board: boards.variables(board)[which].update(members)


def of_panel(**members):
    return lambda board: boards.panels(board)[0].update(members)


def of_target(**members):
    return lambda board: boards.panels(board)[0]["targets"][0].update(members)


def without_variable(name: str):
    def change(board: dict) -> None:
        board["templating"]["list"] = [one for one in board["templating"]["list"] if one["name"] != name]

    return change


def in_expr(old: str, new: str):
    def change(board: dict) -> None:
        targets = [target for panel in boards.panels(board) for target in panel["targets"] if old in target["expr"]]
        targets[0]["expr"] = targets[0]["expr"].replace(old, new, 1)

    return change


def first_unit(board: dict) -> None:
    boards.panels(board)[0]["fieldConfig"]["defaults"]["unit"] = "calls"


# What each rule has to report, made on the Overview or the dashboard that is named.
WRONG = {
    "template-datasource-rule": [
        without_variable("datasource"),
        of_variable("datasource", label="Source"),
        of_variable("datasource", name="prometheus"),
    ],
    "template-job-rule": [without_variable("job"), of_variable("job", allValue=".*"), of_variable("job", multi=False)],
    "template-instance-rule": [without_variable("instance"), of_variable("instance", label="Target")],
    "template-label-promql-rule": [
        of_variable("job", query="label_values(up{, job)"),
        of_variable("job", query="up"),
        of_variable("job", query='label_values(up{job="$nothing"}, job)'),
    ],
    "template-on-time-change-reload-rule": [of_variable("service", refresh=1)],
    "panel-datasource-rule": [of_panel(datasource={"type": "prometheus", "uid": "abc"}), of_panel(datasource={})],
    "panel-title-description-rule": [of_panel(title=""), of_panel(description="")],
    "panel-units-rule": [first_unit],
    "panel-no-targets-rule": [of_panel(targets=[]), of_panel(targets=None)],
    "target-logql-rule": [of_target(datasource={"type": "loki", "uid": "${loki}"})],
    "target-logql-auto-rule": [of_target(datasource={"type": "loki", "uid": "${loki}"})],
    "target-promql-rule": [of_target(expr="sum(up"), of_target(expr="sum(up[$nothing])"), of_target(expr="summe(up)")],
    "target-rate-interval-rule": [in_expr("[$__rate_interval]", "[5m]")],
    "target-job-rule": [in_expr('job=~"$job"', 'job="$job"'), in_expr('job=~"$job", ', "")],
    "target-instance-rule": [in_expr('instance=~"$instance"', 'instance=~"${instance}"')],
    "target-counter-agg-rule": [
        of_target(expr="sum(cloudtrail_tls_calls_total{})"),
        in_expr("rate(", "max_over_time("),
    ],
    "uneditable-dashboard": [lambda board: board.update(editable=True), lambda board: board.pop("editable")],
}


class Linter(unittest.TestCase):
    def test_every_dashboard_holds_every_rule(self) -> None:
        self.assertEqual(len(RULES), 17)
        self.assertEqual(len(boards.FILES), 4)
        for file, board in boards.load().items():
            for name, rule in RULES.items():
                with self.subTest(file=file, rule=name):
                    self.assertEqual(list(rule(board)), [])

    def test_every_rule_notices_what_is_wrong(self) -> None:
        self.assertEqual(WRONG.keys(), RULES.keys())
        board = boards.load()["overview.json"]
        for name, changes in WRONG.items():
            for number, change in enumerate(changes):
                with self.subTest(rule=name, change=number):
                    self.assertNotEqual(list(RULES[name](boards.changed(board, change))), [])


if __name__ == "__main__":
    unittest.main()
