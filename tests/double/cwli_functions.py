"""Scalar functions of Logs Insights, with their arity (CWL_QuerySyntax-operations-functions).

An argument that is absent, or a map or list where text or a number is due, makes the result absent.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass

from cwli_values import Timestamp, number, text


@dataclass(frozen=True)
class Function:
    run: Callable
    least: int
    most: int
    kind: str  # of the result: bool, number, text, time, json or any


MANY = 1000


def textual(run: Callable, least: int, most: int, kind: str = "text") -> Function:
    """A function whose arguments are all texts."""

    def guarded(*values: object) -> object:
        texts = [text(value) for value in values]
        return None if None in texts else run(*texts)

    return Function(guarded, least, most, kind)


def numeric(run: Callable, least: int, most: int) -> Function:
    """A function whose arguments are all numbers."""

    def guarded(*values: object) -> object:
        numbers = [number(value) for value in values]
        return None if None in numbers else run(*numbers)

    return Function(guarded, least, most, "number")


def is_empty(value: object) -> int:
    return int(value is None or value == "")


def is_blank(value: object) -> int:
    return int(value is None or (type(value) is str and not value.strip()))


def json_parse(value: object) -> dict | list | None:
    if type(value) is not str:
        return None
    try:
        parsed = json.loads(value)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict | list) else None


def json_stringify(value: object) -> str | None:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False) if isinstance(value, dict | list) else None


def substring(value: object, start: object, length: object = math.inf) -> str | None:
    whole, first, count = text(value), number(start), number(length)
    if whole is None or first is None or count is None or first < 0 or count < 0:
        return None
    return whole[int(first) :] if count == math.inf else whole[int(first) : int(first + count)]


def to_millis(value: object) -> int | None:
    return int(value) if type(value) is Timestamp else None


def from_millis(value: object) -> Timestamp | None:
    ms = number(value)
    return None if ms is None else Timestamp(ms)


def floor_to(value: object, period: int) -> Timestamp | None:
    return Timestamp(value // period * period) if type(value) is Timestamp else None


def ceil_to(value: object, period: int) -> Timestamp | None:
    return Timestamp(-(-value // period) * period) if type(value) is Timestamp else None


FUNCTIONS: dict[str, Function] = {
    "tomillis": Function(to_millis, 1, 1, "number"),
    "frommillis": Function(from_millis, 1, 1, "time"),
    "isempty": Function(is_empty, 1, 1, "number"),
    "isblank": Function(is_blank, 1, 1, "number"),
    "jsonparse": Function(json_parse, 1, 1, "json"),
    "jsonstringify": Function(json_stringify, 1, 1, "text"),
    "substr": Function(substring, 2, 3, "text"),
    "concat": textual(lambda *parts: "".join(parts), 1, MANY),
    "strlen": textual(len, 1, 1, "number"),
    "toupper": textual(str.upper, 1, 1),
    "tolower": textual(str.lower, 1, 1),
    "trim": textual(str.strip, 1, 2),
    "ltrim": textual(str.lstrip, 1, 2),
    "rtrim": textual(str.rstrip, 1, 2),
    "replace": textual(lambda whole, old, new: whole.replace(old, new) if old else whole, 3, 3),
    "strcontains": textual(lambda whole, part: int(part in whole), 2, 2, "number"),
    "abs": numeric(abs, 1, 1),
    "ceil": numeric(math.ceil, 1, 1),
    "floor": numeric(math.floor, 1, 1),
    "greatest": numeric(max, 1, MANY),
    "least": numeric(min, 1, MANY),
}


def arithmetic(operator: str, left: object, right: object) -> int | float | None:
    """The result of + - * / % ^; absent where an operand is no number or the result is none."""
    a, b = number(left), number(right)
    if a is None or b is None:
        return None
    try:
        result = _ARITHMETIC[operator](a, b)
    except (ZeroDivisionError, OverflowError):
        return None
    return None if isinstance(result, complex) else result


_ARITHMETIC: dict[str, Callable] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "%": math.fmod,
    "^": lambda a, b: a**b,
}
