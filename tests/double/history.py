"""CloudTrail's event history: LookupEvents."""

from __future__ import annotations

import base64
import bisect
import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timezone

from calls import Call
from errors import AwsError

KEPT_SECONDS = 90 * 86_400  # API_LookupEvents: the last 90 days
PAGE = 50
# How an attribute is read from an event (BC-ct LookupAttributeKey); the rest of them the double does not know.
ATTRIBUTES = {
    "EventId": "EventId",
    "EventName": "EventName",
    "EventSource": "EventSource",
    "ReadOnly": "ReadOnly",
    "Username": "Username",
    "AccessKeyId": "AccessKeyId",
}


@dataclass
class HistoryEvent:
    time: int  # eventTime, in seconds
    queryable_ms: int
    position: tuple[int, int]  # newest first, then as delivered
    shown: dict


class EventHistory:
    """The management events of one account and Region, newest first."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.delivered = 0
        self.events: list[HistoryEvent] = []

    def append(self, deliveries: list[tuple[int, str]]) -> None:
        """Deliveries of (queryable in ms, record); what is no management event of this Region is left out."""
        for queryable_ms, message in deliveries:
            self.delivered += 1
            record = json.loads(message)
            if type(record) is not dict:
                raise ValueError("not a CloudTrail record")
            if is_management(record) and record.get("awsRegion", self.region) == self.region:
                at = seconds(record.get("eventTime"))
                self.events.append(HistoryEvent(at, queryable_ms, (-at, self.delivered), shown(record, message, at)))
        self.events.sort(key=lambda event: event.position)


def is_management(record: dict) -> bool:
    """Event history has neither data events nor network activity (API_LookupEvents)."""
    return record.get("managementEvent") is not False and record.get("eventCategory", "Management") == "Management"


def seconds(event_time: object) -> int:
    return int(datetime.strptime(event_time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp())


def shown(record: dict, message: str, at: int) -> dict:
    """A record as the event of an answer (BC-ct Event)."""
    identity = record.get("userIdentity")
    identity = identity if type(identity) is dict else {}
    session = str(identity.get("arn", "")).rpartition("/")[2] if identity.get("type") == "AssumedRole" else None
    read_only = record.get("readOnly")
    members = {
        "EventId": record.get("eventID"),
        "EventName": record.get("eventName"),
        "ReadOnly": None if read_only is None else str(read_only).lower(),
        "AccessKeyId": identity.get("accessKeyId"),
        "EventTime": at,
        "EventSource": record.get("eventSource"),
        "Username": identity.get("userName") or session or ("root" if identity.get("type") == "Root" else None),
        "Resources": [],
        "CloudTrailEvent": message,
    }
    return {name: value for name, value in members.items() if value is not None}


def invalid_token() -> AwsError:
    return AwsError("InvalidNextTokenException", "Invalid Token")


def lookup_events(call: Call) -> dict:
    call.check_rate("lookups_per_second")
    given, world = call.parameters, call.world
    most = given.get("MaxResults", PAGE)
    if type(most) is not int or not 1 <= most <= PAGE:
        raise AwsError("InvalidMaxResultsException", f"MaxResults must be between 1 and {PAGE}")
    if given.get("EventCategory") is not None:
        raise AwsError("InvalidEventCategoryException", "the double has no Insights events")
    start, end = given.get("StartTime"), given.get("EndTime")
    if start is not None and end is not None and end < start:
        raise AwsError("InvalidTimeRangeException", "EndTime is before StartTime")
    wanted = attribute(given.get("LookupAttributes") or [])
    now = world.clock.now_ms()
    oldest = max(now // 1000 - KEPT_SECONDS, int(start or 0))
    history = world.event_histories.get((call.account, call.region))
    found = [
        event
        for event in (history.events if history else ())
        if event.queryable_ms <= now
        and oldest <= event.time <= (int(end) if end is not None else event.time)
        and (wanted is None or event.shown.get(wanted[0]) == wanted[1])
    ]
    return page(call, found, most)


def attribute(given: list[dict]) -> tuple[str, str] | None:
    """At most one (API_LookupEvents: "currently the list can contain only one item")."""
    if not given:
        return None
    if len(given) > 1 or given[0].get("AttributeKey") not in ATTRIBUTES or not given[0].get("AttributeValue"):
        raise AwsError("InvalidLookupAttributesException", "Exactly one known attribute with a value can be given")
    return ATTRIBUTES[given[0]["AttributeKey"]], given[0]["AttributeValue"]


def page(call: Call, found: list[HistoryEvent], most: int) -> dict:
    """From the event after the last one shown, so that what arrives in between moves nothing."""
    switches = call.world.switches
    asked = fingerprint(call)
    last, blank = read_token(call, asked)
    if switches["lookup_empty_pages"] and not blank and found:
        return {"Events": [], "NextToken": make_token(asked, last, blank=True)}
    first = 0 if last is None else bisect.bisect_right(found, last, key=lambda event: event.position)
    if switches["lookup_duplicates"] and 0 < first < len(found) and most > 1:
        first -= 1  # the last one of the page before, again
    events = found[first : first + most]
    answer: dict = {"Events": [event.shown for event in events]}
    if first + most < len(found):
        answer["NextToken"] = make_token(asked, events[-1].position, blank=False)
    return answer


def fingerprint(call: Call) -> str:
    """Of all parameters but the token, which is valid with the same ones only."""
    rest = {name: value for name, value in call.parameters.items() if name != "NextToken"}
    return hashlib.sha256(json.dumps([call.place, rest], sort_keys=True).encode()).hexdigest()


def make_token(asked: str, last: tuple[int, int] | None, blank: bool) -> str:
    return base64.b64encode(json.dumps([asked, last, blank]).encode()).decode()


def read_token(call: Call, asked: str) -> tuple[tuple[int, int] | None, bool]:
    token = call.parameters.get("NextToken")
    if token is None:
        return None, False
    try:
        owner, last, blank = json.loads(base64.b64decode(token, validate=True))
    except (ValueError, TypeError):
        raise invalid_token() from None
    if owner != asked:
        raise invalid_token()
    return None if last is None else tuple(last), blank


OPERATIONS = {"LookupEvents": lookup_events}
UNLOCKED: dict = {}
