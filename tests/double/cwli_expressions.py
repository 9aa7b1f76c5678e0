"""Meaning of expressions: names are resolved, calls are checked, and each becomes a function of a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter

from cwli_functions import FUNCTIONS, arithmetic, ceil_to, floor_to
from cwli_parser import Node, flat
from cwli_values import equal, less, text, truth


@dataclass(frozen=True)
class Options:
    """What the language depends on besides the query."""

    not_equal_absent: bool = False
    literal_in_coalesce: bool = True
    stats_group_cap: int | None = None
    now_ms: int = 0


@dataclass
class Expr:
    run: Callable[[dict], object]
    kind: str  # bool, number, text, time, json, any


@dataclass
class Scope:
    """The names an expression may use at its place in the query."""

    options: Options
    aliases: dict[str, str] = field(default_factory=dict)  # name to kind; after `stats`, all columns
    projected: set[str] = field(default_factory=set)  # names that `fields` has shown
    needs: set[str] = field(default_factory=set)  # fields of the raw events that the query uses
    aggregated: bool = False  # after a `stats`, raw fields are gone

    def column_of(self, node: Node) -> str | None:
        """The column of an earlier command that is spelt like this call, as in `sort count(*)`."""
        wanted = "".join(node.text.split()).lower()
        return next((name for name in self.aliases if "".join(name.split()).lower() == wanted), None)


def compile_expression(node: Node, scope: Scope) -> Expr:
    return _COMPILERS[node.kind](node, scope)


def _literal(node: Node, scope: Scope) -> Expr:
    value = node.value
    return Expr(lambda row: value, "text" if type(value) is str else "number")


def _misplaced(node: Node, scope: Scope) -> Expr:
    raise node.refuse(f"{node.text} has no place here")


def _name(node: Node, scope: Scope) -> Expr:
    parts: list = node.value
    name = flat(parts)
    if name in scope.aliases:
        return Expr(itemgetter(name), scope.aliases[name])
    for length in range(len(parts) - 1, 0, -1):
        prefix = flat(parts[:length])
        if prefix in scope.aliases:
            if scope.aliases[prefix] != "json":
                raise node.refuse(f"{prefix} is not a map or list")
            return Expr(_path(prefix, parts[length:]), "any")
    if scope.aggregated:
        raise node.refuse(f"Unknown symbols found in or after stats: {name}")
    if any(type(part) is int for part in parts):
        raise node.refuse("brackets need a map or list, made by jsonParse")
    scope.needs.add(name)
    return Expr(itemgetter(name), "time" if name in ("@timestamp", "@ingestionTime") else "any")


def _path(alias: str, steps: list) -> Callable[[dict], object]:
    """Access to what jsonParse made: map.key, list[index]."""

    def run(row: dict) -> object:
        value = row[alias]
        for step in steps:
            if type(value) is dict:
                value = value.get(step)
            elif type(value) is list and type(step) is int and step < len(value):
                value = value[step]
            else:
                return None
        return value

    return run


def _not(node: Node, scope: Scope) -> Expr:
    inner = _boolean(node.args[0], scope)
    return Expr(lambda row: not inner(row), "bool")


def _boolean(node: Node, scope: Scope) -> Callable[[dict], object]:
    """An operand of and, or, not: these take what is true or false."""
    expr = compile_expression(node, scope)
    if expr.kind == "bool":
        return expr.run
    if expr.kind in ("any", "number") and node.kind != "literal":
        return lambda row: truth(expr.run(row))
    raise node.refuse(f"{node.text} is neither true nor false")


def condition(node: Node, scope: Scope) -> Callable[[dict], object]:
    return _boolean(node, scope)


def _negate(node: Node, scope: Scope) -> Expr:
    inner = compile_expression(node.args[0], scope).run
    return Expr(lambda row: arithmetic("-", 0, inner(row)), "number")


def _binary(node: Node, scope: Scope) -> Expr:
    operator = node.value
    if operator in ("and", "or"):
        a, b = _boolean(node.args[0], scope), _boolean(node.args[1], scope)
        if operator == "and":
            return Expr(lambda row: bool(a(row) and b(row)), "bool")
        return Expr(lambda row: bool(a(row) or b(row)), "bool")
    left, right = (compile_expression(arg, scope).run for arg in node.args)
    if operator in ("=", "!=", "<", "<=", ">", ">="):
        return Expr(_comparison(operator, left, right, scope.options.not_equal_absent), "bool")
    return Expr(lambda row: arithmetic(operator, left(row), right(row)), "number")


def _comparison(operator: str, left: Callable, right: Callable, not_equal_absent: bool) -> Callable:
    if operator == "=":
        return lambda row: equal(left(row), right(row))
    if operator == "!=":

        def differs(row: dict) -> bool:
            a, b = left(row), right(row)
            return not_equal_absent if a is None or b is None else not equal(a, b)

        return differs
    or_equal = operator.endswith("=")
    if operator.startswith("<"):
        return lambda row: less(left(row), right(row), or_equal)
    return lambda row: less(right(row), left(row), or_equal)


def _in(node: Node, scope: Scope) -> Expr:
    value = compile_expression(node.args[0], scope).run
    literals = [literal.value for literal in node.args[1:]]
    texts = frozenset(literal for literal in literals if type(literal) is str)

    def run(row: dict) -> bool:
        found = value(row)
        return (
            found in texts
            if type(found) is str and len(texts) == len(literals)
            else any(equal(found, literal) for literal in literals)
        )

    return Expr(run, "bool")


def _match(node: Node, scope: Scope) -> Expr:
    """`like` and `=~`: a regular expression found anywhere, or a text contained (CWL_QuerySyntax-Filter)."""
    value = compile_expression(node.args[0], scope).run
    pattern = node.args[1]
    if pattern.kind == "regex":
        search = pattern.value.search
        return Expr(lambda row: (found := text(value(row))) is not None and search(found) is not None, "bool")
    part = pattern.value
    return Expr(lambda row: (found := text(value(row))) is not None and part in found, "bool")


def _call(node: Node, scope: Scope) -> Expr:
    if scope.aggregated and (column := scope.column_of(node)) is not None:
        return Expr(itemgetter(column), scope.aliases[column])
    name: str = node.value
    if name in _SPECIAL:
        return _SPECIAL[name](node, scope)
    function = FUNCTIONS.get(name)
    if function is None:
        raise node.refuse(f"Invalid function name: {node.token.text}")
    check_arity(node, function.least, function.most)
    args = [compile_expression(arg, scope) for arg in node.args]
    if name == "tomillis" and args[0].kind not in ("time", "any"):
        raise node.refuse("toMillis takes a timestamp")
    run = function.run
    if len(args) == 1:
        only = args[0].run
        return Expr(lambda row: run(only(row)), function.kind)
    runs = [arg.run for arg in args]
    return Expr(lambda row: run(*[arg(row) for arg in runs]), function.kind)


def check_arity(node: Node, least: int, most: int) -> None:
    if not least <= len(node.args) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise node.refuse(f"{node.token.text} takes {wanted} arguments, not {len(node.args)}")


def _is_present(node: Node, scope: Scope) -> Expr:
    check_arity(node, 1, 1)
    if node.args[0].kind != "name":
        raise node.refuse("ispresent takes the name of a field")
    value = compile_expression(node.args[0], scope).run
    return Expr(lambda row: value(row) is not None, "bool")


def _coalesce(node: Node, scope: Scope) -> Expr:
    check_arity(node, 1, 1000)
    for arg in node.args:
        # The page types the arguments as LogField; a literal is [U].
        if arg.kind == "literal" and not scope.options.literal_in_coalesce:
            raise arg.refuse("coalesce takes names of fields")
    runs = [compile_expression(arg, scope).run for arg in node.args]

    def run(row: dict) -> object:
        for arg in runs:
            value = arg(row)
            if value is not None:
                return value
        return None

    return Expr(run, "any")


def _if(node: Node, scope: Scope) -> Expr:
    check_arity(node, 3, 3)
    test = _boolean(node.args[0], scope)
    then, otherwise = (compile_expression(arg, scope).run for arg in node.args[1:])
    return Expr(lambda row: then(row) if test(row) else otherwise(row), "any")


def _now(node: Node, scope: Scope) -> Expr:
    check_arity(node, 0, 0)
    seconds = scope.options.now_ms // 1000
    return Expr(lambda row: seconds, "number")


def _period(node: Node) -> int:
    if node.kind != "period":
        raise node.refuse("a period is a number and a unit, like 5m")
    return node.value


def _bin(node: Node, scope: Scope) -> Expr:
    """`bin` always means @timestamp, also where an earlier `stats` has let go of it (then it is an error)."""
    check_arity(node, 1, 1)
    period = _period(node.args[0])
    if scope.aggregated:
        raise node.refuse("Unknown symbols found in or after stats: @timestamp")
    scope.needs.add("@timestamp")
    return Expr(lambda row: floor_to(row["@timestamp"], period), "time")


def _rounding(run: Callable) -> Callable:
    def compiled(node: Node, scope: Scope) -> Expr:
        check_arity(node, 2, 2)
        value = compile_expression(node.args[0], scope)
        if value.kind not in ("time", "any"):
            raise node.refuse(f"{node.token.text} takes a timestamp")
        period = _period(node.args[1])
        return Expr(lambda row: run(value.run(row), period), "time")

    return compiled


_SPECIAL = {
    "ispresent": _is_present,
    "coalesce": _coalesce,
    "if": _if,
    "now": _now,
    "bin": _bin,
    "datefloor": _rounding(floor_to),
    "dateceil": _rounding(ceil_to),
}
_COMPILERS = {
    "literal": _literal,
    "period": _misplaced,
    "regex": _misplaced,
    "star": _misplaced,
    "name": _name,
    "not": _not,
    "negate": _negate,
    "binary": _binary,
    "in": _in,
    "match": _match,
    "call": _call,
}
