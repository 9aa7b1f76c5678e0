"""Real exporters, Prometheus and Alertmanager over the scripted history, on ports of this machine.

    with Stack() as stack:
        stack.chapter("clean")      # of history.CHAPTERS, forwards; returns when Prometheus has seen what it is about
        stack.query("up")           # what Prometheus' API gives as `result`
        stack.chapter("legacy")
        stack.prometheus            # URLs: also .exporter, .alertmanager
        stack.webhook.notifications # (receiver, alerts) as Alertmanager sent them

Or, for what is not written in Python:

    target/venv/bin/python tests/live/stack.py [chapter ...]

plays these chapters (without any: all) and prints after each a line of JSON with its name and the URLs; each empty line
on stdin lets it go on to the next, and the end of stdin ends it. Chapters last as long as they are wanted, except that
`migration` takes the minute until what was before has left the window.

Three sources are seen, so that none is added to another or hidden by it. `trail` has the history; `copy`, of the same
exporter, and the `trail` of a second one have calls that stay clean. The first exporter is a target with a cluster and
no namespace, the second one with a namespace and no cluster.

It needs target/debug/cloudtrail-tls-exporter, and Debian's prometheus and prometheus-alertmanager. A day is a minute:
tests/alerts/scaled.py says how. Prometheus scrapes each second. So that panels that look back seven days have something
to see, it begins with the exporter's own first scrape as if of a week ago.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "alerts"))

import rules
import scaled
import yaml
from alertmanager import Alertmanager, Webhook
from history import CHAPTERS, History
from programs import DEADLINE, Program, free_port

EXPORTER = ROOT / "target" / "debug" / "cloudtrail-tls-exporter"
JOB, CLUSTER, SOURCE = "cloudtrail-tls", "live", "trail"
OTHER_SOURCE, OTHER_NAMESPACE = "copy", "other"
TARGETS = ({"cluster": CLUSTER}, {"namespace": OTHER_NAMESPACE})  # the labels of each exporter
WEEK = 7 * 86_400
LEAVES_THE_WINDOW = 120  # seconds that the calls of a minute may take for it

# When Prometheus has scraped what a chapter is about: several times, for rates and lines.
SEEN = {
    "clean": "count(count_over_time(cloudtrail_tls_exporter_build_info[10s]) >= 5) == 2 and on ()"
    " count(sum by (instance, source) (rate(cloudtrail_tls_calls_total[10s])) > 0) == 3",
    "legacy": "sum(count_over_time(cloudtrail_tls_outdated_window_calls[10s])) >= 4",
    "migration": "sum(max_over_time(cloudtrail_tls_account_outdated_window_calls[3s])) == 0",
    "failing": "cloudtrail_tls_exporter_source_up == 0",
}


def exporter_config(store: Path, locations: dict[str, Path]) -> str:
    """Of an exporter whose sources have these names and locations."""
    length, quiet_period = (scaled.scaled_duration(time, scaled.DAY_IS_A_MINUTE) for time in ("24h", "7d"))
    made = f"""
[window]
length = "{length}"
bucket = "10s"
[regression]
quiet_period = "{quiet_period}"
[state]
path = "{store}"
"""
    for name, location in locations.items():
        made += f"""
[[sources]]
name = "{name}"
type = "trail_files"
location = "{location}"
interval = "1s"
"""
    return made


def prometheus_config(folder: Path, exporters: list[str], alertmanager: str) -> dict:
    address = lambda url: url.removeprefix("http://")
    static = [{"targets": [address(url)], "labels": labels} for url, labels in zip(exporters, TARGETS)]
    return {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [f"{folder}/rules/*.yaml"],
        "scrape_configs": [{"job_name": JOB, "static_configs": static}],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [address(alertmanager)]}]}]},
    }


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
        return answer.read().decode()


def of_a_week_ago(scrape: str, instance: str, labels: dict[str, str]) -> list[str]:
    """The gauges of calls in a scrape, as OpenMetrics with the target's labels, from 7 days ago for two hours."""
    of_target = {**labels, "job": JOB, "instance": instance}
    target = ",".join(f'{label}="{value}"' for label, value in of_target.items())
    begin = int(time.time()) - WEEK - 600
    lines = []
    for line in scrape.splitlines():
        name, brace, rest = line.partition("{")
        if brace and name.endswith("_window_calls"):
            own, _, value = rest.rpartition("} ")
            lines += [f"{name}{{{target},{own}}} {value} {at}" for at in range(begin, begin + 7800, 240)]
    return lines


class Stack:
    def __init__(self) -> None:
        self._closing = ExitStack()
        self._chapter = -1

    def __enter__(self) -> Stack:
        try:
            self._start()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind and issubclass(kind, Exception):
            print(self.logs(), file=sys.stderr)
        self._closing.close()

    def _start(self) -> None:
        self.folder = folder = Path(self._closing.enter_context(tempfile.TemporaryDirectory(prefix="live-")))
        self.history, clean = History(folder / "trail"), History(folder / "clean")
        for history in (self.history, clean):
            self._closing.callback(history.stop)
            history.start()
        self.webhook = Webhook()
        self._closing.callback(self.webhook.close)
        alertmanager = self._ends(Alertmanager(folder, self.webhook))

        self._exporter = self._start_exporter("exporter", {SOURCE: self.history.trail, OTHER_SOURCE: clean.trail})
        other = self._start_exporter("other_exporter", {SOURCE: clean.trail})
        self.exporter, self.alertmanager = self._exporter.url, alertmanager.url
        self.instance = self.exporter.removeprefix("http://")
        self._write_week_ago([self.exporter, other.url])
        (folder / "rules").mkdir()
        for file in rules.RULE_FILES:
            shorter = scaled.scaled(rules.load(file), scaled.DAY_IS_A_MINUTE, scaled.SHORTEST)
            (folder / "rules" / file.name).write_text(yaml.safe_dump(shorter))
        config = prometheus_config(folder, [self.exporter, other.url], self.alertmanager)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        port = free_port()
        command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/prometheus"]
        command += [f"--web.listen-address=127.0.0.1:{port}"]
        self.prometheus = self._ends(Program(command, port, folder / "prometheus.log")).url

    def _start_exporter(self, name: str, locations: dict[str, Path]) -> Program:
        config, port = self.folder / f"{name}.toml", free_port()
        config.write_text(exporter_config(self.folder / f"{name}.db", locations))
        command = [str(EXPORTER), f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}"]
        return self._ends(Program(command, port, self.folder / f"{name}.log"))

    def _ends(self, program: Program) -> Program:
        self._closing.callback(program.close)
        return program

    def _write_week_ago(self, exporters: list[str]) -> None:
        counted = re.compile(r'^cloudtrail_tls_window_calls\{.*source="(\w+)"', re.MULTILINE)
        lines = []
        for url, labels, sources in zip(exporters, TARGETS, ({SOURCE, OTHER_SOURCE}, {SOURCE})):
            metrics = lambda: set(counted.findall(text := get(f"{url}/metrics"))) == sources and text
            lines += of_a_week_ago(self.wait(metrics, "the first calls"), url.removeprefix("http://"), labels)
        file = self.folder / "week_ago.om"
        file.write_text("\n".join([*lines, "# EOF\n"]))
        command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(file), f"{self.folder}/prometheus"]
        subprocess.run(command, check=True, capture_output=True, timeout=DEADLINE)

    def chapter(self, name: str) -> None:
        """Goes on to a later chapter, and returns when Prometheus has scraped what it is about."""
        number = CHAPTERS.index(name)
        if number <= self._chapter:
            raise ValueError(f"{name} is over: the history goes forwards")
        self._chapter = number
        self.history.enter(name)
        self.wait(lambda: self.query(SEEN[name]), f"chapter {name}", LEAVES_THE_WINDOW)

    def crash_exporter(self) -> None:
        """Kills the first exporter and starts it anew, over the same store."""
        self._exporter.close()
        self._exporter.start()

    def query(self, expr: str) -> list[dict]:
        """What Prometheus says now."""
        return self.api("query", query=expr)

    def api(self, path: str, **parameters: str | float) -> list | dict:
        """The data of an answer of Prometheus' API, or its `result`. A ValueError tells what Prometheus refused."""
        try:
            answer = json.loads(get(f"{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))
        except urllib.error.HTTPError as error:
            raise ValueError(f"{parameters}: {error.read().decode()}") from None
        data = answer["data"]
        return data.get("result", data) if isinstance(data, dict) else data

    def wait(self, done: Callable[[], object], what: str, deadline: float = DEADLINE) -> object:
        """Asks again and again until there is something, and gives it."""
        until = time.monotonic() + deadline
        while not (found := done()):
            if time.monotonic() > until:
                raise AssertionError(f"{what} did not come within {deadline:.0f} s")
            time.sleep(0.2)
        return found

    def complaints(self) -> list[str]:
        """What the programs have warned of so far."""
        lines = [line for log in sorted(self.folder.glob("*.log")) for line in log.read_text().splitlines()]
        return [line for line in lines if re.search(r"\blevel=(warn|error)", line)]

    def logs(self) -> str:
        """The ends of the logs."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"== {log.name}\n" + "\n".join(log.read_text().splitlines()[-40:]) for log in logs)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what was started, too
    with Stack() as stack:
        urls = {name: getattr(stack, name) for name in ("exporter", "prometheus", "alertmanager")}
        for chapter in sys.argv[1:] or CHAPTERS:
            stack.chapter(chapter)
            print(json.dumps({"chapter": chapter, **urls}), flush=True)
            if not sys.stdin.readline():
                return


if __name__ == "__main__":
    main()
