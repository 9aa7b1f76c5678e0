"""Log groups, their events, and the fields that Logs Insights discovers in an event."""

import base64
import bisect
import json
import sys
from collections.abc import Iterable

from cwli_values import Timestamp

# CWL_AnalyzeLogData-discoverable-fields: fields extracted from a JSON event. That a null counts is [U].
DISCOVERED_FIELDS = 200
SYSTEM_FIELDS = {"@timestamp", "@ingestionTime", "@message", "@logStream", "@log", "@ptr"}


class Event:
    """One log event; `known` holds the discovered fields that some query has asked for so far."""

    __slots__ = ("timestamp", "queryable", "message", "size", "known")

    def __init__(self, timestamp: int, queryable: int, message: str) -> None:
        self.timestamp = timestamp
        self.queryable = queryable
        self.message = message
        self.size = len(message) if message.isascii() else len(message.encode())
        self.known: dict | None = None


class LogGroup:
    def __init__(self, name: str, account: str, region: str, **rest) -> None:
        self.name, self.account, self.region = name, account, region
        self.log_class: str = rest.pop("class", "STANDARD")
        self.creation_ms: int = rest.pop("creationTime", 0)
        self.retention_days: int | None = rest.pop("retentionInDays", None)
        self.field_indexes: list[str] = rest.pop("fieldIndexes", [])
        if rest:
            raise ValueError(f"a group has no {sorted(rest)}")
        self.events: list[Event] = []  # by timestamp

    @property
    def arn(self) -> str:
        return f"arn:aws:logs:{self.region}:{self.account}:log-group:{self.name}"

    def append(self, events: list[Event]) -> None:
        self.events.extend(events)
        self.events.sort(key=lambda event: event.timestamp)

    def stored_bytes(self) -> int:
        return sum(event.size for event in self.events)

    def oldest_ms(self, now_ms: int) -> int:
        """Before this nothing can be queried: the group did not exist (AnalyzingLogData), or has let go of it."""
        if self.retention_days is None:
            return self.creation_ms
        return max(self.creation_ms, now_ms - self.retention_days * 86_400_000)

    def select(self, first_ms: int, last_ms: int, now_ms: int) -> list[Event]:
        """Events with a timestamp within both ends that can be queried by now."""
        first_ms = max(first_ms, self.oldest_ms(now_ms))
        low = bisect.bisect_left(self.events, first_ms, key=lambda event: event.timestamp)
        high = bisect.bisect_right(self.events, last_ms, key=lambda event: event.timestamp)
        return [event for event in self.events[low:high] if event.queryable <= now_ms]

    def rows(self, events: Iterable[Event], names: set[str], discovers: bool) -> list[dict]:
        """A row for each event, in which every one of `names` is a key; None is an absent field."""
        system, discovered = names & SYSTEM_FIELDS, names - SYSTEM_FIELDS
        rows = []
        for event in events:
            if not discovers or not discovered:
                row = dict.fromkeys(discovered)
            else:
                if event.known is None or not discovered <= event.known.keys():
                    event.known = discover(event.message, discovered.union(event.known or ()))
                row = event.known.copy()
            for name in system:
                row[name] = self.system_field(event, name)
            rows.append(row)
        return rows

    def system_field(self, event: Event, name: str) -> object:
        if name == "@timestamp":
            return Timestamp(event.timestamp)
        if name == "@message":
            return event.message
        if name == "@ingestionTime":
            return Timestamp(event.timestamp)
        if name == "@logStream":
            return f"{self.account}_CloudTrail_{self.region}"
        if name == "@log":
            return f"{self.account}:{self.name}"
        return base64.b64encode(f"{self.name} {id(event)}".encode()).decode()


class _Full(Exception):
    """The cap on discovered fields is reached."""


def discover(message: str, wanted: set[str]) -> dict:
    """The fields of `wanted` that Logs Insights finds in `message`: the first 200 leaves, in document order."""
    found: dict = dict.fromkeys(wanted)
    try:
        record = json.loads(message)
    except ValueError:
        return found
    if type(record) is not dict:
        return found
    left = DISCOVERED_FIELDS

    def walk(prefix: str, items: Iterable[tuple]) -> None:
        nonlocal left
        for key, value in items:
            name = f"{prefix}{key}"
            if type(value) is dict:
                walk(name + ".", value.items())
            elif type(value) is list:
                walk(name + ".", enumerate(value))
            else:
                if left == 0:
                    raise _Full
                left -= 1
                if name in wanted:
                    found[name] = sys.intern(value) if type(value) is str else value

    try:
        walk("", record.items())
    except _Full:
        pass
    return found
