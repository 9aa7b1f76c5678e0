"""What the dashboards ask: of metrics that exist, in expressions that Prometheus takes, and right for what they mean."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import unittest
from collections.abc import Iterator

import boards
import promql
import scrape

KNOWN = scrape.families()
PER_SECOND = ("rate", "irate", "increase")
# The versions that a matcher may name: what is outdated follows the exporter's `tls.minimum_version`.
NAMED_VERSIONS = {"TLSv1.3", "TLSv.+", "none", "unknown", ""}
OF_EXPORTER = {"cluster", "namespace", "job"}  # one exporter that sees must not hide another that is blind


def parsed(board: dict) -> Iterator[tuple[boards.Query, object]]:
    for query in boards.queries(board):
        yield query, promql.parse(boards.without_matchers(board, query.expr))


def other_expressions(board: dict) -> Iterator[tuple[str, str]]:
    """Those of variables and annotations."""
    for variable in boards.variables(board).values():
        if variable["type"] == "query":
            yield variable["name"], re.fullmatch(r"label_values\((.+), \w+\)", variable["query"])[1]
    for annotation in board["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def labels_of(name: str) -> set[str]:
    return scrape.labels_of(name, KNOWN)


# Each yields what is wrong with one query.


def unknown_names(_: boards.Query, expr) -> Iterator[str]:
    for selected in promql.selected(expr):
        if selected.name not in KNOWN:
            yield f"no metric {selected.name}"
            continue
        for label, _, _ in selected.matchers:
            if label not in labels_of(selected.name):
                yield f"{selected.name} has no label {label}"


def unknown_grouping(_: boards.Query, expr) -> Iterator[str]:
    for aggregation in promql.aggregations(expr):
        inner = promql.labels(aggregation.expr, labels_of)
        for label in aggregation.modifier.labels if aggregation.modifier else []:
            if label not in inner:
                yield f"nothing inside has a label {label}"


def wrong_functions(_: boards.Query, expr) -> Iterator[str]:
    """Counters under rate or increase alone; gauges, which count a window already, never."""
    for selected in promql.selected(expr):
        if (KNOWN[selected.name][0] == "counter") != (selected.function in PER_SECOND):
            yield f"{selected.name} under {selected.function}"


def sums_over_sources(_: boards.Query, expr) -> Iterator[str]:
    for aggregation in promql.aggregations(expr):
        by = aggregation.modifier and aggregation.modifier.type == promql.AGGREGATED_BY
        kept = set(aggregation.modifier.labels) if by else set()
        of_source = any("source" in labels_of(selected.name) for selected in promql.selected(aggregation.expr))
        needed = OF_EXPORTER | {"source"} if of_source else OF_EXPORTER
        if not needed <= kept:
            yield f"{aggregation.op} by {sorted(kept)}"


def matches_others(_: boards.Query, expr) -> Iterator[str]:
    """Series of one exporter that are matched with those of another."""
    for labels in promql.matched_on(expr):
        if not OF_EXPORTER <= labels:
            yield f"on {sorted(labels)}"


def without_namespace(_: boards.Query, expr) -> Iterator[str]:
    """A selector that does not follow the variables that tell exporters apart."""
    for selected in promql.selected(expr):
        for label in ("cluster", "namespace"):
            if (label, "=~", f"${label}") not in selected.matchers:
                yield f"{selected.name} of every {label}"


def loses_source(_: boards.Query, expr) -> Iterator[str]:
    """Sources that are matched with each other, or a result that does not say whose it is."""
    of_source = any("source" in labels_of(selected.name) for selected in promql.selected(expr))
    found = promql.labels(expr, labels_of)
    if of_source and "source" not in found:
        yield f"the result has {sorted(found)}"


def named_versions(_: boards.Query, expr) -> Iterator[str]:
    for selected in promql.selected(expr):
        for label, _, value in selected.matchers:
            named = set(value.replace("[.]", ".").split("|"))
            if label == "tls_version" and not named <= NAMED_VERSIONS:
                yield f"{selected.name} names {value}"


def outdated_by_hand(query: boards.Query, expr) -> Iterator[str]:
    """A panel or line that speaks of outdated calls asks the families that follow `tls.minimum_version`.

    It may ask about the exporter and the positive control, too: they say whether a zero means something.
    """
    if not re.search(r"\boutdated\b", f"{query.title} {query.legend}", re.IGNORECASE):
        return
    for selected in promql.selected(expr):
        if not re.match(r"cloudtrail_tls_((account_)?outdated|control|exporter)_", selected.name):
            yield selected.name


def shares_of_everything(_: boards.Query, expr) -> Iterator[str]:
    """A share says what its whole is: calls that tell, or (coverage) all of them."""
    telling = {
        "cloudtrail_tls_window_calls": {"tls_version"},
        "cloudtrail_tls_key_exchange_window_calls": {"post_quantum", "key_exchange"},
    }
    for division in promql.divisions(expr):
        for selected in promql.selected(division.rhs):
            said = {label for label, _, _ in selected.matchers}
            if selected.name in telling and not telling[selected.name] & said:
                yield f"all of {selected.name}"


def wrong_legend(query: boards.Query, expr) -> Iterator[str]:
    for label in re.findall(r"\{\{(\w+)\}\}", query.legend):
        if label not in promql.labels(expr, labels_of):
            yield f"no label {label} for the legend"


def wrong_moment(query: boards.Query, _) -> Iterator[str]:
    """Numbers and rows are of the moment: what is gone shows nothing, not its last value. Lines are of a range."""
    if query.instant != (query.kind != "timeseries"):
        yield f"instant is {query.instant}"


def short_steps(query: boards.Query, expr) -> Iterator[str]:
    """Counters of calls step once in a window of the source: a rate over less shows spikes."""
    for selected in promql.selected(expr):
        counts = selected.name.startswith("cloudtrail_tls_") and "_http_" not in selected.name
        if query.kind == "timeseries" and counts and selected.function == "rate" and query.min_step not in ("5m", "1h"):
            yield f"{selected.name} has a least step of {query.min_step}"


CHECKS = [
    unknown_names,
    unknown_grouping,
    wrong_functions,
    sums_over_sources,
    matches_others,
    without_namespace,
    loses_source,
    named_versions,
    outdated_by_hand,
    shares_of_everything,
    wrong_legend,
    wrong_moment,
    short_steps,
]


class Queries(unittest.TestCase):
    def test_every_query_passes_every_check(self) -> None:
        for file, board in boards.load().items():
            found = list(parsed(board))
            self.assertGreater(len(found), 10)
            for query, expr in found:
                for check in CHECKS:
                    with self.subTest(file=file, panel=query.title, ref=query.ref, check=check.__name__):
                        self.assertEqual(list(check(query, expr)), [])

    def test_variables_and_annotations_ask_what_exists(self) -> None:
        for file, board in boards.load().items():
            for name, expr in other_expressions(board):
                with self.subTest(file=file, name=name):
                    self.assertEqual(list(unknown_names(None, promql.parse(expr))), [])
            for variable in boards.variables(board).values():
                if found := re.fullmatch(r"label_values\((\w+).*, (\w+)\)", variable["query"]):
                    self.assertIn(found[2], labels_of(found[1]))

    def test_prometheus_takes_every_expression(self) -> None:
        expressions = [
            boards.put_in(expr, boards.values(board))
            for board in boards.load().values()
            for expr in [query.expr for query in boards.queries(board)] + [expr for _, expr in other_expressions(board)]
        ]
        self.assertGreater(len(expressions), 100)
        self.assertEqual(check_rules(expressions), "")
        self.assertIn("parse error", check_rules([*expressions, "sum(up"]))

    def test_what_is_listed_as_missing_is_missing(self) -> None:
        golden = scrape.golden()
        self.assertEqual([name for name in scrape.OF_AWS if name in golden], [])
        readme = (boards.ROOT / "README.md").read_text(encoding="utf-8")
        for name, (_, labels) in scrape.OF_AWS.items():
            line = re.search(rf"^\| .*`{name.removeprefix('cloudtrail_tls_exporter_')}`.*$", readme, re.MULTILINE)
            self.assertIsNotNone(line, name)
            self.assertLessEqual(labels, set(re.findall(r"`(\w+)`", line[0])))


def check_rules(expressions: list[str]) -> str:
    """What promtool says against them; JSON is YAML."""
    rules = [{"record": f"query:{number}", "expr": expr} for number, expr in enumerate(expressions)]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump({"groups": [{"name": "queries", "rules": rules}]}, file)
        file.flush()
        ran = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True, check=False)
    return "" if ran.returncode == 0 else ran.stdout + ran.stderr


class Checks(unittest.TestCase):
    """Each check notices what it is there for."""

    MATCHERS = 'cluster=~"$cluster", namespace=~"$namespace", job=~"$job", instance=~"$instance", source=~"$source"'
    WRONG = [
        (unknown_names, "sum by (cluster, namespace, job, source) (cloudtrail_tls_windows_calls{M})", {}),
        (unknown_names, 'sum by (cluster, job, source) (cloudtrail_tls_window_calls{M, account="1"})', {}),
        (unknown_grouping, "sum by (cluster, job, source, service) (cloudtrail_tls_window_calls{M})", {}),
        (unknown_grouping, "sum by (source, le) (sum by (source) (cloudtrail_tls_window_calls{M}))", {}),
        (wrong_functions, "cloudtrail_tls_calls_total{M}", {}),
        (wrong_functions, "max_over_time(cloudtrail_tls_calls_total{M}[1h])", {}),
        (wrong_functions, "rate(cloudtrail_tls_window_calls{M}[1h])", {}),
        (wrong_functions, "cloudtrail_tls_exporter_batch_duration_seconds_bucket{M}", {}),
        (sums_over_sources, "sum by (cluster, job) (cloudtrail_tls_window_calls{M})", {}),
        (sums_over_sources, "sum(cloudtrail_tls_window_calls{M})", {}),
        (sums_over_sources, "sum without (source) (cloudtrail_tls_window_calls{M})", {}),
        (sums_over_sources, "max by (source) (sum by (job) (cloudtrail_tls_window_calls{M}))", {}),
        (sums_over_sources, "sum by (cluster) (cloudtrail_tls_exporter_series{M})", {}),
        (sums_over_sources, "sum by (cluster, job) (cloudtrail_tls_exporter_series{M})", {}),
        (sums_over_sources, "sum by (cluster, job, source) (cloudtrail_tls_window_calls{M})", {}),
        (matches_others, "up{M} and on (cluster, job) cloudtrail_tls_exporter_build_info{M}", {}),
        (matches_others, "(up{M} * on (job, instance) group_left () up{M}) > 0", {}),
        (without_namespace, 'up{cluster=~"$cluster", job=~"$job"}', {}),
        (without_namespace, 'up{M} or up{namespace=~"$namespace"}', {}),
        (loses_source, "cloudtrail_tls_window_seconds{M} / on (cluster, job) cloudtrail_tls_window_seconds{M}", {}),
        (named_versions, 'cloudtrail_tls_window_calls{M, tls_version=~"TLSv1|TLSv1[.]1"}', {}),
        (named_versions, 'cloudtrail_tls_window_calls{M, tls_version!="TLSv1.2"}', {}),
        (named_versions, 'cloudtrail_tls_window_calls{M, tls_version=~"TLSv1.*"}', {}),
        (outdated_by_hand, 'cloudtrail_tls_window_calls{M, tls_version!="TLSv1.3"}', {"title": "Outdated calls"}),
        (outdated_by_hand, 'cloudtrail_tls_window_calls{M, tls_version!="TLSv1.3"}', {"legend": "outdated"}),
        (
            shares_of_everything,
            'cloudtrail_tls_window_calls{M, tls_version="TLSv1.3"} / cloudtrail_tls_window_calls{M}',
            {},
        ),
        (
            shares_of_everything,
            'cloudtrail_tls_key_exchange_window_calls{M, post_quantum="yes"}'
            " / cloudtrail_tls_key_exchange_window_calls{M}",
            {},
        ),
        (wrong_legend, "sum by (source) (cloudtrail_tls_window_calls{M})", {"legend": "{{account_id}}"}),
        (wrong_legend, "vector(1)", {"legend": "{{source}}"}),
        (wrong_moment, "up{M}", {"instant": False, "kind": "stat"}),
        (wrong_moment, "up{M}", {"instant": False, "kind": "table"}),
        (wrong_moment, "up{M}", {"instant": True, "kind": "timeseries"}),
        (short_steps, "rate(cloudtrail_tls_calls_total{M}[8m])", {"kind": "timeseries"}),
        (short_steps, "rate(cloudtrail_tls_calls_total{M}[8m])", {"kind": "timeseries", "min_step": "15s"}),
    ]

    def test_every_check_notices_what_is_wrong(self) -> None:
        plain = {"dashboard": "", "panel": 1, "title": "", "kind": "stat", "ref": "A", "expr": "", "instant": True}
        plain |= {"legend": "", "min_step": None}
        self.assertEqual({check for check, _, _ in self.WRONG}, set(CHECKS))
        for check, expr, members in self.WRONG:
            with self.subTest(check=check.__name__, expr=expr):
                query = boards.Query(**plain | members)
                self.assertNotEqual(list(check(query, promql.parse(expr.replace("{M", "{" + self.MATCHERS)))), [])


if __name__ == "__main__":
    unittest.main()
