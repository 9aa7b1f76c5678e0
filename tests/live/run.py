"""The one run of the stack that all tests here look at: each chapter once, with every query asked at its end.

A chapter ends when Alertmanager has sent what it is to end with. It takes about 110 s, most of it the minute (a day)
that a page lasts.
"""

from __future__ import annotations

import functools
import re
import time
from dataclasses import dataclass

import grafana
import history
from grafana import boards
from stack import CLUSTER, JOB, SOURCE, Stack, rules

SELECTIONS = ("all", "one", "two")


@dataclass(frozen=True)
class Chapter:
    """What was seen at the end of a chapter."""

    options: dict[str, dict[str, list[str]]]  # by file and variable
    answers: list[grafana.Answer]
    annotations: dict[str, list[dict]]  # by file
    notifications: list[tuple[str, list[dict]]]  # those that came since the chapter before
    rules: list[dict]  # how Prometheus fares with each
    runbook: list[tuple[str, list[dict]]]  # its queries for the legacy caller's account and service, and what they give
    complaints: list[str]  # of all programs, since the begin
    restarts: float  # of the first exporter, as Prometheus saw them
    resets: float  # of counters of calls


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


def chapters() -> dict[str, Chapter]:
    seen = played()
    if isinstance(seen, Exception):
        raise seen
    return seen


@functools.cache
def played() -> dict[str, Chapter] | Exception:
    """Plays it once, also if it fails."""
    try:
        return play()
    except Exception as error:
        return error


def play() -> dict[str, Chapter]:
    seen: dict[str, Chapter] = {}
    with Stack() as stack:
        began = time.time()
        for name in history.CHAPTERS:
            stack.chapter(name)
            if name in ENDS_WITH:
                stack.wait(lambda: has_come(stack, *ENDS_WITH[name]), " ".join(ENDS_WITH[name]))
            seen[name] = look(stack, began, sum(len(chapter.notifications) for chapter in seen.values()))
            if name == "legacy":
                stack.crash_exporter()  # while the page fires
    return seen


def of_the_runbook() -> list[str]:
    text = (rules.ALERTS / "RUNBOOK.md").read_text(encoding="utf-8")
    queries = re.findall(r"^```promql\n(.+?)\n```$", text, re.MULTILINE | re.DOTALL)
    example = {"111122223333": history.LEGACY_ACCOUNT, "kms": history.LEGACY.service}
    return [re.sub("|".join(example), lambda found: example[found[0]], query) for query in queries]


def number(stack: Stack, expr: str) -> float:
    [found] = stack.query(expr)
    return float(found["value"][1])


def look(stack: Stack, began: float, known: int) -> Chapter:
    """What is there now; the first `known` notifications are not new."""
    at = time.time()
    notifications = stack.webhook.notifications[known:]
    evaluated = [rule for group in stack.api("rules")["groups"] for rule in group["rules"]]
    asked = [(query, stack.query(query)) for query in of_the_runbook()]
    restarts = number(stack, f'changes(process_start_time_seconds{{instance="{stack.instance}"}}[10m])')
    resets = number(stack, "sum(resets(cloudtrail_tls_calls_total[10m]))")
    found = Chapter({}, [], {}, notifications, evaluated, asked, stack.complaints(), restarts, resets)
    for file, board in boards.load().items():
        found.options[file] = grafana.options(stack, board)
        found.annotations[file] = grafana.annotations(stack, board, at, began)
        for selection in SELECTIONS:
            values = selected(selection, stack.instance)
            found.answers.extend(grafana.answers(stack, file, board, selection, values, at, began))
    return found
