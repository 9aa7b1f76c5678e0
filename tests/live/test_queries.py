"""Every query of the dashboards against a real Prometheus, at the end of each chapter of the history."""

from __future__ import annotations

import math
import re
import time
import unittest
from collections.abc import Callable, Iterator

import grafana
import history
import run
from grafana import Answer, boards
from stack import CLUSTER, JOB, OTHER_NAMESPACE, OTHER_SOURCE, SOURCE, TARGETS

CLEAN, LEGACY, MIGRATION, FAILING = history.CHAPTERS
OVERVIEW, SERVICE, MIGRATING, EXPORTER = "overview.json", "service.json", "migration.json", "exporter.json"
BOARDS = boards.load()

# Panels, and in which chapters they rightly have no data. In all others they have, and in these they have none.
ASKS_NO_AWS = "a source of files asks AWS nothing, and no budget is set"
NOTHING_OUTDATED_YET = "no call was outdated in the whole history"
NOBODY_OUTDATED = "no outdated call is in the window"
WITHOUT_DATA = {
    (EXPORTER, "Clock ahead of AWS"): (history.CHAPTERS, ASKS_NO_AWS),
    (EXPORTER, "Budget used today"): (history.CHAPTERS, ASKS_NO_AWS),
    (EXPORTER, "Budget exhausted"): (history.CHAPTERS, ASKS_NO_AWS),
    (EXPORTER, "Budget and its use"): (history.CHAPTERS, ASKS_NO_AWS),
    (EXPORTER, "AWS requests, by operation"): (history.CHAPTERS, ASKS_NO_AWS),
    (EXPORTER, "AWS errors in an hour"): (history.CHAPTERS, ASKS_NO_AWS),
    (EXPORTER, "Failures in an hour, by reason"): ((CLEAN, LEGACY, MIGRATION), "no attempt has failed"),
    (OVERVIEW, "Latest run began"): ((CLEAN,), NOTHING_OUTDATED_YET),
    (OVERVIEW, "Last outdated call"): ((CLEAN,), NOTHING_OUTDATED_YET),
    (OVERVIEW, "Outdated, by account and service"): ((CLEAN,), NOTHING_OUTDATED_YET),
    (OVERVIEW, "Outdated calls, by account"): ((CLEAN,), NOTHING_OUTDATED_YET),
    (OVERVIEW, "Outdated calls, by service"): ((CLEAN,), NOTHING_OUTDATED_YET),
    (OVERVIEW, "Who: the busiest outdated callers"): ((CLEAN, MIGRATION, FAILING), NOBODY_OUTDATED),
    (SERVICE, "Outdated since"): ((CLEAN,), NOTHING_OUTDATED_YET),
    (SERVICE, "Outdated calls, by name"): ((CLEAN,), NOTHING_OUTDATED_YET),
    (SERVICE, "Outdated calls, by account and service"): ((CLEAN,), NOTHING_OUTDATED_YET),
    (SERVICE, "Who: the busiest outdated callers"): ((CLEAN, MIGRATION, FAILING), NOBODY_OUTDATED),
}

# Labels of legends and tables that an exporter leaves empty.
EMPTY_LABELS = {
    "namespace",  # of the exporter that has outdated calls; the other one has no cluster
    "worker_account",  # a source of files has one worker
    "worker_region",
    "aws_region",  # is not in `series.labels` by default
    "source_ip",  # is not in `callers.labels` by default
}


def more_than(least: float) -> Callable[[float], bool]:
    return lambda value: value > least


def less_than(most: float) -> Callable[[float], bool]:
    return lambda value: value < most


SOME = more_than(0)
# What each panel's number for the source of the history is in each chapter; for the others, which stay clean, it is the
# first one in all chapters. With all values of the variables, …
ALL = {
    (OVERVIEW, "Outdated calls", "A"): (0, SOME, 0, 0),
    (OVERVIEW, "Accounts affected", "A"): (0, 1, 0, 0),
    (OVERVIEW, "Services affected", "A"): (0, 1, 0, 0),
    (OVERVIEW, "Accounts without control", "A"): (0, 0, 0, 0),
    (OVERVIEW, "Workers failing", "A"): (0, 0, 0, 1),
    (OVERVIEW, "Data overdue", "A"): (*[less_than(10)] * 3, more_than(5)),
    (OVERVIEW, "Newest record overdue", "A"): (*[less_than(10)] * 3, more_than(5)),
    (OVERVIEW, "Calls without TLS details", "A"): (1 / 9, less_than(1 / 9), 1 / 9, 1 / 9),
    (OVERVIEW, "TLS 1.3", "A"): (0.5, less_than(0.5), 0.875, 0.875),
    (OVERVIEW, "Post-quantum", "A"): (0.25, 0.25, 0.75, 0.75),
    (OVERVIEW, "Shares", "A"): (0.5, less_than(0.5), 0.875, 0.875),
    (OVERVIEW, "Shares", "B"): (0.25, 0.25, 0.75, 0.75),
    (OVERVIEW, "Unknown TLS version", "A"): (0, 0, 0, 0),
    (SERVICE, "Outdated calls", "A"): (0, SOME, 0, 0),
    (MIGRATING, "Share of TLS 1.3", "B"): (0.95, 0.95, 0.95, 0.95),
    (MIGRATING, "TLS 1.3, change in 7 days", "A"): (0, less_than(0), 0.375, 0.375),
    (MIGRATING, "Post-quantum, change in 7 days", "A"): (0, 0, 0.5, 0.5),
    (MIGRATING, "Pairs of account and service that have not arrived", "A"): (0, 1, 0, 0),
    (MIGRATING, "Pairs of account and service that have not arrived", "B"): (4, 4, 2, 2),
    (MIGRATING, "Pairs of account and service that have not arrived", "C"): (6, 6, 2, 2),
    (MIGRATING, "Services on TLS 1.3 alone", "A"): (1, 1, 2, 2),
    (MIGRATING, "Services partly on TLS 1.3", "A"): (1, 1, 1, 1),
    (MIGRATING, "Services without TLS 1.3", "A"): (1, 1, 0, 0),
    (MIGRATING, "Key exchange not told", "A"): (0, SOME, 0, 0),
    (EXPORTER, "Up", "A"): (1, 1, 1, 1),
    (EXPORTER, "Last reload", "A"): (1, 1, 1, 1),
    (EXPORTER, "Workers", "A"): (1, 1, 1, 0),
    (EXPORTER, "Backlog", "A"): (*[less_than(10)] * 3, more_than(5)),
    (EXPORTER, "Clean history", "A"): (more_than(600),) * 4,
    (EXPORTER, "Cost of 24 h", "A"): (0, 0, 0, 0),
    (EXPORTER, "Scans of a record", "A"): (lambda scans: 0.9 < scans < 1.1,) * 4,
    (EXPORTER, "Store in memory", "A"): (0, 0, 0, 0),
}
# … with one account and service, those of the legacy caller, …
ONE = {
    (OVERVIEW, "Outdated calls", "A"): (0, SOME, 0, 0),
    (OVERVIEW, "TLS 1.3", "A"): (0, 0, 0.5, 0.5),
    (OVERVIEW, "Post-quantum", "A"): (0, 0, 0, 0),
    (MIGRATING, "Pairs of account and service that have not arrived", "B"): (1, 1, 1, 1),
}
# … and with two services of two accounts.
TWO = {
    (OVERVIEW, "TLS 1.3", "A"): (0.5, less_than(0.5), 0.75, 0.75),
    (OVERVIEW, "Post-quantum", "A"): (0, 0, 0.5, 0.5),
    (MIGRATING, "Pairs of account and service that have not arrived", "C"): (4, 4, 2, 2),
}


# Tables by one label, before the migration and after it.
ROWS = {
    ("Services by share of TLS 1.3", "aws_service", "B"): (
        {"kms": 1, "s3": 0.5, "dynamodb": 0},
        {"kms": 1, "s3": 1, "dynamodb": 0.5},
    ),
    ("Services by share of TLS 1.3", "aws_service", "C"): (
        {"kms": 0, "s3": 0, "dynamodb": 0},
        {"kms": 0, "s3": 0.5, "dynamodb": 0.5},
    ),
    ("Services by share of post-quantum key exchange", "aws_service", "B"): (
        {"kms": 0, "s3": 0.5, "dynamodb": 0},
        {"kms": 1, "s3": 1, "dynamodb": 0},
    ),
    ("Services by share of post-quantum key exchange", "aws_service", "C"): (
        {"kms": 0, "s3": 0, "dynamodb": 0},
        {"kms": 1, "s3": 0.5, "dynamodb": 0},
    ),
    ("Accounts by share of TLS 1.3", "account_id", "B"): (
        dict.fromkeys(history.ACCOUNTS, 0.5),
        dict.fromkeys(history.ACCOUNTS, 0.875),
    ),
    ("Accounts by share of post-quantum key exchange", "account_id", "C"): (
        dict.fromkeys(history.ACCOUNTS, 0),
        dict.fromkeys(history.ACCOUNTS, 0.5),
    ),
}


Key = tuple[str, str, str]
HISTORY, COPY, OTHER = (CLUSTER, "", SOURCE), (CLUSTER, "", OTHER_SOURCE), ("", OTHER_NAMESPACE, SOURCE)


def key(labels: dict[str, str]) -> Key:
    """Whose a series is; that of an exporter has no source."""
    return labels.get("cluster", ""), labels.get("namespace", ""), labels.get("source", "")


def keys(answer: Answer) -> list[Key]:
    """Whose numbers a panel is to show."""
    if answer.selection == "one":
        sources = [HISTORY]
    elif WITHOUT_DATA.get((answer.file, answer.query.title), ((), ""))[1] == NOTHING_OUTDATED_YET:
        sources = [HISTORY]  # in the other chapters
    else:
        sources = [HISTORY, COPY, OTHER]
    if answer.result and not any("source" in labels for labels in answer.labels):
        return sorted({(cluster, namespace, "") for cluster, namespace, _ in sources})
    return sorted(sources)


def panel_of(answer: Answer) -> dict:
    return next(panel for panel in boards.panels(BOARDS[answer.file]) if panel["id"] == answer.query.panel)


def legend(answer: Answer, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), answer.query.legend)


def wrong_shape(answer: Answer) -> Iterator[str]:
    """What a panel cannot show, or shows as something else."""
    if any(("value" in one) != answer.query.instant for one in answer.result):
        yield "a moment is not a range"
    shown = sorted(key(labels) for labels in answer.labels)
    if answer.query.kind in ("stat", "gauge") and shown != keys(answer):
        yield f"numbers of {shown}"
    if not answer.query.instant and all(len(values) < 2 for values in answer.samples):
        yield "no line has two points"
    legends = [legend(answer, labels) for labels in answer.labels]
    if answer.query.kind != "table" and len(set(legends)) < len(legends):
        yield f"two series are both {legends}"


def wrong_labels(answer: Answer) -> Iterator[str]:
    """Labels that the legend or a column of the table names, and a series does not have."""
    named = re.findall(r"\{\{(\w+)\}\}", answer.query.legend)
    if answer.query.kind == "table":
        columns = panel_of(answer)["transformations"][-1]["options"]["renameByName"]
        named += [column for column in columns if not column.startswith("Value")]
    for labels in answer.labels:
        if "cluster" in named and {"cluster", "namespace"} & set(labels) not in [set(target) for target in TARGETS]:
            yield f"neither cluster nor namespace, or both: {labels}"
    for label in set(named) - EMPTY_LABELS - {"cluster"}:
        if not all(label in labels for labels in answer.labels):
            yield f"no label {label}"


def wrong_values(answer: Answer) -> Iterator[str]:
    values = [value for series in answer.samples for value in series]
    if not all(map(math.isfinite, values)):
        yield "not a number"
    if answer.query.expr.startswith("1000 *") and not all(abs(time.time() - value / 1000) < 3600 for value in values):
        yield "no time of this run, in milliseconds"
    if panel_of(answer)["fieldConfig"]["defaults"]["unit"] == "percentunit" and not all(-1 <= v <= 1 for v in values):
        yield "no share"


CHECKS = [wrong_shape, wrong_labels, wrong_values]


class Queries(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.chapters = run.chapters()

    def test_every_query_has_data_that_its_panel_can_show(self) -> None:
        queries = sum(len(boards.queries(board)) for board in BOARDS.values())
        for chapter, seen in self.chapters.items():
            self.assertEqual(len(seen.answers), queries * len(run.SELECTIONS))
            for answer in seen.answers:
                place = (answer.file, answer.query.title)
                with self.subTest(chapter=chapter, panel=place, ref=answer.query.ref, selection=answer.selection):
                    chapters, why = WITHOUT_DATA.get(place, ((), None))
                    if chapter in chapters:
                        self.assertEqual(answer.result, [], why)
                        continue
                    self.assertNotEqual(answer.result, [], answer.expr)
                    for check in CHECKS:
                        self.assertEqual(list(check(answer)), [], answer.expr)

    def test_panels_without_data_are_panels(self) -> None:
        titles = {(file, panel["title"]) for file, board in BOARDS.items() for panel in boards.panels(board)}
        self.assertLessEqual(set(WITHOUT_DATA), titles)

    def test_numbers_are_those_of_the_history(self) -> None:
        for number, chapter in enumerate(history.CHAPTERS):
            for selection, table in {"all": ALL, "one": ONE, "two": TWO}.items():
                for place, expected in table.items():
                    with self.subTest(chapter=chapter, selection=selection, panel=place):
                        answer = self.answer(chapter, *place, selection)
                        self.assertNotEqual(answer.result, [])
                        for labels, values in zip(answer.labels, answer.samples):
                            of_history = labels.get("cluster") == CLUSTER and labels.get("source") != OTHER_SOURCE
                            wanted, last = expected[number if of_history else 0], values[-1]
                            if callable(wanted):
                                self.assertTrue(wanted(last), (labels, last))
                            else:
                                self.assertAlmostEqual(last, wanted, msg=str(labels))

    def test_rows_are_those_of_the_history(self) -> None:
        for (title, label, ref), (before, after) in ROWS.items():
            for chapter, expected in {CLEAN: before, MIGRATION: after, FAILING: after}.items():
                with self.subTest(chapter=chapter, panel=title, ref=ref):
                    answer = self.answer(chapter, MIGRATING, title, ref)
                    found: dict[Key, dict[str, float]] = {}
                    for labels, values in zip(answer.labels, answer.samples):
                        found.setdefault(key(labels), {})[labels[label]] = values[0]
                    self.assertEqual(found, {HISTORY: expected, COPY: before, OTHER: before})

    def answer(self, chapter: str, file: str, title: str, ref: str, selection: str = "all") -> Answer:
        wanted = (selection, file, title, ref)
        answers = self.chapters[chapter].answers
        [found] = [one for one in answers if (one.selection, one.file, one.query.title, one.query.ref) == wanted]
        return found

    def rows(self, chapter: str, file: str, title: str) -> list[dict[str, str]]:
        labels = self.answer(chapter, file, title, "A").labels
        return [{name: value for name, value in each.items() if name not in ("cluster", "job")} for each in labels]

    def test_the_legacy_caller_is_named(self) -> None:
        call = {"source": SOURCE, "account_id": history.LEGACY_ACCOUNT, "aws_service": history.LEGACY.service}
        self.assertEqual(self.rows(LEGACY, OVERVIEW, "Outdated, by account and service"), [call])
        call |= {"event_name": history.LEGACY.event, "tls_version": history.LEGACY.caller.tls_version}
        self.assertEqual(self.rows(LEGACY, SERVICE, "Outdated calls, by name"), [call])
        caller = {"principal": history.LEGACY_PRINCIPAL, "user_agent": history.LEGACY.caller.user_agent}
        for file in (OVERVIEW, SERVICE):
            self.assertEqual(self.rows(LEGACY, file, "Who: the busiest outdated callers"), [call | caller])

    def test_the_failure_is_named(self) -> None:
        rows = self.rows(FAILING, EXPORTER, "Failures in an hour, by reason")
        self.assertEqual(rows, [{"source": SOURCE, "reason": "not_found"}])

    def test_variables_offer_what_there_is(self) -> None:
        offered = {"cluster": [CLUSTER], "namespace": [OTHER_NAMESPACE], "job": [JOB], "account": [*history.ACCOUNTS]}
        offered["source"] = sorted([SOURCE, OTHER_SOURCE])
        offered["service"] = sorted({calls.service for calls in history.CLEAN})
        for chapter, seen in self.chapters.items():
            for file, board in BOARDS.items():
                with self.subTest(chapter=chapter, file=file):
                    found = dict(seen.options[file])
                    instances = found.pop("instance")
                    self.assertEqual(len(instances), len(TARGETS))
                    for instance in instances:
                        self.assertRegex(instance, r"^127\.0\.0\.1:\d+$")
                    self.assertEqual(found, {name: offered[name] for name in found})
                    asked = [one["name"] for one in board["templating"]["list"] if one["type"] == "query"]
                    self.assertEqual({*found, "instance"}, set(asked))

    def test_annotations_mark_the_alerts(self) -> None:
        page, blind = "CloudtrailTlsOutdatedRegression", "CloudtrailTlsDataStale"
        for chapter, expected in {CLEAN: set(), LEGACY: {page}, MIGRATION: {page}, FAILING: {page, blind}}.items():
            for file, marks in self.chapters[chapter].annotations.items():
                with self.subTest(chapter=chapter, file=file):
                    names = {one["metric"]["alertname"] for one in marks}
                    self.assertEqual(names & {page, blind}, expected)
                    if chapter == CLEAN:
                        self.assertEqual(names, set())


class Expansion(unittest.TestCase):
    def test_values_are_put_in_as_grafana_does(self) -> None:
        self.assertEqual(grafana.interpolated(["a.b:1"]), r"a\\.b:1")
        self.assertEqual(grafana.interpolated(["a", r"b\(c|d)"]), r"(a|b\\\\\\(c\\|d\\))")

    def test_rates_cover_four_scrapes_or_the_step_and_one(self) -> None:
        intervals = [grafana.rate_interval(step) for step in (None, "15s", "5m", "1h")]
        self.assertEqual(intervals, ["4s", "16s", "301s", "3601s"])


class Checks(unittest.TestCase):
    """Each check notices what it is there for."""

    def made(self, title: str, *series: tuple[dict, list[float]]) -> Answer:
        query = next(query for query in boards.queries(BOARDS[OVERVIEW]) if query.title == title)
        result = []
        for labels, values in series:
            points = [[at, str(value)] for at, value in enumerate(values)]
            result.append({"metric": labels, **({"value": points[0]} if query.instant else {"values": points})})
        return Answer(OVERVIEW, query, "all", query.expr, result)

    def test_every_check_notices_what_is_wrong(self) -> None:
        labels = {"cluster": CLUSTER, "source": SOURCE}
        copy, other = {**labels, "source": OTHER_SOURCE}, {"namespace": OTHER_NAMESPACE, "source": SOURCE}
        three = lambda value: [(of, [value]) for of in (labels, copy, other)]
        account = {**labels, "account_id": "1"}
        now = 1000 * time.time()
        right = [
            self.made("Outdated calls", *three(0)),
            self.made("Last outdated call", (labels, [now])),
            self.made("TLS 1.3", *three(0.5)),
            self.made("Outdated calls, by account", (account, [1, 2]), ({**account, "account_id": "2"}, [3])),
            self.made("Accounts", (account, [1])),
        ]
        for answer in right:
            self.assertEqual([found for check in CHECKS for found in check(answer)], [], answer)
        wrong = [
            (wrong_shape, self.made("Outdated calls", (labels, [0]))),
            (wrong_shape, self.made("Outdated calls", *three(0), (labels, [0]))),
            (wrong_shape, self.made("Outdated calls", *three(0), ({**labels, "source": "t"}, [0]))),
            (wrong_shape, self.made("Outdated calls", (labels, [0]), (other, [0]))),
            (wrong_shape, self.made("Outdated calls, by account", (account, [1]))),
            (wrong_shape, self.made("Outdated calls, by account", (account, [1, 2]), ({**account, "x": "2"}, [1, 2]))),
            (wrong_labels, self.made("Outdated calls", ({"cluster": CLUSTER}, [0]))),
            (wrong_labels, self.made("Outdated calls", ({"source": SOURCE}, [0]))),
            (wrong_labels, self.made("Accounts", (labels, [1]))),
            (wrong_values, self.made("Outdated calls", (labels, [math.nan]))),
            (wrong_values, self.made("Last outdated call", (labels, [now / 1000]))),
            (wrong_values, self.made("TLS 1.3", (labels, [50]))),
        ]
        for check, answer in wrong:
            self.assertNotEqual(list(check(answer)), [], answer)
        moment = self.made("Outdated calls", *three(0))
        lines = [{"metric": one["metric"], "values": [[0, "0"], [1, "0"]]} for one in moment.result]
        ranged = Answer(OVERVIEW, moment.query, "all", "", lines)
        self.assertNotEqual(list(wrong_shape(ranged)), [])


if __name__ == "__main__":
    unittest.main()
