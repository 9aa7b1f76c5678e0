"""A Logs Insights query, compiled: commands are checked in their order and become steps over rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cwli_expressions import Options, Scope, compile_expression, condition
from cwli_lexer import Refused
from cwli_parser import Command, Item, parse
from cwli_stats import compile_stats
from cwli_values import order, text

__all__ = ["Options", "Outcome", "Program", "Refused", "compile_query"]

QUERY_CHARACTERS = 10_000  # BC-logs StartQuery queryString
STATS_COMMANDS = 2  # CWL_QuerySyntax-Stats
Step = Callable[[list], list]


@dataclass
class Outcome:
    """Rows as dictionaries, and how many events had passed the filters before anything else was done."""

    rows: list[dict]
    matched: int


@dataclass
class Program:
    needs: set[str]  # fields that the rows of raw events must have
    columns: list[str]  # of the result, in order
    keys: set[str]  # the columns by which the last `stats` groups
    aggregated: bool
    limit: int | None  # of the last `limit` command, if rows are not aggregated after it
    steps: list[tuple[str, Step]]

    def run(self, rows: list[dict]) -> Outcome:
        """Runs over events, newest first: the order of results that nothing sorts (CWL_QuerySyntax-Dedup)."""
        matched, filtering = len(rows), True
        for name, step in self.steps:
            filtering = filtering and name in ("filter", "fields", "display")
            rows = step(rows)
            if filtering:
                matched = len(rows)
        return Outcome(rows, matched)


class Compiler:
    """Goes through the commands; what earlier ones defined decides what later ones may use."""

    def __init__(self, options: Options) -> None:
        self.scope = Scope(options)
        self.columns: list[str] = []
        self.keys: set[str] = set()
        self.stats_seen = 0
        self.ordered_by: Command | None = None
        self.deduplicated = False
        self.row_limit: int | None = None

    def compile(self, commands: list[Command]) -> Program:
        steps = [(command.name, self.step(command)) for command in commands]
        aggregated = self.stats_seen > 0
        if not self.columns:
            self.columns = ["@timestamp", "@message"]  # what the console shows without `fields`
        needs = self.scope.needs
        if not aggregated:
            needs |= {"@ptr"} | {name for name in self.columns if name.startswith("@")} - set(self.scope.aliases)
        return Program(needs, self.columns, self.keys, aggregated, self.row_limit, steps)

    def step(self, command: Command) -> Step:
        if self.deduplicated and command.name != "limit":
            raise command.token.refuse("only limit may follow dedup")  # CWL_QuerySyntax-Dedup
        return STEPS[command.name](self, command)

    def fields(self, command: Command) -> Step:
        """Adds to what is shown; raw fields that are not shown can still be used by later commands."""
        made: list[tuple[str, Callable]] = []
        for item in command.items:
            self.check_same_command(item, [name for name, _ in made])
            expr = compile_expression(item.node, self.scope)
            name = item.alias or item.node.column
            self.check_alias(item)
            computed = item.alias is not None or item.node.kind != "name" or name not in self.scope.needs
            if computed and name not in self.scope.aliases:
                made.append((name, expr.run))
                self.scope.aliases[name] = expr.kind
            self.scope.projected.add(name)
            if name not in self.columns:
                self.columns.append(name)
        return lambda rows: extended(rows, made)

    def check_same_command(self, item: Item, made: list[str]) -> None:
        """Whether an alias can be used within the command that makes it is [U]; refused."""
        for node in item.node.names():
            if any(node.column == alias or node.column.startswith(alias + ".") for alias in made):
                raise node.refuse(f"{node.column} is used in the command that makes it")

    def check_alias(self, item: Item) -> None:
        """Shadowing makes a later stats fail (trade-tariff-backend pull 3465); without stats it is [U], refused."""
        if item.alias is not None and (item.alias in self.scope.projected or item.alias in self.scope.aliases):
            raise item.alias_token.refuse(f"Unknown symbols found in or after stats: {item.alias}")

    def display(self, command: Command) -> Step:
        """The last `display` alone says what is shown (CWL_QuerySyntax-Display)."""
        self.columns = []
        return self.fields(command)

    def filter(self, command: Command) -> Step:
        test = condition(command.items[0].node, self.scope)
        return lambda rows: [row for row in rows if test(row)]

    def stats(self, command: Command) -> Step:
        self.stats_seen += 1
        if self.stats_seen > STATS_COMMANDS:
            raise command.token.refuse(f"a query can have {STATS_COMMANDS} stats commands")
        if self.stats_seen == 2 and self.ordered_by is not None:
            raise self.ordered_by.token.refuse(f"{self.ordered_by.name} must follow the second stats")
        run, columns, keys = compile_stats(command, self.scope)
        scope = Scope(self.scope.options, needs=self.scope.needs, aggregated=True)
        scope.aliases = {column.name: column.expr.kind for column in columns}
        scope.projected = set(scope.aliases)
        self.scope = scope
        # Group keys come first in rows, as the console shows them; the order on the wire is [U].
        self.columns = [column.name for column in columns]
        self.keys = set(self.columns[:keys])
        self.row_limit = None
        return run

    def sort(self, command: Command) -> Step:
        self.ordered_by = command
        keys = []
        for item in command.items:
            expr = compile_expression(item.node, self.scope)
            if expr.kind == "json":
                raise item.node.refuse("a map or list cannot be sorted by")  # structure types
            keys.append((expr.run, item.descending))
        return lambda rows: in_order(rows, keys)

    def limit(self, command: Command) -> Step:
        self.ordered_by = command
        self.row_limit = command.count
        return lambda rows: rows[: command.count]

    def dedup(self, command: Command) -> Step:
        self.deduplicated = True
        runs = []
        for item in command.items:
            expr = compile_expression(item.node, self.scope)
            if expr.kind == "json":
                raise item.node.refuse("a map or list cannot be deduplicated by")  # structure types
            runs.append(expr.run)
        return lambda rows: distinct(rows, runs)


STEPS = {name: getattr(Compiler, name) for name in ("fields", "display", "filter", "stats", "sort", "limit", "dedup")}


def extended(rows: list[dict], made: list[tuple[str, Callable]]) -> list[dict]:
    """New rows with the computed fields added; they share nothing with the old ones, which may be cached."""
    if not made:
        return rows
    answer = []
    for row in rows:
        row = row.copy()
        for name, run in made:
            row[name] = run(row)
        answer.append(row)
    return answer


def in_order(rows: list[dict], keys: list[tuple[Callable, bool]]) -> list[dict]:
    rows = list(rows)
    for run, descending in reversed(keys):
        rows.sort(key=lambda row: order(run(row)), reverse=descending)
    return rows


def distinct(rows: list[dict], runs: list[Callable]) -> list[dict]:
    """The first row of each combination; one with an absent value is no duplicate (CWL_QuerySyntax-Dedup)."""
    seen: set[tuple] = set()
    answer = []
    for row in rows:
        key = tuple([text(run(row)) for run in runs])
        if None in key:
            answer.append(row)
        elif key not in seen:
            seen.add(key)
            answer.append(row)
    return answer


def compile_query(query: str, options: Options) -> Program:
    """The program of `query`; raises Refused."""
    if len(query) > QUERY_CHARACTERS:
        raise Refused(f"a query has at most {QUERY_CHARACTERS} characters", QUERY_CHARACTERS, len(query))
    return Compiler(options).compile(parse(query))
