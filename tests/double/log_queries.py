"""The life of one Logs Insights query, from StartQuery to its last page."""

from __future__ import annotations

import random
import threading
import uuid
from dataclasses import dataclass, field

from cwli import Outcome, Program
from cwli_values import Style, text
from events import Event, LogGroup

# Rows of the Running answers come from at most this many events, to keep polls cheap.
PARTIAL_EVENTS = 2000
ENDED = ("Complete", "Failed", "Cancelled", "Timeout", "Unknown")
RUN_TIME_MS = 60 * 60_000  # BC-logs GetQueryResults: 60 minutes, then Timeout
KEPT_MS = 7 * 86_400_000  # AnalyzingLogData: results are kept 7 days


@dataclass
class Selection:
    """The events of one group that the query reads, as they could be queried when it started."""

    group: LogGroup
    events: list[Event]


@dataclass
class LogQuery:
    service = "logs"

    account: str
    region: str
    query_string: str
    start: int
    end: int
    limit: int | None
    program: Program
    selections: list[Selection]
    switches: dict
    created_ms: int
    fate: str | None = None  # ordered by a fault
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    polls: int = 0
    stopped: bool = False
    timed_out: bool = False
    forgotten: bool = False
    read_to: int = 0  # rows delivered from the first on, without a gap
    read_all: bool = False

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.log_group_names = [selection.group.name for selection in self.selections]
        self.bytes_scanned = sum(event.size for selection in self.selections for event in selection.events)
        self.records_scanned = sum(len(selection.events) for selection in self.selections)
        self.records_matched = 0
        self.rows: list[tuple] | None = None
        self.partial: tuple[list[tuple], int] | None = None

    def status(self) -> str:
        if self.stopped:
            return "Cancelled"
        if self.timed_out:
            return "Timeout"
        if self.polls <= self.switches["polls_scheduled"]:
            return "Scheduled"
        if self.fate == "forever" or self.polls <= self.switches["polls_scheduled"] + self.switches["polls_running"]:
            return "Running"
        return "Failed" if self.fate in ("exhausted", "retryable") else self.fate or "Complete"

    def ended(self) -> bool:
        return self.forgotten or self.status() in ENDED

    def age(self, now_ms: int) -> None:
        if not self.ended() and now_ms - self.created_ms > RUN_TIME_MS:
            self.timed_out = True

    def expired(self, now_ms: int) -> bool:
        return now_ms - self.created_ms > KEPT_MS

    def orphaned(self) -> bool:
        """Left alone by its client: neither read to the end nor stopped, nor ended without results."""
        given_up = self.stopped or self.forgotten or self.status() in ENDED[1:]
        return not self.read_all and not given_up

    def results(self) -> list[tuple]:
        """All rows; evaluated once, when first asked for."""
        with self.lock:
            if self.rows is None:
                outcome = self._evaluate(self.selections)
                self.rows = self._texts(outcome)
                self.records_matched = outcome.matched
                self.selections = []
                self.partial = None
            return self.rows

    def partial_results(self) -> tuple[list[tuple], int]:
        """What Running shows: right in form, wrong in numbers. Rows and events matched, of half the events."""
        with self.lock:
            if self.partial is None:
                some = [
                    Selection(selection.group, selection.events[: min(-(-len(selection.events) // 2), PARTIAL_EVENTS)])
                    for selection in self.selections
                ]
                outcome = self._evaluate(some)
                self.partial = (self._texts(outcome), outcome.matched)
            return self.partial

    def _evaluate(self, selections: list[Selection]) -> Outcome:
        rows: list[dict] = []
        for selection in selections:
            discovers = selection.group.log_class == "STANDARD" or self.switches["ia_discovers_fields"]
            needs = self.program.needs | {"@timestamp"}
            rows.extend(selection.group.rows(reversed(selection.events), needs, discovers))
        if len(selections) > 1:
            rows.sort(key=lambda row: row["@timestamp"], reverse=True)
        return self.program.run(rows)

    def _texts(self, outcome: Outcome) -> list[tuple]:
        """Rows as tuples of text, in the order of `fields()`; None is a field that the row does not have."""
        style = Style(
            scientific=self.switches["number_format"] == "scientific",
            booleans=("false", "true") if self.switches["boolean"] == "true/false" else ("0", "1"),
        )
        empty = self.program.keys if self.switches["missing_key"] == "empty" else set()
        columns = [(name, "" if name in empty else None) for name in self.program.columns]
        if not self.program.aggregated:
            columns.append(("@ptr", None))
        rows = outcome.rows[: self._row_limit()]
        made = []
        for row in rows:
            texts = [(missing if (shown := text(row[name], style)) is None else shown) for name, missing in columns]
            if self.program.aggregated and self.switches["ptr_in_rows"]:
                texts.append(f"{self.id}-{len(made)}")
            made.append(tuple(texts))
        return made

    def _row_limit(self) -> int:
        """10,000 unless asked otherwise (CWL_QuerySyntax-Limit); the smaller where both ways were used, [U]."""
        asked = [limit for limit in (self.limit, self.program.limit) if limit is not None]
        cap = self.switches["row_cap"]
        return min(min(asked) if asked else 10_000, 100_000 if cap is None else cap)

    def fields(self) -> list[str]:
        pointed = not self.program.aggregated or self.switches["ptr_in_rows"]
        return [*self.program.columns, *(["@ptr"] if pointed else [])]

    def as_wire(self, rows: list[tuple], first: int) -> list[list[dict]]:
        """Rows in the form of GetQueryResults; `first` is the number of the first one."""
        names = self.fields()
        wire = [
            [{"field": name, "value": value} for name, value in zip(names, row, strict=True) if value is not None]
            for row in rows
        ]
        if self.switches["field_order"] == "shuffled":
            for number, row in enumerate(wire, first):
                random.Random(number).shuffle(row)
        return wire

    def note_read(self, first: int, after: int) -> None:
        if first <= self.read_to:
            self.read_to = max(self.read_to, after)
        self.read_all = self.read_to >= len(self.rows or ())

    def statistics(self, matched: int, scanned: int, size: int, rows: int) -> dict:
        """All doubles (BC-logs QueryStatistics)."""
        three = {"recordsMatched": float(matched), "recordsScanned": float(scanned), "bytesScanned": float(size)}
        if self.switches["statistics"] == "three":
            return three
        rest = {"estimatedRecordsSkipped": 0.0, "estimatedBytesSkipped": 0.0, "resultCount": float(rows)}
        return three | rest | {"logGroupsScanned": float(len(self.log_group_names))}
