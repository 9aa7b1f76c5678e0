"""The one run of the stack that all tests here look at: each chapter once, with every query asked at its end.

A chapter ends when Alertmanager has sent what it is to end with. It takes about 95 s, most of it the minute (a day)
that a page lasts.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

import grafana
import history
from grafana import boards
from stack import CLUSTER, JOB, SOURCE, Stack

SELECTIONS = ("all", "one", "two")


@dataclass(frozen=True)
class Chapter:
    """What was seen at the end of a chapter."""

    options: dict[str, dict[str, list[str]]]  # by file and variable
    answers: list[grafana.Answer]
    annotations: dict[str, list[dict]]  # by file
    notifications: list[tuple[str, list[dict]]]  # those that came in this chapter


def selected(selection: str, instance: str) -> dict[str, list[str]]:
    """Values of the variables; those that are left out are at All."""
    one = {"cluster": [CLUSTER], "job": [JOB], "instance": [instance], "source": [SOURCE]}
    one |= {"account": [history.LEGACY_ACCOUNT], "service": [history.LEGACY.service]}
    two = {"account": [*history.ACCOUNTS], "service": [history.LEGACY.service, "kms"]}
    return {"all": {}, "one": one, "two": two}[selection]


def has_come(stack: Stack, name: str, status: str) -> bool:
    return any(
        (alert["labels"]["alertname"], alert["status"]) == (name, status)
        for _, alerts in list(stack.webhook.notifications)
        for alert in alerts
    )


ENDS_WITH = {
    "legacy": ("CloudtrailTlsOutdatedRegression", "firing"),
    "migration": ("CloudtrailTlsOutdatedRegression", "resolved"),
    "failing": ("CloudtrailTlsDataStale", "firing"),
}


@functools.cache
def chapters() -> dict[str, Chapter]:
    seen = {}
    with Stack() as stack:
        began = time.time()
        for name in history.CHAPTERS:
            before = len(stack.webhook.notifications)
            stack.chapter(name)
            if name in ENDS_WITH:
                stack.wait(lambda: has_come(stack, *ENDS_WITH[name]), " ".join(ENDS_WITH[name]))
            seen[name] = look(stack, began, before)
    return seen


def look(stack: Stack, began: float, before: int) -> Chapter:
    at = time.time()
    found = Chapter({}, [], {}, stack.webhook.notifications[before:])
    for file, board in boards.load().items():
        found.options[file] = grafana.options(stack, board)
        found.annotations[file] = grafana.annotations(stack, board, at, began)
        for selection in SELECTIONS:
            values = selected(selection, stack.instance)
            found.answers.extend(grafana.answers(stack, file, board, selection, values, at, began))
    return found
