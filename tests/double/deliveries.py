"""Log events out of trail files, as a trail delivers them to a log group over some time.

python deliveries.py OUT GROUP ACCOUNT REGION FROM_MS TO_MS SEED MOST FOLDER...  writes lines as /control/events reads
them. Records of the folders' files come in batches of 1 to MOST, each with one timestamp, as trails do; they become
queryable 0 to 120 s after it, and their calls lie 2 to 15 minutes before it, some hours.
"""

import gzip
import json
import random
import sys
from datetime import UTC, datetime
from pathlib import Path


def records(folders: list[str]) -> list[dict]:
    found = []
    for folder in folders:
        for path in sorted(Path(folder).rglob("*.json.gz")):
            with gzip.open(path) as file:
                found += json.load(file)["Records"]
    return found


def main() -> None:
    out, group, account, region, start, end, seed, most, *folders = sys.argv[1:]
    choose = random.Random(int(seed))
    left = records(folders)
    choose.shuffle(left)
    place = {"log_group": group, "account": account, "region": region}
    with open(out, "w", encoding="utf-8") as file:
        while left:
            size = choose.randint(1, int(most))
            batch, left = left[:size], left[size:]
            timestamp = choose.randrange(int(start), int(end))
            for record in batch:
                late = choose.randint(120, 900) if choose.random() < 0.95 else choose.randint(3600, 20_000)
                called = datetime.fromtimestamp(timestamp // 1000 - late, UTC)
                record["eventTime"] = called.strftime("%Y-%m-%dT%H:%M:%SZ")
                queryable = timestamp + choose.randrange(120_000)
                message = json.dumps(record, separators=(",", ":"))
                event = {**place, "timestamp": timestamp, "queryable": queryable, "message": message}
                file.write(json.dumps(event) + "\n")


if __name__ == "__main__":
    main()
