"""Tokens of the Logs Insights query language, and the refusal that every part of the language raises."""

import re
from dataclasses import dataclass


class Refused(Exception):
    """The query is malformed; offsets are characters of the query string (BC-logs QueryCompileError)."""

    def __init__(self, message: str, start: int = 0, end: int = 0) -> None:
        super().__init__(message)
        self.message, self.start, self.end = message, start, end


@dataclass
class Token:
    kind: str  # name, number, string, regex, period, operator, end
    text: str  # as written
    start: int
    value: object = None  # of a name: its parts; of a literal: the literal; of a period: its milliseconds

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    @property
    def word(self) -> str:
        """The lower-case keyword this may be; AWS's pages write commands and functions in either case."""
        return self.text.lower() if self.kind == "name" else ""

    def refuse(self, message: str) -> Refused:
        return Refused(message, self.start, max(self.start, self.end - 1))


# Page of `bin` (CWL_QuerySyntax-Stats): units, and the plural of every abbreviation of more than one letter.
# Milliseconds and the cap; day and week have none. Month and longer are refused: a limit of the double.
UNITS = {
    ("millisecond", "ms", "msec"): (1, 1000),
    ("second", "s", "sec"): (1000, 60),
    ("minute", "m", "min"): (60_000, 60),
    ("hour", "h", "hr"): (3_600_000, 24),
    ("day", "d"): (86_400_000, None),
    ("week", "w"): (604_800_000, None),
}

# CWL_QuerySyntax-Guidelines: letters, digits, @ and . need no backticks. An underscore is in AWS's own samples.
_SEGMENT = r"(?:[A-Za-z_@][A-Za-z0-9_@]*|`[^`\n]+`)"
_NAME = re.compile(rf"{_SEGMENT}(?:\.(?:[A-Za-z0-9_@]+|`[^`\n]+`)|\[\d+\])*")
_PART = re.compile(r"`([^`]+)`|\[(\d+)\]|([A-Za-z0-9_@]+)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![A-Za-z0-9_@.])")
_PERIOD = re.compile(r"(\d+)([A-Za-z]+)(?![A-Za-z0-9_@.])")
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'')
_REGEX = re.compile(r"/((?:[^/\\\n]|\\.)+)/")
_OPERATOR = re.compile(r"!=|<=|>=|=~|[=<>+\-*/%^(),|\[\]]")
_BLANK = re.compile(r"(?:\s+|#[^\n]*)+")


def tokens(query: str) -> list[Token]:
    """All tokens of `query`, and one of kind "end"."""
    found: list[Token] = []
    at = 0
    while True:
        if blank := _BLANK.match(query, at):
            at = blank.end()
        if at == len(query):
            return [*found, Token("end", "", at)]
        token = _next(query, at, found[-1] if found else None)
        found.append(token)
        at = token.end


def _next(query: str, at: int, previous: Token | None) -> Token:
    here = query[at]
    after_match = previous is not None and (previous.word == "like" or previous.text == "=~")
    if here == "/" and after_match:
        return _regex(query, at)
    if here in "\"'":
        return _string(query, at)
    if here.isdigit():
        return _number(query, at)
    if match := _NAME.match(query, at):
        return _name(query, match)
    if match := _OPERATOR.match(query, at):
        return Token("operator", match[0], at)
    raise Refused(f"unexpected symbol found {here}", at, at)


def _name(query: str, match: re.Match) -> Token:
    end = match.end()
    # `a-b` would be read as a subtraction of two fields; nobody who writes it means that.
    if re.match(r"-[A-Za-z_]", query[end:]) or (
        end < len(query) and query[end] in "$:\\!?;{}~&`." and not query.startswith("!=", end)
    ):
        raise Refused(f"a name with the character {query[end]} needs backticks", match.start(), end)
    parts = [ticked or (int(index) if index else plain) for ticked, index, plain in _PART.findall(match[0])]
    return Token("name", match[0], match.start(), parts)


def _number(query: str, at: int) -> Token:
    if match := _PERIOD.match(query, at):
        return Token("period", match[0], at, period_ms(match))
    if match := _NUMBER.match(query, at):
        value = float(match[0]) if any(mark in match[0] for mark in ".eE") else int(match[0])
        return Token("number", match[0], at, value)
    raise Refused(f"unexpected symbol found {query[at]}", at, at)


def period_ms(match: re.Match) -> int:
    """Milliseconds of a period, silently capped by its unit: 300s is 60 s (CWL_QuerySyntax-operations-functions)."""
    count, unit = int(match[1]), match[2].lower()
    for names, (factor, cap) in UNITS.items():
        if unit in names or (unit.endswith("s") and unit[:-1] in names and len(unit) > 2):
            if count == 0:
                raise Refused("a period cannot be zero", match.start(), match.end() - 1)
            return factor * (count if cap is None else min(count, cap))
    raise Refused(f"unknown unit of time {match[2]}", match.start(), match.end() - 1)


def _string(query: str, at: int) -> Token:
    match = _STRING.match(query, at)
    if match is None:
        raise Refused("unterminated string", at, len(query) - 1)
    body = match[0][1:-1]
    # Only the escapes without which a string could not hold its quote are known to mean what they say; other
    # escapes are [U] and refused.
    if bad := re.search(r"\\[^\\\"']", re.sub(r"\\\\", "__", body)):
        raise Refused(f"unknown escape {bad[0]}", at, match.end() - 1)
    return Token("string", match[0], at, re.sub(r"\\(.)", r"\1", body))


def _regex(query: str, at: int) -> Token:
    match = _REGEX.match(query, at)
    if match is None:
        raise Refused("unterminated regular expression", at, len(query) - 1)
    try:
        return Token("regex", match[0], at, re.compile(match[1].replace(r"\/", "/")))
    except re.error as error:
        raise Refused(f"invalid regular expression: {error}", at, match.end() - 1) from None
