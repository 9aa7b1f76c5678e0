"""A zero is counted: what panels answer for a source that sees, one that is blind, and one that cannot tell.

promtool evaluates the committed expressions over series that stand still while the clock goes on.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import unittest

import boards

HOUR, DAY = 3600, 86_400
NOW = 10 * DAY  # of promtool's clock
INTERVAL, SETTLE = 300, 900
MAY_BE_LATE = INTERVAL + SETTLE
BLIND = -1
OVERVIEW, SERVICE, MIGRATION = "overview.json", "service.json", "migration.json"
PAIRS = "Pairs of account and service that have not arrived"


def labels(**more: str) -> dict[str, str]:
    return {"job": "cloudtrail-tls", "namespace": "one", "source": "trail", **more}


def series(name: str, value: float, **more: str) -> dict:
    of_target = {"instance": "exporter:9464"}
    matchers = ",".join(f'{label}="{text}"' for label, text in (labels(**more) | of_target).items())
    return {"series": f"{name}{{{matchers}}}", "values": f"{value}x240"}


def source(
    age: float = 0, newest: float | None = 0, history: float = DAY, control: float = 100, outdated: float = 0, **more
) -> list[dict]:
    """The series of a source whose watermark, newest record and history are so many seconds old."""
    exporter, of_service = "cloudtrail_tls_exporter_", {"account_id": "1", "aws_service": "s3"} | more
    made = [
        series(exporter + "source_interval_seconds", INTERVAL, **more),
        series(exporter + "source_settle_seconds", SETTLE, **more),
        series(exporter + "watermark_timestamp_seconds", NOW - MAY_BE_LATE - age, **more),
        series(exporter + "history_start_timestamp_seconds", NOW - history, **more),
        series("cloudtrail_tls_account_outdated_window_calls", outdated, account_id="1", **more),
        series("cloudtrail_tls_control_window_calls", control, account_id="1", **more),
    ]
    if newest is not None:
        made.append(series(exporter + "newest_record_timestamp_seconds", NOW - MAY_BE_LATE - newest, **more))
    if outdated:
        made.append(series("cloudtrail_tls_outdated_window_calls", outdated, **of_service))
    return made


def expression(file: str, title: str, ref: str = "A") -> str:
    board = boards.load()[file]
    [query] = [query for query in boards.queries(board) if (query.title, query.ref) == (title, ref)]
    return boards.put_in(query.expr, boards.values(board))


def wrong(expr: str, input_series: list[dict], expected: list[tuple[dict[str, str], float]]) -> str:
    """What promtool finds other than expected. JSON is YAML."""
    text = lambda of: "{" + ",".join(f'{label}="{value}"' for label, value in of.items()) + "}"
    samples = [{"labels": text(of), "value": value} for of, value in expected]
    asked = {"expr": expr, "eval_time": f"{NOW}s", "exp_samples": samples}
    group = {"interval": "1h", "input_series": input_series, "promql_expr_test": [asked]}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump({"evaluation_interval": "1h", "tests": [group]}, file)
        file.flush()
        ran = subprocess.run(["promtool", "test", "rules", file.name], capture_output=True, text=True, check=False)
    return "" if ran.returncode == 0 else ran.stdout + ran.stderr


class Headline(unittest.TestCase):
    def assert_says(self, number: float, seen: list[dict]) -> None:
        for file in (OVERVIEW, SERVICE):
            self.assertEqual(wrong(expression(file, "Outdated calls"), seen, [(labels(), number)]), "", file)

    def test_a_source_that_sees_says_zero(self) -> None:
        self.assert_says(0, source())
        self.assertNotEqual(wrong(expression(OVERVIEW, "Outdated calls"), source(), [(labels(), BLIND)]), "")

    def test_late_data_is_blind(self) -> None:
        self.assert_says(0, source(age=15 * 60))
        self.assert_says(BLIND, source(age=15 * 60 + 1))

    def test_an_old_newest_record_is_blind_though_the_source_answers(self) -> None:
        self.assert_says(0, source(newest=6 * HOUR))
        self.assert_says(BLIND, source(newest=6 * HOUR + 1))
        self.assert_says(BLIND, source(newest=48 * HOUR))

    def test_a_source_without_any_record_is_blind_when_it_was_asked_for_long(self) -> None:
        self.assert_says(0, source(newest=None, history=HOUR))
        self.assert_says(BLIND, source(newest=None, history=DAY))

    def test_no_call_on_modern_tls_is_blind(self) -> None:
        self.assert_says(0, source(control=1))
        self.assert_says(BLIND, source(control=0))

    def test_outdated_calls_are_told_all_the_same(self) -> None:
        self.assert_says(7, source(age=DAY, newest=DAY, control=0, outdated=7))

    def test_what_sees_hides_nothing_that_is_blind(self) -> None:
        for blind in ({"age": DAY}, {"newest": DAY}, {"control": 0}):
            for other in ({"namespace": "two"}, {"source": "lake"}, {"cluster": "c"}):
                seen = source() + source(**blind, **other)
                expected = [(labels(), 0), (labels(**other), BLIND)]
                self.assertEqual(wrong(expression(OVERVIEW, "Outdated calls"), seen, expected), "", (blind, other))

    def test_no_series_is_no_number(self) -> None:
        self.assertEqual(wrong(expression(OVERVIEW, "Outdated calls"), [], []), "")


class Move(unittest.TestCase):
    """A move is done where calls say so, not where none tells."""

    SERVICES = [f"Services {how}" for how in ("on TLS 1.3 alone", "partly on TLS 1.3", "without TLS 1.3")]

    def assert_says(self, title: str, ref: str, seen: list[dict], number: float | None) -> None:
        expected = [] if number is None else [(labels(), number)]
        self.assertEqual(wrong(expression(MIGRATION, title, ref), source() + seen, expected), "", title)

    def calls(self, version: str, number: int = 10) -> list[dict]:
        of = {"account_id": "1", "aws_service": "s3", "event_name": "GetObject", "tls_version": version}
        return [series("cloudtrail_tls_window_calls", number, **of)]

    def exchanges(self, exchange: str, post_quantum: str, number: int = 10) -> list[dict]:
        of = {"account_id": "1", "aws_service": "s3", "key_exchange": exchange, "post_quantum": post_quantum}
        return [series("cloudtrail_tls_key_exchange_window_calls", number, **of)]

    def test_key_exchange(self) -> None:
        hybrid, classic = self.exchanges("X25519MLKEM768", "yes"), self.exchanges("x25519", "no")
        self.assert_says(PAIRS, "C", hybrid, 0)
        self.assert_says(PAIRS, "C", hybrid + classic, 1)
        self.assert_says(PAIRS, "C", self.exchanges("unreported", "unreported"), None)
        self.assert_says(PAIRS, "C", self.exchanges("x25519", "no", 0), None)

    def test_versions(self) -> None:
        new, old = self.calls("TLSv1.3"), self.calls("TLSv1.2")
        self.assert_says(PAIRS, "B", new, 0)
        self.assert_says(PAIRS, "B", new + old, 1)
        for nothing in (self.calls("none"), self.calls("unknown"), self.calls("TLSv1.2", 0)):
            self.assert_says(PAIRS, "B", nothing, None)

    def test_services(self) -> None:
        new, old = self.calls("TLSv1.3"), self.calls("TLSv1.2")
        for seen, numbers in (
            (new, (1, 0, 0)),
            (new + old, (0, 1, 0)),
            (old, (0, 0, 1)),
            (self.calls("none"), (None,) * 3),
        ):
            for title, number in zip(self.SERVICES, numbers, strict=True):
                self.assert_says(title, "A", seen, number)

    def test_a_version_that_is_not_known_is_in_no_share(self) -> None:
        seen = self.calls("TLSv1.3") + self.calls("TLSv1.2") + self.calls("unknown", 80)
        self.assert_says("TLS 1.3 now", "A", seen, 0.5)


if __name__ == "__main__":
    unittest.main()
