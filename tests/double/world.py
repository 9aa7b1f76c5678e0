"""The state of the double: clock, credentials, switches, log groups, and what was counted."""

import threading
import time
from dataclasses import dataclass, field

import faults
import quotas
from events import LogGroup

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
    expires_ms: int | None = None
    denied: list[str] = field(default_factory=list)
    # Accounts whose groups this account sees as a monitoring account (cross-account observability).
    monitors: list[str] = field(default_factory=list)

    @property
    def arn(self) -> str:
        if self.session_token is None:
            return f"arn:aws:iam::{self.account}:user/double"
        return f"arn:aws:sts::{self.account}:assumed-role/double/session"


class World:
    """Everything the double knows; one lock guards it, evaluation of queries happens outside."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        self.clock = Clock()
        self.credentials: dict[str, Credential] = {}
        self.switches: dict = dict(SWITCHES)
        self.groups: dict[tuple[str, str, str], LogGroup] = {}
        self.faults = faults.Faults()
        self.rates = quotas.Rates()
        self.calls: dict[str, int] = {}
        self.errors: dict[str, dict[str, int]] = {}
        self.signed_with: set[str] = set()
        self.broken = 0
        self.peak_running: dict[str, int] = {}
        self.queries: dict = {}
        self.history: list = []

    def forget_queries(self) -> None:
        """Their ids vanish, as after a restart of the service; what was counted stays."""
        for query in self.queries.values():
            query.forgotten = True
        self.queries = {}

    def count_call(self, operation: str) -> None:
        with self.lock:
            self.calls[operation] = self.calls.get(operation, 0) + 1

    def count_error(self, operation: str, code: str) -> None:
        with self.lock:
            codes = self.errors.setdefault(operation, {})
            codes[code] = codes.get(code, 0) + 1
