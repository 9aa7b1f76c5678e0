"""Expressions as trees: what is selected, under which functions, and which labels come out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import promql_parser as parser
from promql_parser import (
    AggregateExpr,
    BinaryExpr,
    Call,
    MatrixSelector,
    ParenExpr,
    SubqueryExpr,
    UnaryExpr,
    VectorSelector,
)

parse = parser.parse
AGGREGATED_BY = parser.AggModifierType.By


@dataclass(frozen=True)
class Selected:
    name: str
    matchers: list[tuple[str, str, str]]  # label, operator, value
    above: list  # from the outermost expression to the one that holds this selector

    @property
    def ranged(self) -> bool:
        return isinstance(self.above[-1], MatrixSelector) if self.above else False

    @property
    def function(self) -> str | None:
        """The function that the range is given to, directly."""
        holder = self.above[-2] if self.ranged and len(self.above) > 1 else None
        return holder.func.name if isinstance(holder, Call) else None


OPERATORS = [
    (parser.MatchOp.Equal, "="),
    (parser.MatchOp.NotEqual, "!="),
    (parser.MatchOp.Re, "=~"),
    (parser.MatchOp.NotRe, "!~"),
]


def inner(expr) -> list:
    if isinstance(expr, BinaryExpr):
        return [expr.lhs, expr.rhs]
    if isinstance(expr, (AggregateExpr, ParenExpr, UnaryExpr, SubqueryExpr)):
        return [expr.expr]
    if isinstance(expr, Call):
        return list(expr.args)
    if isinstance(expr, MatrixSelector):
        return [expr.vector_selector]
    return []


def walk(expr, above: tuple = ()) -> Iterator[tuple[object, tuple]]:
    yield expr, above
    for child in inner(expr):
        yield from walk(child, (*above, expr))


def selected(expr) -> list[Selected]:
    return [
        Selected(
            name=node.name,
            matchers=[(matcher.name, operator(matcher), matcher.value) for matcher in node.matchers.matchers],
            above=list(above),
        )
        for node, above in walk(expr)
        if isinstance(node, VectorSelector)
    ]


def operator(matcher) -> str:
    return next(sign for kind, sign in OPERATORS if kind == matcher.op)


def aggregations(expr) -> list[AggregateExpr]:
    return [node for node, _ in walk(expr) if isinstance(node, AggregateExpr)]


def matched_on(expr) -> Iterator[set[str]]:
    """The labels of every `on (…)` or `ignoring (…)`."""
    for node, _ in walk(expr):
        if isinstance(node, BinaryExpr) and node.modifier and node.modifier.matching:
            yield set(node.modifier.matching.labels)


def divisions(expr) -> list[BinaryExpr]:
    return [node for node, _ in walk(expr) if isinstance(node, BinaryExpr) and str(node.op).split()[0] == "/"]


def labels(expr, of_family: Callable[[str], set[str]]) -> set[str] | None:
    """The labels that the result may have; None is a scalar."""
    if isinstance(expr, VectorSelector):
        return of_family(expr.name)
    if isinstance(expr, (MatrixSelector, ParenExpr, UnaryExpr, SubqueryExpr)):
        return labels(inner(expr)[0], of_family)
    if isinstance(expr, AggregateExpr):
        return set(expr.modifier.labels) if expr.modifier else set()
    if isinstance(expr, Call):
        if expr.func.name == "vector":
            return set()
        vectors = [found for found in (labels(arg, of_family) for arg in expr.args) if found is not None]
        if not vectors:
            return None
        return vectors[0] - {"le"} if expr.func.name == "histogram_quantile" else vectors[0]
    if isinstance(expr, BinaryExpr):
        left, right = labels(expr.lhs, of_family), labels(expr.rhs, of_family)
        if left is None or right is None:
            return right if left is None else left
        if str(expr.op).split()[0] == "or":
            return left | right
        modifier = expr.modifier
        if modifier and modifier.card == parser.VectorMatchCardinality.OneToOne and modifier.matching:
            return set(modifier.matching.labels)
        return left | set(modifier.group_labels or []) if modifier else left
    return None
