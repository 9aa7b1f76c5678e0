"""The shipped rules with time made shorter, for tests that cannot wait for a day:

    scaled.py 360 deploy/alerts/cloudtrail-tls-regressions.yaml >quick.yaml

With a real exporter a day is a minute (`tests/live`): `DAY_IS_A_MINUTE` and `SHORTEST` hold for the rules and for the
exporter's configuration; Alertmanager's groups wait a second (`alertmanager.py`). That the rules do right with the
durations they are shipped with is for promtool's tests.

Every time in the rules is a duration (`[7d]`, `offset 1d`, `for: 1h`) or a product with the seconds of a minute, an hour
or a day (`24 * 3600`); a test holds them to that. Numbers of calls and shares stay as they are.
"""

import re
import sys

import yaml

DAY_IS_A_MINUTE = 1440
# What scrapes and scans of a second each, on a busy machine, can tell apart: a quarter of an hour would be 0.6 s. No
# alert of blindness is to come of a stall or a restart that lasts less.
SHORTEST = "10s"

UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
DURATION = r"(\d+)(ms|[smhdw])"
SECONDS = re.compile(r"\b(\d+) \* (86400|3600|60)\b")


def milliseconds(duration: str) -> int:
    number, unit = re.fullmatch(DURATION, duration).groups()
    return int(number) * UNITS[unit]


def scaled_duration(duration: str, factor: float, shortest: str = "1ms") -> str:
    return f"{max(milliseconds(shortest), round(milliseconds(duration) / factor))}ms"


def scaled_expression(expression: str, factor: float, shortest: str = "1ms") -> str:
    shorter = lambda match: scaled_duration(match[0], factor, shortest)
    seconds = lambda match: max(milliseconds(shortest) / 1000, int(match[1]) * int(match[2]) / factor)
    ranges = re.sub(rf"(?<=\[){DURATION}|(?<=offset ){DURATION}|(?<=:){DURATION}(?=\])", shorter, expression)
    return SECONDS.sub(lambda match: f"{seconds(match):g}", ranges)


def scaled(rules: dict, factor: float, shortest: str = "1ms") -> dict:
    """The rules of a file with every time divided by `factor`, but none shorter than `shortest`."""
    groups = []
    for group in rules["groups"]:
        shorter = [scaled_rule(rule, factor, shortest) for rule in group["rules"]]
        groups.append({"name": group["name"], "rules": shorter})
    return {"groups": groups}


def scaled_rule(rule: dict, factor: float, shortest: str) -> dict:
    rule = {**rule, "expr": scaled_expression(rule["expr"], factor, shortest)}
    for key in {"for", "keep_firing_for"} & set(rule):
        rule[key] = scaled_duration(rule[key], factor, shortest)
    if "annotations" in rule:
        texts = rule["annotations"].items()
        rule["annotations"] = {key: scaled_expression(text, factor, shortest) for key, text in texts}
    return rule


if __name__ == "__main__":
    with open(sys.argv[2]) as file:
        print(yaml.safe_dump(scaled(yaml.safe_load(file), float(sys.argv[1])), sort_keys=False, width=1000))
