"""Plays the scripted history and draws all dashboards in each chapter: run by grafana/render/run.

The history is that of tests/live, where a day is a minute, and so it is for what a dashboard holds against the clock:
the least step of a graph, thresholds in seconds, and what an expression writes as `15 * 60`. Ranges and offsets stay.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests" / "live"), str(ROOT / "tests" / "alerts")]

import scaled
from expected import expected, unexpected_data
from history import CHAPTERS
from stack import Stack

BOARDS = sorted((ROOT / "grafana").glob("*.json"))
PICTURES = ROOT / "target" / "render"
NPM = PICTURES / "npm"
SHOWN = 70  # seconds of a chapter that a picture has: the window of a minute is full of it
WIDTH = 1600
SCRAPE_INTERVAL = "1s"
SECONDS = {"s", "dtdhms"}  # units


def quicker(board: dict) -> dict:
    """The dashboard for a history in which a day is a minute."""
    made = json.loads(json.dumps(board))
    product = lambda found: f"{quick(int(found[1]) * int(found[2])):g}"
    for panel in made["panels"]:
        defaults = panel.get("fieldConfig", {}).get("defaults", {})
        if defaults.get("unit") in SECONDS:
            for step in defaults.get("thresholds", {}).get("steps", []):
                if step["value"] and step["value"] > 0:
                    step["value"] = quick(step["value"])
        for target in panel.get("targets", []):
            target["expr"] = scaled.SECONDS.sub(product, target["expr"])
            if "interval" in target:
                least = scaled.milliseconds(SCRAPE_INTERVAL)
                step = scaled.milliseconds(target["interval"]) // scaled.DAY_IS_A_MINUTE
                target["interval"] = f"{max(least, step)}ms"
    return made


def quick(seconds: float) -> float:
    return max(scaled.milliseconds(scaled.SHORTEST) / 1000, seconds / scaled.DAY_IS_A_MINUTE)


def draw(prometheus: str, since: float, chapter: str) -> list[dict]:
    """Draws all dashboards as they are now, and gives what each is found to lack."""
    folder = PICTURES / chapter
    folder.mkdir(parents=True, exist_ok=True)
    boards = []
    for file in BOARDS:
        board = quicker(json.loads(file.read_text(encoding="utf-8")))
        boards.append({"name": file.name, "board": board, "picture": str(folder / f"{file.stem}.png")})
    asked = {
        "prometheus": prometheus,
        "scrapeInterval": SCRAPE_INTERVAL,
        "from": int(since * 1000),
        "to": int(time.time() * 1000),
        "width": WIDTH,
        "boards": boards,
    }
    command = ["node", str(NPM / "shoot.mjs")]
    drawn = subprocess.run(command, input=json.dumps(asked), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(drawn.stdout)


def lacks(name: str, chapter: str, findings: list[dict]) -> list[str]:
    """What is amiss with a dashboard, a line each."""
    said = [found for found in findings if not expected(name, chapter, found)]
    lines = [f"{found['where']}: {found['kind']} {found['detail']}".rstrip() for found in said]
    return lines + [f"{title}: data that was not expected" for title in unexpected_data(name, chapter, findings)]


def main() -> int:
    chapters = [chapter for chapter in CHAPTERS if chapter in sys.argv[1:]] or list(CHAPTERS)
    if unknown := set(sys.argv[1:]) - set(CHAPTERS):
        print(f"no chapter {', '.join(sorted(unknown))}; there are: {', '.join(CHAPTERS)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what was started, too
    amiss = 0
    with Stack() as stack:
        begin = time.time()
        for chapter in chapters:
            stack.chapter(chapter)
            time.sleep(SHOWN)
            for drawn in draw(stack.prometheus, begin, chapter):
                for line in lacks(drawn["name"], chapter, drawn["findings"]):
                    amiss += 1
                    print(f"{chapter}: {drawn['name']}: {line}")
            print(f"{chapter}: {len(BOARDS)} dashboards in {(PICTURES / chapter).relative_to(ROOT)}", flush=True)
    print(f"{amiss} amiss")
    return 1 if amiss else 0


if __name__ == "__main__":
    sys.exit(main())
