"""Values of Logs Insights rows: their text, their order, and how two of them compare.

A value is a str, int, float, bool, Timestamp, a map or list from jsonParse, or None where there is none.
"""

import math
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache


class Timestamp(int):
    """Milliseconds since the epoch that show as a date."""

    __slots__ = ()


@dataclass(frozen=True)
class Style:
    """How values become text in a result row; every value there is a string (BC-logs ResultField)."""

    scientific: bool = False
    booleans: tuple[str, str] = ("0", "1")


PLAIN = Style()
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z")
_DIGITS = re.compile(r"-?\d+(\.\d+)?\Z")
_CHUNK = re.compile(r"\d+|\D+")


@lru_cache(maxsize=4096)
def timestamp_text(ms: int) -> str:
    """YYYY-MM-DD HH:MM:SS.mmm, always UTC."""
    when = datetime.fromtimestamp(ms // 1000, timezone.utc)
    return f"{when:%Y-%m-%d %H:%M:%S}.{ms % 1000:03d}"


def text(value: object, style: Style = PLAIN) -> str | None:
    """The text of a value; None for a map or list, which functions of text treat as null (structure types)."""
    kind = type(value)
    if kind is str:
        return value
    if kind is bool:
        return style.booleans[value]
    if kind is Timestamp:
        return timestamp_text(int(value))
    if kind is int or kind is float:
        return number_text(value, style)
    return None


def number_text(value: int | float, style: Style) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if not style.scientific:
        return str(int(value)) if value == int(value) else repr(value)
    mantissa, exponent = f"{value:.15e}".split("e")
    mantissa = mantissa.rstrip("0")
    return f"{mantissa}{'0' if mantissa.endswith('.') else ''}E{int(exponent)}"


def number(value: object) -> int | float | None:
    """The number a value is, or that its text spells."""
    kind = type(value)
    if kind is int or kind is float:
        return value
    if kind is Timestamp or kind is bool:
        return int(value)
    if kind is str and _NUMBER.match(value):
        return float(value) if any(mark in value for mark in ".eE") else int(value)
    return None


def truth(value: object) -> bool:
    return type(value) in (bool, int, float) and bool(value)


def equal(left: object, right: object) -> bool:
    """False where either is absent; a map or list equals nothing (structure types)."""
    if type(left) is str and type(right) is str:
        return left == right
    if left is None or right is None or isinstance(left, dict | list) or isinstance(right, dict | list):
        return False
    if type(left) is bool and type(right) is str:
        return right in (("false", "0"), ("true", "1"))[left]
    a, b = number(left), number(right)
    if a is not None and b is not None:
        return a == b
    return text(left) == text(right)


def less(left: object, right: object, or_equal: bool) -> bool:
    """Numbers by value, two texts by Unicode; otherwise false."""
    a, b = number(left), number(right)
    if a is not None and b is not None:
        return a <= b if or_equal else a < b
    if type(left) is str and type(right) is str:
        return left <= right if or_equal else left < right
    return False


@lru_cache(maxsize=1 << 16)
def _text_order(value: str) -> tuple:
    if _DIGITS.match(value):
        return (2, float(value))
    # Digits sort among other characters as digits do, and among each other by length, then value.
    chunks = ((("0", len(part), part) if part[0].isdigit() else (part, 0, "")) for part in _CHUNK.findall(value))
    return (1, tuple(chunks))


def order(value: object) -> tuple:
    """Key of the natural order of `sort` (CWL_QuerySyntax-Sort): texts, then numbers. Absent first is [U]."""
    kind = type(value)
    if kind is str:
        return _text_order(value)
    if value is None or kind is dict or kind is list:
        return (0,)
    return (2, value)
