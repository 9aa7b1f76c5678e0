"""What a statement scans: partitions that its WHERE keeps, and of columnar tables only the columns it reads."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
from sqlglot import exp

from sql import Source, Statement, run, sql_of

FLIPPED = {exp.GT: exp.LT, exp.GTE: exp.LTE, exp.LT: exp.GT, exp.LTE: exp.GTE, exp.EQ: exp.EQ}


@dataclass
class Scanned:
    events: int
    bytes: int


def scanned(base: duckdb.DuckDBPyConnection, statement: Statement, conditions: dict[str, str], prunes: str) -> Scanned:
    """Of all tables of a statement; `conditions` tell which of their records can be read at all."""
    total = Scanned(0, 0)
    for source in statement.sources:
        kept = pruning(source, prunes)
        rows = source.table.select(conditions[source.table.records.name])
        sql = f'SELECT count(*), sum({weight(source)}) FROM {rows} AS "{source.alias}"'
        if kept:
            sql += f" WHERE {' AND '.join(kept)}"
        events, size = run(base, sql).rows[0]
        total.events += events
        total.bytes += int(size or 0)
    return total


def weight(source: Source) -> str:
    """SQL of the bytes that are read of one record: all of it in a file, the text of its columns in Lake."""
    if source.table.layout != "lake":
        return f'"{source.alias}"."$bytes"'
    texts = [f"coalesce(strlen(CAST({column_sql(source, path)} AS VARCHAR)), 0)" for path in tops(source.columns)]
    return " + ".join(texts) or "0"


def tops(columns: set[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Without the fields of a struct that is read as a whole."""
    return sorted(path for path in columns if not any(path[:size] in columns for size in range(1, len(path))))


def column_sql(source: Source, path: tuple[str, ...]) -> str:
    return ".".join(f'"{part}"' for part in (source.alias, *path))


def pruning(source: Source, prunes: str) -> list[str]:
    """The conditions that spare partitions: those on partition columns alone, or Lake's bounds of eventTime."""
    if source.table.layout == "lake":
        return [condition for given in source.conditions for condition in time_bounds(source, given, prunes)]
    partitions = source.table.partitions
    return [
        f"({sql_of(given)})"
        for given in source.conditions
        if {column.name for column in given.find_all(exp.Column)} <= partitions
    ]


def time_bounds(source: Source, given: exp.Expression, prunes: str) -> list[str]:
    """Of a comparison of eventTime with a constant: itself, or the UTC days that it leaves; and of such that are joined
    by AND and OR, as long as each side of an OR bounds it."""
    if isinstance(given, exp.Or):
        sides = [" AND ".join(time_bounds(source, side, prunes)) for side in (given.left, given.right)]
        return [f"(({sides[0]}) OR ({sides[1]}))"] if all(sides) else []
    if isinstance(given, exp.And):
        return time_bounds(source, given.left, prunes) + time_bounds(source, given.right, prunes)
    if isinstance(given, exp.Paren):
        return time_bounds(source, given.this, prunes)
    bounds = []
    if isinstance(given, exp.Between):
        low, high = given.args["low"], given.args["high"]
        comparisons = [(exp.GTE, given.this, low), (exp.LTE, given.this, high)]
    elif type(given) in FLIPPED:
        comparisons = [
            (type(given), given.this, given.expression),
            (FLIPPED[type(given)], given.expression, given.this),
        ]
    else:
        return []
    for kind, column, constant in comparisons:
        if isinstance(column, exp.Column) and column.name == "eventtime" and constant.find(exp.Column) is None:
            value = f"CAST({sql_of(constant)} AS TIMESTAMP)"
            bounds += [bound(column_sql(source, ("eventtime",)), kind, value, prunes)]
    return bounds


def bound(column: str, kind: type, value: str, prunes: str) -> str:
    if prunes == "time":
        return f"{column} {SIGNS[kind]} {value}"
    first = f"{column} >= date_trunc('day', {value})"
    if kind in (exp.GT, exp.GTE):
        return first
    last = f"{value} - INTERVAL 1 MICROSECOND" if kind is exp.LT else value
    last = f"{column} < date_trunc('day', {last}) + INTERVAL 1 DAY"
    return last if kind is not exp.EQ else f"{first} AND {last}"


SIGNS = {exp.GT: ">", exp.GTE: ">=", exp.LT: "<", exp.LTE: "<=", exp.EQ: "="}


def held_columns(base: duckdb.DuckDBPyConnection, statement: Statement, known: dict) -> int:
    """What the same columns weigh over all records of the tables; `known` remembers it until records are added."""
    total = 0
    for source in statement.sources:
        records = source.table.records
        key = (records.name, records.count, source.table.layout, frozenset(source.columns))
        if key not in known:
            sql = f'SELECT sum({weight(source)}) FROM {source.table.select("true")} AS "{source.alias}"'
            known[key] = int(run(base, sql).rows[0][0] or 0)
        total += known[key]
    return total
