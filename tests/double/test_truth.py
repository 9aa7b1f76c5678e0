"""The interpreter against DuckDB: the exporter's own queries, over made-up and over real records."""

import gzip
import json
import sys
import tempfile
import unittest
from collections import Counter
from datetime import datetime
from pathlib import Path

import duckdb

from harness import ACCOUNT, T0, DoubleTest, generated, record

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "cloudtrail" / "AWSLogs"
# The members by which the exporter groups, as paths in the record.
MEMBERS = [
    "eventSource",
    "eventName",
    "tlsDetails.tlsVersion",
    "tlsDetails.cipherSuite",
    "tlsDetails.keyExchange",
    "recipientAccountId",
    "awsRegion",
]
HOST = "tlsDetails.clientProvidedHostHeader"


def window(start: int, end: int) -> str:
    return f"filter toMillis(@timestamp) >= {start} and toMillis(@timestamp) < {end}"


def discovered_form(start: int, end: int) -> str:
    return (
        f"{window(start, end)}\n| fields ispresent({HOST}) as tlsHost\n"
        "| stats count(*) as calls, sortsLast(eventTime) as lastEventTime "
        f"by bin(5m), {', '.join(MEMBERS)}, tlsHost"
    )


def parsed_form(start: int, end: int) -> str:
    members = ", ".join(f"record.{name}" for name in MEMBERS)
    return (
        f"fields jsonParse(@message) as record\n| fields ispresent(record.{HOST}) as tlsHost\n| {window(start, end)}\n"
        "| stats count(*) as calls, sortsLast(record.eventTime) as lastEventTime "
        f"by bin(5m), {members}, tlsHost"
    )


def truth(events: list[tuple[int, dict]], condition: str = "true") -> dict[tuple, tuple[int, str]]:
    """Calls and the last eventTime of each label set, by DuckDB over the records' own JSON."""
    with tempfile.NamedTemporaryFile("w", suffix=".ndjson") as file:
        for timestamp, message in events:
            file.write(json.dumps({"timestamp": timestamp, "record": json.dumps(message)}) + "\n")
        file.flush()
        members = [f"record->>'$.{name}'" for name in MEMBERS]
        keys = ", ".join(["timestamp - timestamp % 300000", *members, f"(record->>'$.{HOST}') IS NOT NULL"])
        places = ", ".join(str(number + 1) for number in range(len(MEMBERS) + 2))
        rows = duckdb.sql(
            f"SELECT {keys}, count(*), max(record->>'$.eventTime') "
            f"FROM (SELECT timestamp, record::JSON AS record FROM read_json('{file.name}', "
            "columns = {timestamp: 'BIGINT', record: 'VARCHAR'}, format = 'newline_delimited')) "
            f"WHERE {condition} GROUP BY {places}"
        ).fetchall()
    return {tuple(row[:-2]): (row[-2], row[-1]) for row in rows}


def labels(row: dict, prefix: str = "") -> tuple:
    """The label set of a result row, in the form of `truth`."""
    when = datetime.fromisoformat(row["bin(5m)"] + "+00:00")
    return (round(when.timestamp() * 1000), *(row.get(prefix + name) for name in MEMBERS), row["tlsHost"] == "1")


class Truth(DoubleTest):
    maxDiff = None

    def ask(self, query: str, prefix: str = "", **more) -> dict[tuple, tuple[int, str]]:
        rows = self.rows(query, limit=100_000, **more)
        answer = {labels(row, prefix): (int(row["calls"]), row["lastEventTime"]) for row in rows}
        self.assertEqual(len(answer), len(rows), "no label set twice")
        return answer

    def test_generated(self) -> None:
        events = generated(3000)
        self.put(*events)
        end = T0 + 3_600_000
        expected = truth(events)
        self.assertGreater(len(expected), 1000)
        self.assertEqual(self.ask(discovered_form(T0, end)), expected)
        self.assertEqual(self.ask(parsed_form(T0, end), "record."), expected)

    def test_one_window(self) -> None:
        """Half open to the millisecond, although the ends of the range are whole seconds."""
        edges = [(T0 + at, record(eventName=f"At{at}")) for at in (-1, 0, 299_999, 300_000, 300_001)]
        events = edges + generated(1000)
        self.put(*events)
        self.switch(end_inclusive="second")
        expected = truth(events, f"timestamp >= {T0} AND timestamp < {T0 + 300_000}")
        for form, prefix in ((discovered_form, ""), (parsed_form, "record.")):
            query = form(T0, T0 + 300_000)
            self.assertEqual(self.ask(query, prefix, end=T0 // 1000 + 300), expected)

    def test_legacy_versions(self) -> None:
        events = generated(2000)
        self.put(*events)
        query = parsed_form(T0, T0 + 3_600_000).replace(
            "\n| stats", ' and record.tlsDetails.tlsVersion in ["TLSv1", "TLSv1.1"]\n| stats'
        )
        expected = truth(events, "record->>'$.tlsDetails.tlsVersion' IN ('TLSv1', 'TLSv1.1')")
        self.assertEqual(self.ask(query, "record."), expected)

    def test_calls_without_a_region(self) -> None:
        events = generated(1000)
        self.put(*events)
        query = (
            f'filter (not ispresent(awsRegion) or awsRegion = "") and recipientAccountId = "{ACCOUNT}" '
            "| stats count(*) as calls by awsRegion"
        )
        got = {row.get("awsRegion"): int(row["calls"]) for row in self.rows(query)}
        expected = Counter(
            message.get("awsRegion")
            for _, message in events
            if not message.get("awsRegion") and message["recipientAccountId"] == ACCOUNT
        )
        self.assertEqual(got, dict(expected))

    def test_top_of_services(self) -> None:
        events = generated(500)
        self.put(*events)
        rows = self.rows("stats count(*) as calls by eventSource, eventName | sort calls desc | limit 5")
        expected = Counter((message["eventSource"], message["eventName"]) for _, message in events)
        self.assertEqual([int(row["calls"]) for row in rows], [count for _, count in expected.most_common(5)])

    def test_real_records(self) -> None:
        """Each file of records as one delivery, a second after the last."""
        if not REAL.is_dir():
            reason = "no real CloudTrail records beside the checkout"
            print(f"test_real_records: skipped, {reason}", file=sys.stderr)
            self.skipTest(reason)
        events = []
        for number, path in enumerate(sorted(REAL.rglob("*.json.gz"))):
            with gzip.open(path) as file:
                events += [(T0 + number * 1000, message) for message in json.load(file)["Records"]]
        self.assertGreater(len(events), 3000)
        self.put(*events)
        expected = truth(events)
        end = T0 + 3_600_000
        self.assertEqual(self.ask(discovered_form(T0, end)), expected)
        self.assertEqual(self.ask(parsed_form(T0, end), "record."), expected)
        expected_file = REAL.parent / "expected.tsv"
        totals = Counter()
        for (_, source, name, version, *_), (calls, _) in expected.items():
            totals[source, version or "", name] += calls
        lines = [line.split("\t") for line in expected_file.read_text().splitlines()]
        self.assertEqual(totals, {tuple(line[:3]): int(line[3]) for line in lines if line[3].isdigit()})


if __name__ == "__main__":
    unittest.main()
