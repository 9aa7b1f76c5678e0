"""The state of the double: clock, credentials, switches, what the services hold, and what was counted."""

import threading
import time
from dataclasses import dataclass, field

import faults
import quotas
from events import LogGroup
from sts_process import StsProcess
from trail_tables import TrailData

# One for every fact of AWS that no stored source could confirm ([U]), and the sizes that tests need small.
SWITCHES = {
    # [U] A row whose group key is missing: "absent" (no such field in the row) or "empty" (value "").
    "missing_key": "absent",
    # "millisecond": endTime selects up to the first millisecond of its second, as AWS's team said in
    # github.com/aws/aws-sdk/issues/280 (2022, with a plan to change it); "second": the whole second.
    "end_inclusive": "millisecond",
    # [U] Whether rows made by `stats` carry @ptr too; rows of raw events always do (API_GetQueryResults).
    "ptr_in_rows": False,
    "number_format": "plain",  # [U] "plain" 12, or "scientific" 1.2E1
    "statistics": "all",  # "three": as in AWS's own sample answer (API_GetQueryResults)
    "boolean": "1/0",  # [U] text of booleans in rows: "1/0" or "true/false"
    "not_equal_absent": False,  # [U] whether `f != "x"` is true where there is no f
    "ia_discovers_fields": True,  # [U] the pages contradict each other on Infrequent Access
    "literal_in_coalesce": "ok",  # [U] "ok" or "refused"
    "row_cap": None,  # a hard cap on rows below the limit asked for
    "field_order": "as_written",  # "shuffled": the fields of each row in another order
    "stats_group_cap": None,  # [U] a cap on the groups of `stats ... by`, silent
    "partial_rows": True,  # whether Running already shows rows
    "polls_scheduled": 1,  # polls answered Scheduled
    "polls_running": 2,  # polls answered Running
    "signature_tolerance_seconds": 900,
    "starts_per_second": 10,  # quotas page: StartQuery 10 TPS per account and Region
    "polls_per_second": 10,  # quotas page: GetQueryResults 10 TPS per account and Region
    "describes_per_second": 10,  # quotas page: DescribeLogGroups 10 TPS per account and Region
    "concurrent_queries": 100,  # API_StartQuery: concurrent Logs Insights queries
    # CloudTrail Lake; polls_scheduled, polls_running (of DescribeQuery) and partial_rows are for it too.
    "lake_columns": "as_written",  # [U] names of columns in rows: "as_written", or "lower"
    "lake_null": "absent",  # [U] NULL in a row: its cell is "absent", or has the value "empty" (""), or "null"
    "lake_key_exchange": "absent",  # query-supported-event-schemas has none in tlsDetails; "column": there it is
    "lake_checks_columns": "at_start",  # [U] where a wrong column is told: "at_start", or "while_running" (FAILED)
    "lake_total": True,  # [U] whether QueryStatistics has TotalResultsCount
    "lake_prunes": "calendarday",  # [U] what bounds of eventTime spare: other UTC days, or all other "time"
    "lake_starts_per_second": 3,  # general/ct: StartQuery 3 TPS
    "lake_describes_per_second": 10,  # general/ct: DescribeQuery 10 TPS
    "lake_results_per_second": 10,  # general/ct: GetQueryResults 10 TPS
    "lake_stores_per_second": 10,  # general/ct: GetEventDataStore 10 TPS
    "lake_lists_per_second": 10,  # general/ct: ListEventDataStores 10 TPS
    "lake_cancels_per_second": 1,  # [U] WhatIsCloudTrail-Limits (2023): every other API 1 TPS
    "lake_concurrent_queries": 10,  # WhatIsCloudTrail-Limits: queued or running
    # Event history
    "lookups_per_second": 2,  # API_LookupEvents: 2 requests per second, per account and Region
    "lookup_duplicates": False,  # [U] whether a page begins with the last event of the one before
    "lookup_empty_pages": False,  # [U] whether every other page is empty and yet has a NextToken
    # Athena; polls_scheduled and polls_running are of GetQueryExecution.
    "athena_header": True,  # [U] whether the first row holds the names: in AWS's samples, not in its API page
    "athena_requeues": False,  # whether a query goes back from RUNNING to QUEUED once (BC-ath QueryExecutionState)
    # Where bad syntax is told: "at_start" (seen in github.com/guardian/athena-cli/issues/39), or "while_running".
    "athena_syntax": "at_start",
    "athena_starts_per_second": 20,  # general/athena: StartQueryExecution, most Regions
    "athena_polls_per_second": 100,  # general/athena: GetQueryExecution, most Regions
    "athena_results_per_second": 100,  # general/athena: GetQueryResults
    "athena_stops_per_second": 20,  # general/athena: StopQueryExecution, most Regions
    "athena_concurrent_queries": 20,  # general/athena: active DML queries, most Regions
}


class Clock:
    """Real time plus an offset, or frozen where the test put it."""

    def __init__(self) -> None:
        self.frozen_ms: int | None = None
        self.offset_ms = 0

    def now_ms(self) -> int:
        if self.frozen_ms is not None:
            return self.frozen_ms
        return time.time_ns() // 1_000_000 + self.offset_ms

    def set(self, body: dict) -> None:
        if "set_ms" in body:
            self.frozen_ms = int(body["set_ms"])
        if body.get("real"):
            self.frozen_ms = None
            self.offset_ms = int(body.get("offset_ms", 0))
        if "advance_ms" in body:
            self.advance(int(body["advance_ms"]))

    def advance(self, by_ms: int) -> None:
        if self.frozen_ms is not None:
            self.frozen_ms += by_ms
        else:
            self.offset_ms += by_ms


@dataclass
class Credential:
    """An access key and what it may do."""

    access_key: str
    secret: str
    account: str
    session_token: str | None = None
    expires_ms: int | None = None  # see `expired` for whose clock
    denied: list[str] = field(default_factory=list)
    # Accounts whose groups this account sees as a monitoring account (cross-account observability).
    monitors: list[str] = field(default_factory=list)
    # Accounts for whose event data stores this account is a delegated administrator.
    delegates_for: list[str] = field(default_factory=list)

    @property
    def arn(self) -> str:
        if self.session_token is None:
            return f"arn:aws:iam::{self.account}:user/double"
        return f"arn:aws:sts::{self.account}:assumed-role/double/session"

    def expired(self, clock: Clock) -> bool:
        """By the double's clock, like everything else that a test puts here."""
        return self.expires_ms is not None and clock.now_ms() >= self.expires_ms


class World:
    """Everything the double knows; one lock guards it, evaluation of queries happens outside."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.sts = StsProcess()  # a reset leaves it running: its start takes a while
        self.reset()

    def reset(self) -> None:
        self.clock = Clock()
        self.credentials: dict[str, Credential] = {}
        self.roles: dict = {}  # by ARN
        self.switches: dict = dict(SWITCHES)
        self.groups: dict[tuple[str, str, str], LogGroup] = {}
        self.faults = faults.Faults()
        self.rates = quotas.Rates()
        self.calls: dict[str, int] = {}
        self.errors: dict[str, dict[str, int]] = {}
        self.signed_with: set[str] = set()
        self.broken = 0
        self.peak_running: dict[str, int] = {}
        self.queries: dict = {}  # of Logs Insights, by id
        self.executions: dict = {}  # of Lake and Athena, by id
        self.history: list = []  # all of them
        self.peaks_running: dict[str, dict[str, int]] = {}
        self.trail = TrailData()
        self.event_histories: dict = {}  # by account and Region
        self.request_tokens: dict = {}  # Athena's ClientRequestTokens

    def forget_queries(self) -> None:
        """Their ids vanish, as after a restart of the service; what was counted stays."""
        for query in (*self.queries.values(), *self.executions.values()):
            query.forgotten = True
        self.queries, self.executions, self.request_tokens = {}, {}, {}

    def count_call(self, name: str) -> None:
        """`name` is "service:Operation"."""
        with self.lock:
            self.calls[name] = self.calls.get(name, 0) + 1

    def count_error(self, name: str, code: str) -> None:
        with self.lock:
            codes = self.errors.setdefault(name, {})
            codes[code] = codes.get(code, 0) + 1
