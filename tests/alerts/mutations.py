"""Rules that are wrong in one place each: a number, a duration, a comparison, a matcher, a guard, a `for`."""

import copy
import re
from collections.abc import Iterator

import promql_parser

STRING = r'"(?:[^"\\]|\\.)*"'
# What is no number, though it has digits: texts, durations, names, and the unit of a product such as `24 * 3600`.
NO_NUMBER = rf'{STRING}|\[[^\]]*\]|offset \w+|[A-Za-z_:][\w:]*|\* (?:60|3600|86400)\b'
NUMBER = re.compile(rf'{NO_NUMBER}|(?P<number>\d+(?:\.\d+)?)')
DURATION = re.compile(rf'{STRING}|(?:(?<=\[)|(?<=offset )|(?<=\d[smhd]:))(?P<number>\d+)(?P<unit>[smhd])')
COMPARISON = re.compile(rf'{STRING}|\{{[^}}]*\}}|(?P<operator>==|>=|<=|>|<)')
MATCHER = re.compile(rf'(?P<name>\w+)(?P<operator>=~|!~|!=|=)(?P<value>{STRING})')
OPPOSITE = {"=~": "!~", "!~": "=~", "!=": "=", "=": "!="}
OTHERS = {">": ("<", ">="), "<": (">", "<="), ">=": ("<", ">"), "<=": (">", "<"), "==": ("!=",)}


def mutants(rule: dict) -> Iterator[tuple[str, dict]]:
    """What was changed, and the rule with it."""
    expression = rule["expr"]
    changes = [*numbers(expression), *durations(expression), *comparisons(expression)]
    changes += [*matchers(expression), *guards(expression)]
    for what, changed in changes:
        if is_valid(changed):
            yield what, {**rule, "expr": changed}
    for key in ("for", "keep_firing_for"):
        if key in rule:
            without = copy.deepcopy(rule)
            duration = without.pop(key)
            yield f"{key} {duration} removed", without
            number, unit = re.fullmatch(r"(\d+)(\w+)", duration).groups()
            yield f"{key} {duration} doubled", {**rule, key: f"{int(number) * 2}{unit}"}


def is_valid(expression: str) -> bool:
    try:
        promql_parser.parse(expression)
    except ValueError:
        return False
    return True


def replaced(expression: str, match: re.Match, group: str, text: str) -> tuple[str, str]:
    begin, end = match.span(group)
    line = " ".join(expression[max(0, begin - 40) : end + 24].split())
    return f"{match[group]} -> {text or 'nothing'} in …{line}…", expression[:begin] + text + expression[end:]


def numbers(expression: str) -> Iterator[tuple[str, str]]:
    for match in NUMBER.finditer(expression):
        if match["number"]:
            number = float(match["number"])
            for other in (number * 2, number / 2) if number else (1,):
                yield replaced(expression, match, "number", f"{other:g}")


def durations(expression: str) -> Iterator[tuple[str, str]]:
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    for match in DURATION.finditer(expression):
        if match["number"]:
            duration = int(match["number"]) * seconds[match["unit"]]
            for other in (duration * 2, duration // 2):
                what, changed = replaced(expression, match, "number", f"{other}")
                begin = match.start("number") + len(str(other))
                yield what, changed[:begin] + "s" + changed[begin + 1 :]


def comparisons(expression: str) -> Iterator[tuple[str, str]]:
    for match in COMPARISON.finditer(expression):
        for other in OTHERS.get(match["operator"], ()):
            yield replaced(expression, match, "operator", other)


def matchers(expression: str) -> Iterator[tuple[str, str]]:
    """Each matcher in braces: without it, its opposite, without one of its alternatives."""
    for braces in re.finditer(r"(?<=\w)\{[^}]*\}", expression):
        for match in MATCHER.finditer(expression, *braces.span()):
            yield replaced(expression, match, 0, "")
            yield replaced(expression, match, "operator", OPPOSITE[match["operator"]])
            alternatives = match["value"][1:-1].split("|")
            for alternative in alternatives if len(alternatives) > 1 else ():
                rest = "|".join(other for other in alternatives if other != alternative)
                yield replaced(expression, match, "value", f'"{rest}"')


def guards(expression: str) -> Iterator[tuple[str, str]]:
    """Each `and`, `or`, `unless` without one of its sides, and each `+`, `-` without its second."""
    sides = {"and": ["lhs"], "unless": ["lhs"], "or": ["lhs", "rhs"], "+": ["lhs"], "-": ["lhs"]}
    tree = promql_parser.parse(expression)
    places: list[promql_parser.BinaryExpr] = []
    promql_parser.walk(tree, lambda node: places.append(node) if isinstance(node, promql_parser.BinaryExpr) else None)
    for place, node in enumerate(places):
        for side in sides.get(str(node.op), ()):
            seen = iter(range(len(places)))

            def only_side(here: promql_parser.Expr) -> promql_parser.Expr | None:
                if isinstance(here, promql_parser.BinaryExpr) and next(seen, None) == place:
                    return getattr(here, side)
                return None

            changed = promql_parser.transform(tree, only_side).prettify()
            gone = node.rhs if side == "lhs" else node.lhs
            yield f"{node.op} without {' '.join(gone.prettify().split())}", changed
