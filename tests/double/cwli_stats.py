"""The `stats` command: aggregate functions (CWL_QuerySyntax-Stats) and grouping."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from cwli_expressions import Expr, Scope, check_arity, compile_expression
from cwli_parser import Command, Item, Node
from cwli_values import number, order, text


def _numbers(values: list) -> list:
    return [found for value in values if (found := number(value)) is not None]


def _sum(values: list) -> object:
    numbers = _numbers(values)
    return sum(numbers) if numbers else None


def _avg(values: list) -> object:
    numbers = _numbers(values)
    return sum(numbers) / len(numbers) if numbers else None


def _stddev(values: list) -> object:
    """Of the population; whether AWS divides by n or n-1 is [U]."""
    numbers = _numbers(values)
    if not numbers:
        return None
    mean = sum(numbers) / len(numbers)
    return math.sqrt(sum((value - mean) ** 2 for value in numbers) / len(numbers))


def _first(values: list) -> object:
    return min(values, key=order, default=None)


def _last(values: list) -> object:
    return max(values, key=order, default=None)


# Each takes the values that are present, in one group.
AGGREGATES: dict[str, Callable[[list], object]] = {
    "sum": _sum,
    "avg": _avg,
    "stddev": _stddev,
    "min": _first,
    "max": _last,
    "sortsfirst": _first,
    "sortslast": _last,
    "count_distinct": lambda values: len({text(value) for value in values}),  # exact; AWS's may be approximate
}
NAMES = {*AGGREGATES, "count", "pct", "latest", "earliest"}


def _values(node: Node, scope: Scope) -> Callable[[list], list]:
    """The present values of an argument over the rows of a group."""
    expr = compile_expression(node, scope)
    if expr.kind == "json":
        raise node.refuse("a map or list cannot be aggregated")
    run = expr.run
    return lambda rows: [
        value for row in rows if (value := run(row)) is not None and type(value) is not dict and type(value) is not list
    ]


def _aggregate(node: Node, scope: Scope) -> Expr:
    name: str = node.value
    if name == "count":
        return _count(node, scope)
    if name == "pct":
        return _pct(node, scope)
    check_arity(node, 1, 1)
    values = _values(node.args[0], scope)
    if name in ("latest", "earliest"):
        return _by_time(node, scope)
    run = AGGREGATES[name]
    kind = compile_expression(node.args[0], scope).kind if name in ("min", "max") else "any"
    return Expr(lambda rows: run(values(rows)), kind)


def _count(node: Node, scope: Scope) -> Expr:
    check_arity(node, 0, 1)
    if not node.args or node.args[0].kind == "star":
        return Expr(len, "number")
    values = _values(node.args[0], scope)
    return Expr(lambda rows: len(values(rows)), "number")


def _pct(node: Node, scope: Scope) -> Expr:
    """Percentile by interpolation between the two nearest values; AWS's own method is [U]."""
    check_arity(node, 2, 2)
    percent = node.args[1].value
    if node.args[1].kind != "literal" or type(percent) is str or not 0 <= percent <= 100:
        raise node.refuse("pct takes a number from 0 to 100")
    values = _values(node.args[0], scope)

    def run(rows: list) -> object:
        numbers = sorted(_numbers(values(rows)))
        if not numbers:
            return None
        place = (len(numbers) - 1) * percent / 100
        low, high = numbers[math.floor(place)], numbers[math.ceil(place)]
        return low + (high - low) * (place - math.floor(place))

    return Expr(run, "number")


def _by_time(node: Node, scope: Scope) -> Expr:
    """latest and earliest: the value in the event with the last or first @timestamp that has one."""
    if scope.aggregated:
        raise node.refuse("Unknown symbols found in or after stats: @timestamp")
    scope.needs.add("@timestamp")
    value = compile_expression(node.args[0], scope).run
    choose = max if node.value == "latest" else min

    def run(rows: list) -> object:
        present = [row for row in rows if value(row) is not None]
        return value(choose(present, key=lambda row: row["@timestamp"])) if present else None

    return Expr(run, "any")


@dataclass
class Column:
    """One column that `stats` makes: from a row of the group if a key, else from all its rows."""

    name: str
    expr: Expr


def _calls(node: Node, scope: Scope, inner: Scope, found: dict[str, Callable]) -> Node:
    """`node` with each aggregate call replaced by a name of `inner`, under which `found` computes it."""
    if node.kind == "call" and node.value in NAMES:
        expr = _aggregate(node, scope)
        name = f"{len(found)} {node.text}"
        found[name] = expr.run
        inner.aliases[name] = expr.kind
        return Node("name", node.token, node.text, [name])
    args = [_calls(arg, scope, inner, found) for arg in node.args]
    return Node(node.kind, node.token, node.text, node.value, args)


def _aggregated(item: Item, scope: Scope) -> Column:
    inner = Scope(scope.options, aggregated=True)
    found: dict[str, Callable] = {}
    node = _calls(item.node, scope, inner, found)
    if not found:
        raise item.node.refuse(f"{item.node.text} is no aggregate function")
    expr = compile_expression(node, inner)
    outer = expr.run
    calls = list(found.items())
    if len(calls) == 1 and node.kind == "name":
        return Column(item.alias or item.node.column, Expr(calls[0][1], expr.kind))
    return Column(
        item.alias or item.node.column,
        Expr(lambda rows: outer({name: run(rows) for name, run in calls}), expr.kind),
    )


def _key(item: Item, scope: Scope) -> Column:
    if item.node.kind not in ("name", "call"):
        raise item.node.refuse("stats groups by fields or functions of them")
    if item.node.kind == "call" and item.node.value in NAMES and scope.column_of(item.node) is None:
        raise item.node.refuse("stats cannot group by an aggregate function")
    expr = compile_expression(item.node, scope)
    if expr.kind == "json":
        # Structure types: "Using map and list in dedup, pattern, sort, and stats isn't supported".
        raise item.node.refuse(f"{item.node.text} is a map or list, stats cannot group by it")
    return Column(item.alias or item.node.column, expr)


def compile_stats(command: Command, scope: Scope) -> tuple[Callable[[list], list], list[Column], int]:
    """What turns rows into groups, its columns, and how many of these are keys (they come first)."""
    keys = [_key(item, scope) for item in command.by]
    columns = keys + [_aggregated(item, scope) for item in command.items]
    _check_aliases(command, scope, [column.name for column in columns])
    key_runs = [column.expr.run for column in keys]
    values = [(column.name, column.expr.run) for column in columns[len(keys) :]]
    key_names = [column.name for column in keys]
    cap = scope.options.stats_group_cap

    def run(rows: list) -> list:
        answer = []
        for key, members in _group(rows, key_runs)[:cap]:
            made = dict(zip(key_names, key, strict=True))
            for name, value in values:
                made[name] = value(members)
            answer.append(made)
        return answer

    return run, columns, len(keys)


def _group(rows: list, key_runs: list[Callable]) -> list[tuple[tuple, list]]:
    """Keys and their rows; values other than text group by their text, as that is all a result will show."""
    groups: dict[tuple, tuple[tuple, list]] = {}
    for row in rows:
        key = tuple([run(row) for run in key_runs])
        plain = tuple([value if value is None or type(value) is str else text(value) for value in key])
        group = groups.get(plain)
        if group is None:
            groups[plain] = group = (tuple([None if text(value) is None else value for value in key]), [])
        group[1].append(row)
    return list(groups.values())


def _check_aliases(command: Command, scope: Scope, names: list[str]) -> None:
    """An alias that is spelt like a name already there makes stats fail: trade-tariff-backend pull 3465.

    That an alias may be spelt like a raw field that the query uses without showing it is [U], so it is refused.
    """
    used = scope.projected | set(scope.aliases) | scope.needs
    for item in [*command.by, *command.items]:
        if item.alias is not None and item.alias in used:
            raise item.alias_token.refuse(f"Unknown symbols found in or after stats: {item.alias}")
    for name in names:
        if names.count(name) > 1:
            raise command.token.refuse(f"Unknown symbols found in or after stats: {name}")
