"""The shipped rules with time made shorter, for tests that cannot wait for a day:

    scaled.py 360 deploy/alerts/cloudtrail-tls-regressions.yaml >quick.yaml

Every time in the rules is a duration (`[7d]`, `offset 1d`, `for: 1h`) or a product with the seconds of a minute, an hour
or a day (`24 * 3600`); a test holds them to that. Numbers of calls and shares stay as they are.
"""

import re
import sys

import yaml

UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
DURATION = r"(\d+)(ms|[smhdw])"
SECONDS = re.compile(r"\b(\d+) \* (86400|3600|60)\b")


def scaled_duration(duration: str, factor: float) -> str:
    number, unit = re.fullmatch(DURATION, duration).groups()
    return f"{max(1, round(int(number) * UNITS[unit] / factor))}ms"


def scaled_expression(expression: str, factor: float) -> str:
    shorter = lambda match: scaled_duration(match[0], factor)
    ranges = re.sub(rf"(?<=\[){DURATION}|(?<=offset ){DURATION}|(?<=:){DURATION}(?=\])", shorter, expression)
    return SECONDS.sub(lambda match: f"{int(match[1]) * int(match[2]) / factor:g}", ranges)


def scaled(rules: dict, factor: float) -> dict:
    """The rules of a file with every time divided by `factor`."""
    groups = []
    for group in rules["groups"]:
        shorter = [scaled_rule(rule, factor) for rule in group["rules"]]
        groups.append({"name": group["name"], "rules": shorter})
    return {"groups": groups}


def scaled_rule(rule: dict, factor: float) -> dict:
    rule = {**rule, "expr": scaled_expression(rule["expr"], factor)}
    for key in {"for", "keep_firing_for"} & set(rule):
        rule[key] = scaled_duration(rule[key], factor)
    if "annotations" in rule:
        texts = rule["annotations"].items()
        rule["annotations"] = {key: scaled_expression(text, factor) for key, text in texts}
    return rule


if __name__ == "__main__":
    with open(sys.argv[2]) as file:
        print(yaml.safe_dump(scaled(yaml.safe_load(file), float(sys.argv[1])), sort_keys=False, width=1000))
