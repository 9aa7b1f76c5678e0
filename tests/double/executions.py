"""The life of one SQL statement at Lake or Athena, from its start to its last page."""

from __future__ import annotations

import base64
import json
import threading
import uuid
from dataclasses import dataclass, field

import duckdb

import sql
import trino_values
from calls import Call
from errors import AwsError
from sql import SqlError, Statement
from sql_bytes import Scanned, held_columns, scanned

# How a query ends that a fault has fated; "forever" and "vanish" do not end.
ENDINGS = {
    "Failed": "failed",
    "Unknown": "failed",
    "exhausted": "failed",
    "retryable": "failed",
    "Cancelled": "cancelled",
    "Timeout": "timed_out",
}
WAITING = ("queued", "running")
EXHAUSTED = "Query exhausted resources at this scale factor"


@dataclass
class Outcome:
    rows: list[tuple[str | None, ...]]
    types: list[str]
    matched: int
    scanned: Scanned
    error: SqlError | None = None


@dataclass
class Execution:
    service: str  # the signing name
    account: str
    region: str
    text: str
    statement: Statement | None  # None: `refusal` tells why
    refusal: SqlError | None
    base: duckdb.DuckDBPyConnection
    switches: dict
    created_ms: int
    states: dict[str, str]  # the service's words for a phase
    run_ms: int  # longer than this it does not run
    kept_ms: int  # longer than this it is not known
    fate: str | None = None  # ordered by a fault
    token: str | None = None  # ClientRequestToken
    cutoff_bytes: int | None = None
    requeues: bool = False
    request: dict = field(default_factory=dict)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    polls: int = 0
    stopped: bool = False
    timed_out: bool = False
    forgotten: bool = False
    read_to: int = 0
    read_all: bool = False

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self._outcome: Outcome | None = None
        self._partial: list[tuple[str | None, ...]] | None = None
        records = {source.table.records for source in self.statement.sources} if self.statement else set()
        self.visible = {entry.name: entry.count for entry in records}  # what was delivered by the start

    def phase(self) -> str:
        """queued, running, finished, failed, cancelled, timed_out, or cut_off by the workgroup's limit."""
        if self.stopped:
            return "cancelled"
        if self.timed_out:
            return "timed_out"
        ways = ["queued"] * self.switches["polls_scheduled"]
        if self.requeues:
            ways += ["running", "queued"]
        ways += ["running"] * self.switches["polls_running"]
        if max(self.polls, 1) <= len(ways):
            return ways[max(self.polls, 1) - 1]
        if self.fate == "forever":
            return "running"
        if self.fate in ENDINGS:
            return ENDINGS[self.fate]
        if self.outcome().error is not None:
            return "failed"
        if self.cutoff_bytes is not None and self.outcome().scanned.bytes > self.cutoff_bytes:
            return "cut_off"
        return "finished"

    def state(self) -> str:
        return self.states[self.phase()]

    def ended(self) -> bool:
        return self.forgotten or self.phase() not in WAITING

    def age(self, now_ms: int) -> None:
        if now_ms - self.created_ms > self.run_ms and not self.ended():
            self.timed_out = True

    def orphaned(self) -> bool:
        """Left alone by its client: neither read to the end nor stopped, nor ended without results."""
        return not (self.read_all or self.stopped or self.forgotten or self.phase() not in (*WAITING, "finished"))

    def error_message(self) -> str | None:
        if self.fate == "exhausted":
            return EXHAUSTED
        if self.fate in ENDINGS:
            return "Internal error" if ENDINGS[self.fate] == "failed" else None
        error = self.outcome().error
        return None if error is None else error.message

    def outcome(self) -> Outcome:
        """Evaluated once, when first asked for, over what could be queried when the query started."""
        with self.lock:
            if self._outcome is None:
                self._outcome = self._evaluate()
            return self._outcome

    def _evaluate(self) -> Outcome:
        if self.statement is None:
            return Outcome([], [], 0, Scanned(0, 0), self.refusal)
        conditions = self._conditions(self.visible)
        size = Scanned(0, 0)
        try:
            size = scanned(self.base, self.statement, conditions, self.switches["lake_prunes"])
            answer = self._run(self.statement.sql, conditions)
            matched = sum(self._run(count, conditions).rows[0][0] for count in self.statement.counts)
        except SqlError as error:
            return Outcome([], [], 0, size, error)
        return Outcome(self._texts(answer), list(map(trino_values.type_name, answer.types)), matched, size)

    def held_columns(self, known: dict) -> int:
        """What its columns weigh over all records of its tables, whenever delivered."""
        return 0 if self.statement is None else held_columns(self.base, self.statement, known)

    def partial(self) -> list[tuple[str | None, ...]]:
        """Rows of half the records: right in form, wrong in numbers."""
        if self.statement is None:
            return []
        with self.lock:
            if self._partial is None:
                half = {name: -(-count // 2) for name, count in self.visible.items()}
                try:
                    self._partial = self._texts(self._run(self.statement.sql, self._conditions(half)))
                except SqlError:
                    self._partial = []
            return self._partial

    def _conditions(self, counts: dict[str, int]) -> dict[str, str]:
        return {name: f'"$queryable" <= {self.created_ms} AND rowid < {count}' for name, count in counts.items()}

    def _run(self, text: str, conditions: dict[str, str]) -> sql.Answer:
        return sql.run(self.base, sql.with_tables(text, self.statement, conditions))

    @staticmethod
    def _texts(answer: sql.Answer) -> list[tuple[str | None, ...]]:
        return [tuple(map(trino_values.text, row)) for row in answer.rows]

    def note_read(self, first: int, after: int, total: int) -> None:
        if first <= self.read_to:
            self.read_to = max(self.read_to, after)
        self.read_all = self.read_to >= total

    def next_token(self, offset: int) -> str:
        return base64.b64encode(json.dumps([self.id, offset]).encode()).decode()

    def offset(self, token: str | None) -> int | None:
        """Where a page begins; None for a token that is not of this query."""
        if token is None:
            return 0
        try:
            owner, offset = json.loads(base64.b64decode(token, validate=True))
        except (ValueError, TypeError):
            return None
        return offset if owner == self.id and type(offset) is int else None


def bound(base: duckdb.DuckDBPyConnection, statement: Statement) -> None:
    """Raises what is wrong with a statement whatever the records are."""
    nothing = {source.table.records.name: "false" for source in statement.sources}
    sql.run(base, "EXPLAIN " + sql.with_tables(statement.sql, statement, nothing))


def here(call: Call) -> list[Execution]:
    """The service's queries of this account and Region."""
    now = call.world.clock.now_ms()
    mine = [query for query in call.world.executions.values() if belongs(call, query)]
    for query in mine:
        query.age(now)
    return mine


def belongs(call: Call, query: Execution) -> bool:
    return (query.service, query.account, query.region) == (call.service, call.account, call.region)


def running(call: Call) -> int:
    return sum(not query.ended() for query in here(call))


def add(call: Call, query: Execution) -> None:
    if query.fate == "vanish":
        query.forgotten = True
    else:
        call.world.executions[query.id] = query
    call.world.history.append(query)
    peaks = call.world.peaks_running.setdefault(call.service, {})
    peaks[call.place] = max(peaks.get(call.place, 0), running(call))


def found(call: Call, query_id: object, unknown: AwsError) -> Execution:
    """The query asked for: unknown to other accounts and Regions, and once its time is over."""
    query = call.world.executions.get(query_id) if isinstance(query_id, str) else None
    now = call.world.clock.now_ms()
    if query is None or not belongs(call, query) or now - query.created_ms > query.kept_ms:
        raise unknown
    query.age(now)
    return query
