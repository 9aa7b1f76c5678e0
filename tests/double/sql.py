"""Statements of CloudTrail Lake and Athena: read as Trino's, run by DuckDB, with Trino's meaning.

Names, types and functions are checked as Trino does; DuckDB alone would take far more.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

import duckdb
import sqlglot
from sqlglot import exp
from sqlglot.errors import OptimizeError, ParseError, TokenError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, traverse_scope

import trino
from trail_tables import TrailTable
from trino import SqlError

STORE_ID = re.compile(
    r"""'(?:[^']|'')*'|"[^"]*"|(?<![\w-])([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})(?![\w-])"""
)
COMPARISONS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE)
KINDS = {
    "varchar": exp.DataType.TEXT_TYPES,
    "number": exp.DataType.NUMERIC_TYPES,
    "timestamp": exp.DataType.TEMPORAL_TYPES,
    "boolean": {exp.DataType.Type.BOOLEAN},
}


@dataclass
class Source:
    """One mention of a table in FROM."""

    table: TrailTable
    placeholder: str  # stands for it in the SQL made for DuckDB
    alias: str
    columns: set[tuple[str, ...]]  # those that the statement reads, fields of structs as paths
    conditions: list[exp.Expression]  # conjuncts of WHERE about this table alone


@dataclass
class Statement:
    """A statement that can be run; `counts` count the rows that pass WHERE."""

    sql: str
    names: list[str]  # of its columns, as written
    sources: list[Source]
    counts: list[str]


def quoted_stores(text: str) -> str:
    """Lake takes an event data store's id bare, which no SQL parser does."""
    return STORE_ID.sub(lambda found: f'"{found[1]}"' if found[1] else found[0], text)


def compile_statement(
    text: str, resolve: Callable[[exp.Table], TrailTable], now_ms: int, time_as_text: bool
) -> Statement:
    """`resolve` finds tables, or raises; `time_as_text` lets a timestamp be compared with text, as Lake does."""
    trino.check(text)
    try:
        tree = sqlglot.parse_one(text, dialect="trino")
    except (ParseError, TokenError) as error:
        raise SqlError("SYNTAX_ERROR", f"line 1:1: {error}") from None
    if not isinstance(tree, exp.Query):
        raise SqlError("NOT_SUPPORTED", "line 1:1: only SELECT statements are supported")
    written = [column_name(item, number) for number, item in enumerate(tree.selects)]
    tables = take_tables(tree, resolve)
    schema = {name: table.schema() for name, table in tables.items()}
    try:
        tree = qualify(tree, dialect="trino", schema=schema, expand_alias_refs=False)
    except OptimizeError as error:
        raise unresolved(text, str(error)) from None
    for having in tree.find_all(exp.Having):  # an alias is known to ORDER BY alone
        for column in having.find_all(exp.Column):
            if not column.table:
                raise not_found(text, column.name)
    tree = annotate_types(tree, schema=schema, dialect="trino")
    sources = find_sources(text, tree, tables)
    check_types(text, tree, time_as_text)
    names = written if len(written) == len(tree.selects) and "*" not in written else expanded(tree, written)
    tree = as_duckdb(tree, now_ms)
    return Statement(sql_of(tree), names, sources, list(counts_of(tree, tables)))


def column_name(item: exp.Expression, number: int) -> str:
    """Aliases and columns have names, and so have fields of structs; the rest is numbered, as Trino does."""
    named = isinstance(item, (exp.Alias, exp.Column, exp.Dot, exp.Star))
    return item.output_name if named else f"_col{number}"


def expanded(tree: exp.Query, written: list[str]) -> list[str]:
    """Names with the columns of a table in place of `*`."""
    spelling = {name.lower(): name for name in written if name != "*"}
    return [spelling.get(item.output_name, item.output_name) for item in tree.selects]


def take_tables(tree: exp.Query, resolve: Callable[[exp.Table], TrailTable]) -> dict[str, TrailTable]:
    """Puts a placeholder in place of each table's name and keeps the name as its alias."""
    views = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    tables: dict[str, TrailTable] = {}
    for table in list(tree.find_all(exp.Table)):
        if not table.name or (not table.db and table.name.lower() in views):
            continue
        placeholder = f"source_{len(tables)}"
        tables[placeholder] = resolve(table)
        # Columns can be called by a table's name; by one that is no plain word nobody does.
        alias = table.alias or (table.name if table.name.isidentifier() else f"rows_{len(tables)}")
        table.set("catalog", None), table.set("db", None)
        table.set("this", exp.to_identifier(placeholder))
        table.set("alias", exp.TableAlias(this=exp.to_identifier(alias, quoted=True)))
    return tables


def unresolved(text: str, said: str) -> SqlError:
    found = re.search(r"Column '?\"?([^'\"]+)", said) or re.search(r"column:? '?\"?([\w.]+)", said, re.IGNORECASE)
    if found is None:
        return SqlError("SYNTAX_ERROR", f"line 1:1: {said}")
    if "mbiguous" in said:
        return SqlError("AMBIGUOUS_NAME", f"{place(text, found[1])}: Column '{found[1]}' is ambiguous")
    return not_found(text, found[1])


def not_found(text: str, name: str) -> SqlError:
    name = name.lower()
    return SqlError("COLUMN_NOT_FOUND", f"{place(text, name)}: Column '{name}' cannot be resolved")


def place(text: str, name: str) -> str:
    """Where a name first stands in a statement, as Trino counts."""
    found = re.search(rf"(?<![\w'.]){re.escape(name)}(?![\w'])", text, re.IGNORECASE)
    at = found.start() if found else 0
    before = text[:at]
    return f"line {before.count(chr(10)) + 1}:{at - before.rfind(chr(10))}"


def find_sources(text: str, tree: exp.Query, tables: dict[str, TrailTable]) -> list[Source]:
    found = []
    for scope in traverse_scope(tree):
        for alias, (_, source) in scope.selected_sources.items():
            if isinstance(source, exp.Table) and source.name in tables:
                table = tables[source.name]
                columns = {path_of(column) for column in scope.columns if column.table == alias}
                for path in columns:
                    check_path(text, table, path)
                found.append(Source(table, source.name, alias, columns, conditions_of(scope, alias)))
    return found


def path_of(column: exp.Column) -> tuple[str, ...]:
    """A column, or the field of it that is read."""
    path, node = [column.name], column
    while isinstance(node.parent, exp.Dot) and node.parent.this is node:
        node = node.parent
        path.append(node.expression.name.lower())
    return tuple(path)


def check_path(text: str, table: TrailTable, path: tuple[str, ...]) -> None:
    """Whether each field is in its struct, which sqlglot does not ask."""
    kind = exp.DataType.build(table.columns[path[0]].type, dialect="trino")
    for field in path[1:]:
        fields = {member.name: member.args.get("kind") for member in kind.expressions}
        if field not in fields:
            raise not_found(text, ".".join(path))
        kind = fields[field]


def conditions_of(scope: Scope, alias: str) -> list[exp.Expression]:
    where = scope.expression.args.get("where")
    if where is None:
        return []
    conjuncts = where.this.flatten() if isinstance(where.this, exp.And) else [where.this]
    alone = []
    for conjunct in conjuncts:
        conjunct = conjunct.unnest()
        columns = list(conjunct.find_all(exp.Column))
        if columns and all(column.table == alias for column in columns) and not conjunct.find(exp.Query):
            alone.append(conjunct)
    return alone


def check_types(text: str, tree: exp.Query, time_as_text: bool) -> None:
    """Trino compares like with like: DuckDB would turn one side into the other."""
    for node in tree.find_all(*COMPARISONS, exp.Between, exp.In):
        if isinstance(node, exp.Between):
            others = [node.args["low"], node.args["high"]]
        elif isinstance(node, exp.In):
            others = node.expressions
        else:
            others = [node.expression]
        for other in others:
            left, right = kind_of(node.this), kind_of(other)
            if left is None or right is None or left == right:
                continue
            if time_as_text and {left, right} == {"timestamp", "varchar"}:
                continue
            column = node.find(exp.Column)
            where = place(text, column.name) if column else "line 1:1"
            raise SqlError("TYPE_MISMATCH", f"{where}: Cannot apply operator: {left} {SIGNS[type(node)]} {right}")
    for node in tree.find_all(exp.Coalesce, exp.Case):
        coalesces = isinstance(node, exp.Coalesce)
        results = [node.this, *node.expressions] if coalesces else [branch.args["true"] for branch in node.args["ifs"]]
        if not coalesces and node.args.get("default"):
            results.append(node.args["default"])
        if len({kind_of(result) for result in results} - {None}) > 1:
            word = "COALESCE operands" if coalesces else "CASE results"
            raise SqlError("TYPE_MISMATCH", f"line 1:1: All {word} must be the same type")


SIGNS = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.Between: "BETWEEN",
    exp.In: "IN",
}


def kind_of(node: exp.Expression) -> str | None:
    for name, types in KINDS.items():
        if node.type is not None and node.type.this in types:
            return name
    return None


def as_duckdb(tree: exp.Query, now_ms: int) -> exp.Query:
    """The same tree with what DuckDB means otherwise put into its terms."""
    now = datetime.fromtimestamp(now_ms / 1000, timezone.utc)

    def change(node: exp.Expression) -> exp.Expression:
        if isinstance(node, exp.Div):
            node.set("typed", False), node.set("safe", False)  # the connection divides as Trino does
        elif isinstance(node, exp.JSONExtractScalar):
            path = node.expression
            literal = exp.Literal.string(path.sql(dialect="trino").strip("'"))
            return exp.Anonymous(this="trino_json_scalar", expressions=[node.this, literal])
        elif isinstance(node, exp.ArgMax):  # where the first argument is NULL counts too
            return exp.Anonymous(this="arg_max_null", expressions=[node.this, node.expression])
        elif isinstance(node, exp.ArgMin):
            return exp.Anonymous(this="arg_min_null", expressions=[node.this, node.expression])
        elif isinstance(node, exp.DateDiff):  # whole units, not boundaries crossed
            unit = exp.Literal.string(node.text("unit"))
            return exp.Anonymous(this="trino_date_diff", expressions=[unit, node.expression, node.this])
        elif isinstance(node, exp.CurrentTimestamp):
            return exp.cast(exp.Literal.string(now.isoformat()), "timestamptz")
        elif isinstance(node, exp.CurrentDate):
            return exp.cast(exp.Literal.string(f"{now:%Y-%m-%d}"), "date")
        return node

    return tree.transform(change, copy=False)


def sql_of(tree: exp.Expression) -> str:
    return tree.sql(dialect="duckdb")


def counts_of(tree: exp.Query, tables: dict[str, TrailTable]):
    """A statement for each SELECT from tables alone that counts what passes its WHERE."""
    for scope in traverse_scope(tree):
        sources = [source for _, source in scope.selected_sources.values()]
        select = scope.expression
        real = all(isinstance(source, exp.Table) and source.name in tables for source in sources)
        if not sources or not real or not isinstance(select, exp.Select):
            continue
        count = exp.select("count(*)")
        for part in ("from_", "from", "joins", "where"):
            if select.args.get(part):
                value = select.args[part]
                count.set(part, [join.copy() for join in value] if part == "joins" else value.copy())
        yield sql_of(count)


def with_tables(sql: str, statement: Statement, conditions: dict[str, str]) -> str:
    """SQL for DuckDB, with the rows of its tables in place of the placeholders."""
    for source in statement.sources:
        rows = source.table.select(conditions[source.table.records.name])
        sql = sql.replace(f'"{source.placeholder}"', rows)
    return sql


@dataclass
class Answer:
    rows: list[tuple]
    types: list[str]  # DuckDB's


def run(base: duckdb.DuckDBPyConnection, sql: str) -> Answer:
    with base.cursor() as cursor:
        try:
            cursor.execute(sql)
            return Answer(cursor.fetchall(), [str(column[1]) for column in cursor.description])
        except duckdb.Error as error:
            raise as_trino(error) from None


def as_trino(error: duckdb.Error) -> SqlError:
    said = str(error).split("\n")[0]
    grouped = re.search(r'column "(\w+)" must appear in the GROUP BY', said)
    if grouped:
        said = f"'{grouped[1]}' must be an aggregate expression or appear in GROUP BY clause"
        return SqlError("EXPRESSION_NOT_AGGREGATE", f"line 1:1: {said}")
    if isinstance(error, duckdb.ConversionException):
        return SqlError("INVALID_CAST_ARGUMENT", said)
    if "Division by zero" in said:
        return SqlError("DIVISION_BY_ZERO", "Division by zero")
    if isinstance(error, (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException)):
        return SqlError("TYPE_MISMATCH", f"line 1:1: {said}")
    return SqlError("GENERIC_USER_ERROR", said)
