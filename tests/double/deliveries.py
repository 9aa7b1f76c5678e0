"""Log events out of trail files, as a trail delivers them to a log group over some time.

python deliveries.py [OPTIONS] OUT GROUP ACCOUNT REGION FROM_MS TO_MS SEED MOST FOLDER...  writes lines as
/control/events reads them. Records of the folders' files come in batches of 1 to MOST, each with one timestamp, as
trails do; they become queryable 0 to 120 s after it, and their calls lie 2 to 15 minutes before it, some hours.

--event-time        instead: each record comes alone, its timestamp is its eventTime, spread evenly from FROM_MS on and
                    before TO_MS, and it becomes queryable 30 to 600 s after it
--late SHARE        with --event-time: this share becomes queryable 3600 to 14400 s after its eventTime
--in-region SHARE   with --event-time: this share of the records is of REGION, by eventID where there is one
--duplicates SHARE  with --event-time: this share comes a second time, the same record, queryable 1 to 300 s later
"""

import argparse
import gzip
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path


def records(folders: list[str]) -> list[dict]:
    found = []
    for folder in folders:
        for path in sorted(Path(folder).rglob("*.json.gz")):
            with gzip.open(path) as file:
                found += json.load(file)["Records"]
    return found


def delivered(left: list[dict], choose: random.Random, start: int, end: int, most: int) -> Iterator[dict]:
    """Batches of records, told by the time of their delivery."""
    while left:
        size = choose.randint(1, most)
        batch, left = left[:size], left[size:]
        timestamp = choose.randrange(start, end)
        for record in batch:
            late = choose.randint(120, 900) if choose.random() < 0.95 else choose.randint(3600, 20_000)
            set_time(record, timestamp // 1000 - late)
            yield line(record, timestamp, timestamp + choose.randrange(120_000))


def happened(
    left: list[dict], choose: random.Random, start: int, end: int, given: argparse.Namespace
) -> Iterator[dict]:
    """Single records, told by the time of their calls; the folders' own duplicates keep one time too."""
    late, duplicates, in_region = given.late, given.duplicates, given.in_region
    seconds: dict[str, int] = {}
    for record in left:
        second = choose.randrange(-(-start // 1000), -(-end // 1000))
        if "eventID" in record:
            second = seconds.setdefault(record["eventID"], second)
        set_time(record, second)
        if random.Random(record.get("eventID", second)).random() < in_region:
            record["awsRegion"] = given.region
        delay = choose.randint(3600, 14_400) if choose.random() < late else choose.randint(30, 600)
        yield line(record, second * 1000, (second + delay) * 1000)
        if choose.random() < duplicates:
            yield line(record, second * 1000, (second + delay + choose.randint(1, 300)) * 1000)


def set_time(record: dict, second: int) -> None:
    record["eventTime"] = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def line(record: dict, timestamp: int, queryable: int) -> dict:
    return {"timestamp": timestamp, "queryable": queryable, "message": json.dumps(record, separators=(",", ":"))}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--event-time", action="store_true")
    parser.add_argument("--late", type=float, default=0)
    parser.add_argument("--in-region", type=float, default=0)
    parser.add_argument("--duplicates", type=float, default=0)
    for name in ("out", "group", "account", "region"):
        parser.add_argument(name)
    for name in ("start", "end", "seed", "most"):
        parser.add_argument(name, type=int)
    parser.add_argument("folders", nargs="+")
    return parser.parse_intermixed_args()


def main() -> None:
    given = parsed()
    choose = random.Random(given.seed)
    left = records(given.folders)
    choose.shuffle(left)
    place = {"log_group": given.group, "account": given.account, "region": given.region}
    if given.event_time:
        events = happened(left, choose, given.start, given.end, given)
    else:
        events = delivered(left, choose, given.start, given.end, given.most)
    with open(given.out, "w", encoding="utf-8") as file:
        for event in events:
            file.write(json.dumps({**place, **event}) + "\n")


if __name__ == "__main__":
    main()
