"""The committed dashboards, their panels and queries, as the other tests here see them.

`python tests/dashboards/boards.py` prints every query with its variables put in, one JSON object a line: for whoever
wants to ask a real Prometheus.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GRAFANA = ROOT / "grafana"
FILES = sorted(GRAFANA.glob("*.json"))

# What Grafana puts in for its own variables, for a day on a wide screen.
OWN_VARIABLES = {"__interval": "2m", "__rate_interval": "8m", "__range": "1d", "__range_s": "86400"}
VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+)(?::\w+)?\}")


@dataclass(frozen=True)
class Query:
    dashboard: str
    panel: int
    title: str
    kind: str
    ref: str
    expr: str
    instant: bool
    legend: str
    min_step: str | None


def load() -> dict[str, dict]:
    """File name to dashboard; each call gives fresh copies."""
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in FILES}


def panels(board: dict) -> list[dict]:
    """All panels but rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def variables(board: dict) -> dict[str, dict]:
    return {variable["name"]: variable for variable in board["templating"]["list"]}


def queries(board: dict) -> list[Query]:
    """Every query of every panel: what is asked, by which panel, and how."""
    return [
        Query(
            dashboard=board["title"],
            panel=panel["id"],
            title=panel["title"],
            kind=panel["type"],
            ref=target["refId"],
            expr=target["expr"],
            instant=target["instant"],
            legend=target["legendFormat"],
            min_step=target.get("interval"),
        )
        for panel in panels(board)
        for target in panel.get("targets") or []
    ]


def values(board: dict) -> dict[str, str]:
    """What Grafana puts in for each variable, on a dashboard as it opens: all values, and each target's default."""
    chosen = dict(OWN_VARIABLES)
    for name, variable in variables(board).items():
        if variable["type"] == "query":
            chosen[name] = variable["allValue"]
        elif variable["type"] == "custom":
            chosen[name] = variable["current"]["value"]
    return chosen


def put_in(text: str, chosen: dict[str, str], kept: set[str] = frozenset()) -> str:
    """`text` with its variables put in, but those in `kept`; a KeyError names one that the dashboard does not have."""

    def value(found: re.Match) -> str:
        name = found[1] or found[2]
        return found[0] if name in kept else chosen[name]

    return VARIABLE.sub(value, text)


def without_matchers(board: dict, expr: str) -> str:
    """`expr` with what must be a number or a duration put in; matchers keep their `$variable`, as lints want to see it."""
    kept = {name for name, variable in variables(board).items() if variable["type"] == "query"}
    return put_in(expr, values(board), kept)


def strings(value: object) -> Iterator[str]:
    """Every text in a piece of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from strings(member)
    elif isinstance(value, list):
        for member in value:
            yield from strings(member)


def changed(board: dict, change) -> dict:
    """A copy on which `change` was made: for tests of the tests."""
    made = copy.deepcopy(board)
    change(made)
    return made


if __name__ == "__main__":
    for name, board in load().items():
        for query in queries(board):
            print(json.dumps(asdict(query) | {"file": name, "expr": put_in(query.expr, values(board))}))
