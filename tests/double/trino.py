"""Trino's own grammar, and the functions of it that the double knows."""

from __future__ import annotations

import functools
import hashlib
import re
from importlib.metadata import version
from pathlib import Path

from antlr4 import CommonTokenStream, InputStream
from antlr4.error.ErrorListener import ErrorListener
from antlr4.tree.Tree import ParseTree
from trino_query_parser.SqlBaseLexer import SqlBaseLexer
from trino_query_parser.SqlBaseParser import SqlBaseParser

LITERALS = re.compile(r"\"(?:[^\"]|\"\")*\"|('(?:[^']|'')*')|(?<![\w.])(\d+)(?![\w.])")

# Functions of Trino that the double can evaluate; keywords of the grammar (coalesce, cast, substring, …) aside.
FUNCTIONS = frozenset(
    """
    abs any_value approx_distinct arbitrary array_agg avg bool_and bool_or cardinality ceil ceiling chr coalesce concat
    contains count count_if date date_add date_diff date_format date_parse date_trunc day day_of_month day_of_week
    element_at ends_with every floor from_iso8601_timestamp from_unixtime greatest hour if json_extract
    json_extract_scalar json_parse least length lower lpad ltrim max max_by min min_by minute mod month now nullif
    quarter regexp_extract regexp_like regexp_replace replace reverse round rpad rtrim second split split_part
    starts_with strpos substr substring sum to_unixtime trim truncate try upper week year row_number rank dense_rank
    lag lead first_value last_value
    """.split()
)


class SqlError(Exception):
    """What Trino says of a statement; `kind` is its error's name, as Athena puts it before the message."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


class _Listener(ErrorListener):
    def syntaxError(self, recognizer, offendingSymbol, line, column, msg, e) -> None:
        said = re.sub(r" expecting .*", ". Expecting: <query>", msg, flags=re.DOTALL)
        raise SqlError("SYNTAX_ERROR", f"line {line}:{column + 1}: {said}")


def check(text: str) -> None:
    """Raises what Trino answers to a statement that is none, is no SELECT, or calls what is no function."""
    normal = LITERALS.sub(lambda found: "'x'" if found[1] else "1" if found[2] else found[0], text)
    if accepted_before(normal):
        return
    try:
        _parse(normal)
        remember_accepted(normal)
    except SqlError:
        _parse.__wrapped__(text)  # for the place of the error, which is that of the real text
        raise


# What the grammar accepted, by hash, for the doubles to come: each test starts its own.
ACCEPTED = Path(__file__).resolve().parents[2] / "target" / "double" / "accepted"


def digest(normal: str) -> str:
    """Of a statement, the grammar, and the code that checks."""
    parts = (normal, version("trino-query-parser"), Path(__file__).read_text(encoding="utf-8"))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@functools.lru_cache(4096)
def accepted_before(normal: str) -> bool:
    try:
        return digest(normal) in ACCEPTED.read_text(encoding="ascii").split()
    except FileNotFoundError:
        return False


def remember_accepted(normal: str) -> None:
    ACCEPTED.parent.mkdir(parents=True, exist_ok=True)
    with open(ACCEPTED, "a", encoding="ascii") as file:
        file.write(digest(normal) + "\n")


@functools.lru_cache(4096)
def _parse(text: str) -> None:
    """Remembered for each statement but its literals: the grammar is slow."""
    lexer = SqlBaseLexer(InputStream(text.upper()))
    parser = SqlBaseParser(CommonTokenStream(lexer))
    for recognizer in (lexer, parser):
        recognizer.removeErrorListeners()
        recognizer.addErrorListener(_Listener())
    tree = parser.singleStatement()
    if not isinstance(tree.statement(), SqlBaseParser.StatementDefaultContext):
        raise SqlError("NOT_SUPPORTED", "line 1:1: only SELECT statements are supported")
    _check_functions(tree)


def _check_functions(tree: ParseTree) -> None:
    if isinstance(tree, SqlBaseParser.FunctionCallContext):
        name = tree.qualifiedName().getText().lower()
        if name.strip('"') not in FUNCTIONS:
            place = f"line {tree.start.line}:{tree.start.column + 1}"
            raise SqlError("FUNCTION_NOT_FOUND", f"{place}: Function '{name}' not registered")
    for child in getattr(tree, "children", None) or ():
        _check_functions(child)
