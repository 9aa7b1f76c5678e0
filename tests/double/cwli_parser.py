"""Grammar of the Logs Insights query language: from text to commands and expressions, without meaning yet."""

from __future__ import annotations

from dataclasses import dataclass, field

from cwli_lexer import Refused, Token, tokens

KEYWORDS = {"and", "or", "not", "in", "like", "as", "by", "asc", "desc"}


@dataclass
class Node:
    """An expression. `kind` says what `args` are; `text` is as written, and names its column."""

    kind: str  # literal, period, regex, name, call, star, not, negate, binary, in
    token: Token
    text: str
    value: object = None  # literal: its value; name: its parts; call: the function, lower case; binary: operator
    args: list[Node] = field(default_factory=list)

    def refuse(self, message: str) -> Refused:
        return Refused(message, self.token.start, self.token.start + max(0, len(self.text) - 1))

    def names(self) -> list[Node]:
        """All names within this expression."""
        return [self] if self.kind == "name" else [name for arg in self.args for name in arg.names()]

    @property
    def column(self) -> str:
        """Name of the column this makes without an alias."""
        return flat(self.value) if self.kind == "name" else self.text


@dataclass
class Item:
    """An expression in a list, with its alias or its direction of sort."""

    node: Node
    alias: str | None = None
    alias_token: Token | None = None
    descending: bool = False


@dataclass
class Command:
    name: str
    token: Token
    items: list[Item] = field(default_factory=list)
    by: list[Item] = field(default_factory=list)
    count: int = 0


def flat(parts: list) -> str:
    return ".".join(str(part) for part in parts)


class Parser:
    def __init__(self, query: str) -> None:
        self.query = query
        self.tokens = tokens(query)
        self.at = 0

    @property
    def here(self) -> Token:
        return self.tokens[self.at]

    def advance(self) -> Token:
        token = self.here
        self.at += 1
        return token

    def accept(self, *texts: str) -> Token | None:
        token = self.here
        if (token.kind == "operator" and token.text in texts) or (token.word and token.word in texts):
            return self.advance()
        return None

    def expect(self, text: str) -> Token:
        token = self.accept(text)
        if token is None:
            raise self.unexpected(f"'{text}'")
        return token

    def unexpected(self, expected: str) -> Refused:
        return self.here.refuse(f"mismatched input '{self.here.text or '<EOF>'}' expecting {expected}")

    def source(self, start: Token) -> str:
        return self.query[start.start : self.tokens[self.at - 1].end]

    def commands(self) -> list[Command]:
        commands = [self.command()]
        while self.accept("|"):
            commands.append(self.command())
        if self.here.kind != "end":
            raise self.unexpected("'|' or the end of the query")
        return commands

    def command(self) -> Command:
        token = self.here
        if token.word not in COMMANDS:
            if token.word in ELSEWHERE:
                raise token.refuse(f"the double does not implement the command {token.word}")
            raise self.unexpected("a command: " + ", ".join(sorted(COMMANDS)))
        self.advance()
        command = Command(token.word, token)
        COMMANDS[token.word](self, command)
        return command

    def projection(self, command: Command) -> None:
        command.items = self.list_of(self.item)

    def names(self, command: Command) -> None:
        command.items = self.list_of(self.item)
        for item in command.items:
            if item.node.kind != "name" or item.alias:
                raise item.node.refuse(f"{command.name} takes names of fields")

    def condition(self, command: Command) -> None:
        command.items = [Item(self.expression())]

    def statistics(self, command: Command) -> None:
        command.items = self.list_of(self.item)
        if self.accept("by"):
            command.by = self.list_of(self.item)

    def ordering(self, command: Command) -> None:
        command.items = self.list_of(self.direction)

    def limiting(self, command: Command) -> None:
        if self.here.kind != "number" or type(self.here.value) is not int:
            raise self.unexpected("a whole number")
        if not 1 <= self.here.value <= 100_000:  # as the parameter limit (BC-logs StartQuery)
            raise self.unexpected("a number from 1 to 100000")
        command.count = self.advance().value

    def list_of(self, one) -> list[Item]:
        items = [one()]
        while self.accept(","):
            items.append(one())
        return items

    def item(self) -> Item:
        item = Item(self.expression())
        if self.accept("as"):
            token = self.here
            if token.kind != "name" or token.word in KEYWORDS or len(token.value) != 1:
                raise self.unexpected("an alias")
            item.alias_token = self.advance()
            item.alias = token.value[0]
        return item

    def direction(self) -> Item:
        item = Item(self.expression())
        if not self.accept("asc"):
            item.descending = self.accept("desc") is not None
        return item

    def expression(self) -> Node:
        return self.binary(self.conjunction, "or")

    def conjunction(self) -> Node:
        return self.binary(self.negation, "and")

    def negation(self) -> Node:
        if token := self.accept("not"):
            inner = self.negation()
            return Node("not", token, self.source(token), args=[inner])
        return self.comparison()

    def comparison(self) -> Node:
        start = self.here
        left = self.additive()
        if token := self.accept("=", "!=", "<", "<=", ">", ">="):
            right = self.additive()
            return Node("binary", start, self.source(start), token.text, [left, right])
        negated = self.here.word == "not" and self.tokens[self.at + 1].word in ("in", "like")
        if negated:
            self.advance()
        if self.accept("in"):
            node = Node("in", start, "", args=[left, *self.literal_list()])
        elif self.accept("like", "=~"):
            node = Node("match", start, "", args=[left, self.pattern()])
        else:
            return left
        node.text = self.source(start)
        return Node("not", start, node.text, args=[node]) if negated else node

    def literal_list(self) -> list[Node]:
        self.expect("[")
        literals = [self.literal()]
        while self.accept(","):
            literals.append(self.literal())
        self.expect("]")
        return literals

    def literal(self) -> Node:
        start = self.here
        sign = -1 if self.accept("-") else 1
        if self.here.kind == "number":
            token = self.advance()
            return Node("literal", start, self.source(start), token.value * sign)
        if self.here.kind == "string" and sign == 1:
            token = self.advance()
            return Node("literal", token, token.text, token.value)
        raise self.unexpected("a literal")

    def pattern(self) -> Node:
        if self.here.kind not in ("regex", "string"):
            raise self.unexpected("a regular expression or a string")
        token = self.advance()
        return Node("regex" if token.kind == "regex" else "literal", token, token.text, token.value)

    def additive(self) -> Node:
        return self.binary(self.multiplicative, "+", "-")

    def multiplicative(self) -> Node:
        return self.binary(self.power, "*", "/", "%")

    def power(self) -> Node:
        return self.binary(self.unary, "^")

    def binary(self, operand, *operators: str) -> Node:
        start = self.here
        left = operand()
        while token := self.accept(*operators):
            operator = token.word or token.text
            right = operand()
            left = Node("binary", start, self.source(start), operator, [left, right])
        return left

    def unary(self) -> Node:
        if token := self.accept("-"):
            inner = self.unary()
            return Node("negate", token, self.source(token), args=[inner])
        return self.primary()

    def primary(self) -> Node:
        token = self.here
        if self.accept("("):
            node = self.expression()
            self.expect(")")
            return node
        if token.kind in ("number", "string"):
            self.advance()
            return Node("literal", token, token.text, token.value)
        if token.kind == "period":
            self.advance()
            return Node("period", token, token.text, token.value)
        if token.kind == "name" and token.word not in KEYWORDS:
            self.advance()
            if self.here.text == "(" and self.here.kind == "operator":
                return self.call(token)
            if token.word in ("true", "false", "null"):
                raise token.refuse(f"the double does not know whether {token.text} is a literal")
            return Node("name", token, token.text, token.value)
        raise self.unexpected("an expression")

    def call(self, name: Token) -> Node:
        self.expect("(")
        args: list[Node] = []
        if not self.accept(")"):
            if star := self.accept("*"):
                args.append(Node("star", star, "*"))
            else:
                args.append(self.expression())
                while self.accept(","):
                    args.append(self.expression())
            self.expect(")")
        return Node("call", name, self.source(name), name.word, args)


COMMANDS = {
    "fields": Parser.projection,
    "display": Parser.names,
    "filter": Parser.condition,
    "stats": Parser.statistics,
    "sort": Parser.ordering,
    "limit": Parser.limiting,
    "dedup": Parser.names,
}
# Commands that AWS has and the double does not: it refuses them all, whatever the log class.
ELSEWHERE = {"filterindex", "pattern", "diff", "unmask", "parse", "source", "anomaly", "unnest", "lookup"}


def parse(query: str) -> list[Command]:
    return Parser(query).commands()
