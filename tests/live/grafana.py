"""What Grafana asks Prometheus for a dashboard: variables put in, steps and ranges, as its Prometheus data source does.

Times of the dashboards are kept, but for one: a query with a least step of an hour would be asked at the last full
hour, when nothing was there yet. So ranges are asked at steps of `STEP` over the run, whatever the least step is; it
counts for `$__rate_interval`.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

from stack import ROOT, Stack

sys.path.append(str(ROOT / "tests" / "dashboards"))

import boards

SCRAPE_SECONDS = 1
STEP = 1  # second


@dataclass(frozen=True)
class Answer:
    """A query of a panel, as it was asked with some values of the variables, and its result."""

    file: str
    query: boards.Query
    selection: str
    expr: str
    result: list[dict]

    @property
    def labels(self) -> list[dict[str, str]]:
        return [series["metric"] for series in self.result]

    @property
    def samples(self) -> list[list[float]]:
        """The values of each series, oldest first."""
        return [[float(value) for _, value in one.get("values") or [one["value"]]] for one in self.result]


def escaped(value: str) -> str:
    """A value for a regular expression in a PromQL string, where each backslash is written twice."""
    return re.sub(r"[$^*{}\[\]'+?.()|]", r"\\\\\g<0>", value.replace("\\", r"\\\\"))


def interpolated(values: list[str]) -> str:
    """What is put in for a variable that takes several values."""
    texts = [escaped(value) for value in values]
    return texts[0] if len(texts) == 1 else f"({'|'.join(texts)})"


def rate_interval(min_step: str | None) -> str:
    units = {"s": 1, "m": 60, "h": 3600}
    step = int(min_step[:-1]) * units[min_step[-1]] if min_step else SCRAPE_SECONDS
    return f"{max(step + SCRAPE_SECONDS, 4 * SCRAPE_SECONDS)}s"


def put_in(board: dict, expr: str, selected: dict[str, list[str]], min_step: str | None = None) -> str:
    """`expr` with the selected values, and All for the other variables."""
    values = boards.values(board) | {name: interpolated(chosen) for name, chosen in selected.items()}
    return boards.put_in(expr, values | {"__rate_interval": rate_interval(min_step)})


def options(stack: Stack, board: dict) -> dict[str, list[str]]:
    """What each variable offers while the others are at All."""
    found = {}
    for name, variable in boards.variables(board).items():
        if asked := re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]):
            selector = put_in(board, asked[1], {})
            found[name] = stack.api(f"label/{asked[2]}/values", **{"match[]": selector})
    return found


def answers(
    stack: Stack, file: str, board: dict, selection: str, selected: dict[str, list[str]], at: float, since: float
) -> list[Answer]:
    """Every query of every panel: at a moment, or over the time since then."""
    known = {name: values for name, values in selected.items() if name in boards.variables(board)}
    found = []
    for query in boards.queries(board):
        expr = put_in(board, query.expr, known, query.min_step)
        found.append(Answer(file, query, selection, expr, ask(stack, expr, query.instant, at, since)))
    return found


def ask(stack: Stack, expr: str, instant: bool, at: float, since: float) -> list[dict]:
    if instant:
        return stack.api("query", query=expr, time=at)
    start = at - (at - since) // STEP * STEP  # so that the last point is of that moment
    return stack.api("query_range", query=expr, start=start, end=at, step=STEP)


def annotations(stack: Stack, board: dict, at: float, since: float) -> list[dict]:
    """The series whose points become marks on the dashboard."""
    listed = board["annotations"]["list"]
    return [one for each in listed for one in ask(stack, put_in(board, each["expr"], {}), False, at, since)]
