"""LookupEvents, seen by a real SDK."""

import json
import time
import unittest
from datetime import datetime, timedelta, timezone

from harness import ACCOUNT, REGION, T0, record
from trail_harness import OTHER, TrailTest

START = datetime.fromtimestamp(T0 / 1000, timezone.utc)
HISTORY = {"event_history": True, "account": ACCOUNT, "region": REGION}


def at(second: int, **changes) -> dict:
    when = START + timedelta(seconds=second)
    return record(eventTime=f"{when:%Y-%m-%dT%H:%M:%SZ}", eventID=f"id-{second}", **changes)


class Lookup(TrailTest):
    def setUp(self) -> None:
        super().setUp()
        self.switch(signature_tolerance_seconds=10**9)
        self.control("clock", {"set_ms": T0 + 3_600_000})

    def ids(self, **parameters) -> list[list[str]]:
        """The eventIDs of each page."""
        pages = []
        while True:
            answer = self.lake.lookup_events(**parameters)
            pages.append([event["EventId"] for event in answer["Events"]])
            if "NextToken" not in answer:
                return pages
            parameters["NextToken"] = answer["NextToken"]

    def test_an_event(self) -> None:
        user = {"type": "AssumedRole", "arn": "arn:aws:sts::1:assumed-role/role/session", "accessKeyId": "ASIA"}
        made = at(5, userIdentity=user, readOnly=False)
        self.deliver(made, **HISTORY)
        (event,) = self.lake.lookup_events()["Events"]
        self.assertEqual(json.loads(event.pop("CloudTrailEvent")), made)
        self.assertEqual(event.pop("EventTime"), START + timedelta(seconds=5))
        expected = {
            "EventId": "id-5",
            "EventName": "GetObject",
            "ReadOnly": "false",
            "EventSource": "s3.amazonaws.com",
            "AccessKeyId": "ASIA",
            "Username": "session",
            "Resources": [],
        }
        self.assertEqual(event, expected)

    def test_range_and_order(self) -> None:
        """Newest first, both ends within, to the second."""
        self.deliver(*(at(second) for second in (3, 1, 2, 4)), **HISTORY)
        self.assertEqual(self.ids(), [["id-4", "id-3", "id-2", "id-1"]])
        end = START + timedelta(seconds=3)
        self.assertEqual(self.ids(StartTime=START + timedelta(seconds=2), EndTime=end), [["id-3", "id-2"]])
        self.assertEqual(self.ids(StartTime=end, EndTime=end), [["id-3"]])
        self.refused("InvalidTimeRangeException", self.lake.lookup_events, StartTime=end, EndTime=START)

    def test_management_events_of_this_region(self) -> None:
        self.deliver(
            at(1),
            at(2, managementEvent=True, eventCategory="Management"),
            at(3, managementEvent=False),
            at(4, eventCategory="Data"),
            at(5, eventCategory="NetworkActivity"),
            at(6, awsRegion="us-east-1"),
            at(7, awsRegion=None),
            **HISTORY,
        )
        self.assertEqual(self.ids(), [["id-7", "id-2", "id-1"]])
        self.assertEqual(self.double.client(service="cloudtrail", region="us-east-1").lookup_events()["Events"], [])
        self.control("credentials", [{"access_key": "AKIAOTHER", "secret": "secret", "account": OTHER}])
        other = self.double.client(service="cloudtrail", key="AKIAOTHER")
        self.assertEqual(other.lookup_events()["Events"], [])

    def test_ninety_days(self) -> None:
        self.deliver(at(-90 * 86_400 + 3600), at(-90 * 86_400 + 3599), **HISTORY)
        self.assertEqual(self.ids(), [["id--7772400"]])

    def test_queryable(self) -> None:
        self.deliver((T0 + 3_600_001, at(1)), **HISTORY)
        self.assertEqual(self.ids(), [[]])
        self.control("clock", {"advance_ms": 1})
        self.assertEqual(self.ids(), [["id-1"]])

    def test_pages(self) -> None:
        self.deliver(*(at(second) for second in range(120)), **HISTORY)
        newest = [f"id-{second}" for second in reversed(range(120))]
        self.assertEqual(self.ids(), [newest[:50], newest[50:100], newest[100:]])
        self.assertEqual([len(page) for page in self.ids(MaxResults=40)], [40, 40, 40])
        token = self.lake.lookup_events(MaxResults=10)["NextToken"]
        for wrong in ({"MaxResults": 11, "NextToken": token}, {"MaxResults": 10, "NextToken": "frob"}):
            self.refused("InvalidNextTokenException", self.lake.lookup_events, **wrong)
        for most in (0, 51):
            self.refused("InvalidMaxResultsException", self.loose["cloudtrail"].lookup_events, MaxResults=most)

    def test_what_arrives_between_pages(self) -> None:
        """Nothing is shown twice or left out for it; what is older than the page yet to come is in it."""
        self.deliver(*(at(second) for second in (10, 20, 30, 40)), **HISTORY)
        first = self.lake.lookup_events(MaxResults=2)
        self.deliver(at(15), at(35), **HISTORY)
        rest = self.lake.lookup_events(MaxResults=2, NextToken=first["NextToken"])
        self.assertEqual([event["EventId"] for event in rest["Events"]], ["id-20", "id-15"])

    def test_one_second(self) -> None:
        """Events of one second across pages, in a stable order."""
        made = [record(eventID=f"id-{number}") for number in range(5)]
        self.deliver(*made, **HISTORY)
        pages = self.ids(MaxResults=2)
        self.assertEqual([len(page) for page in pages], [2, 2, 1])
        self.assertEqual(sorted(sum(pages, [])), [f"id-{number}" for number in range(5)])

    def test_switches(self) -> None:
        self.deliver(*(at(second) for second in range(5)), **HISTORY)
        self.switch(lookup_duplicates=True)
        self.assertEqual(
            self.ids(MaxResults=2), [["id-4", "id-3"], ["id-3", "id-2"], ["id-2", "id-1"], ["id-1", "id-0"]]
        )
        self.switch(lookup_duplicates=False, lookup_empty_pages=True)
        self.assertEqual(self.ids(MaxResults=3), [[], ["id-4", "id-3", "id-2"], [], ["id-1", "id-0"]])
        self.switch(lookup_duplicates=True)
        self.assertEqual(self.ids(MaxResults=3), [[], ["id-4", "id-3", "id-2"], [], ["id-2", "id-1", "id-0"]])

    def test_attributes(self) -> None:
        self.deliver(at(1), at(2, eventName="Decrypt", eventSource="kms.amazonaws.com", readOnly=False), **HISTORY)
        for key, value in (
            ("EventId", "id-2"),
            ("EventName", "Decrypt"),
            ("EventSource", "kms.amazonaws.com"),
            ("ReadOnly", "false"),
        ):
            attribute = {"AttributeKey": key, "AttributeValue": value}
            self.assertEqual(self.ids(LookupAttributes=[attribute]), [["id-2"]])
        lookup = self.loose["cloudtrail"].lookup_events
        for wrong in ([attribute, attribute], [{"AttributeKey": "Frob", "AttributeValue": "x"}]):
            self.refused("InvalidLookupAttributesException", lookup, LookupAttributes=wrong)
        self.refused("InvalidEventCategoryException", lookup, EventCategory="insight")

    def test_rate(self) -> None:
        time.sleep(1.05)
        self.control("clock", {"real": True})
        self.switch(lookups_per_second=2)
        self.lake.lookup_events(), self.lake.lookup_events()
        error = self.refused("ThrottlingException", self.lake.lookup_events)
        self.assertEqual(error["Error"]["Message"], "Rate exceeded")
        time.sleep(1.05)
        self.lake.lookup_events()
        self.control("reset", {})
        self.assertEqual(self.control("switches")["lookups_per_second"], 2)
        self.assertEqual(self.control("stats")["broken"], 0)


if __name__ == "__main__":
    unittest.main()
