"""Parsing expressions: Go's expression grammar and precedence, as Istio's parser takes it. Pure.

    5  * / % << >> & &^      (parsed, no such functions)
    4  + - | ^
    3  == != < <= > >=
    2  &&
    1  ||

so ``a | "x" == "y"`` is ``(a | "x") == "y"``. Source: istio 1.4 mixer/pkg/lang/ast.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

LONGEST = 4096
DEEPEST = 60
"""Levels of brackets, arguments and signs; and of operators on one another, chains of one and the same ``&&`` or
``||`` counting once. What compiles an expression is recursive: this is what bounds it."""
PRECEDENCE = {
    "||": 1, "&&": 2, "==": 3, "!=": 3, "<": 3, "<=": 3, ">": 3, ">=": 3,
    "+": 4, "-": 4, "|": 4, "^": 4, "*": 5, "/": 5, "%": 5,
}  # fmt: skip
OPERATORS = {
    "||": "LOR", "&&": "LAND", "==": "EQ", "!=": "NEQ", "<": "LT", "<=": "LEQ", ">": "GT", ">=": "GEQ",
    "+": "ADD", "-": "SUB", "|": "OR", "^": "XOR", "*": "MUL", "/": "QUO", "%": "REM",
}  # fmt: skip
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.\d+|\d+)|(?P<text>\"(?:[^\"\\]|\\.)*\"|`[^`]*`)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_-]*)*)"
    r"|(?P<operator>\|\||&&|==|!=|<=|>=|[-+*/%|^<>()\[\],.!]))"
)


class ExpressionError(ValueError):
    """An expression that cannot be parsed or typed; says where and why."""


@dataclass(frozen=True, slots=True)
class Constant:
    value: str | int | float | bool


@dataclass(frozen=True, slots=True)
class Attribute:
    name: str


@dataclass(frozen=True, slots=True)
class Call:
    function: str
    arguments: tuple[Node, ...]


Node = Constant | Attribute | Call


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def parse(text: str) -> Node:
    """Raises ExpressionError."""
    if len(text) > LONGEST:
        raise ExpressionError(
            f"an expression has at most {LONGEST} characters, this one {len(text)}"
        )
    parser = _Parser(_tokens(text), len(text))
    node = parser.expression(1, 0)
    if parser.peek() is not None:
        raise parser.unexpected()
    _check_levels(node)
    return node


def _check_levels(root: Node) -> None:
    waiting: list[tuple[Node, int]] = [(root, 0)]
    while waiting:
        node, level = waiting.pop()
        if level > DEEPEST:
            raise ExpressionError(f"nested deeper than {DEEPEST} levels")
        if isinstance(node, Call):
            for index, argument in enumerate(node.arguments):
                chained = (
                    index == 0
                    and node.function in {"LAND", "LOR"}
                    and isinstance(argument, Call)
                    and argument.function == node.function
                )
                waiting.append((argument, level if chained else level + 1))


def _tokens(text: str) -> list[_Token]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            if not text[at:].strip():
                break
            raise ExpressionError(
                f"unexpected character {text[at:].lstrip()[0]!r} at position {at + 1}"
            )
        found.append(_Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
        at = match.end()
    return found


class _Parser:
    def __init__(self, tokens: list[_Token], length: int) -> None:
        self._tokens = tokens
        self._length = length
        self._at = 0

    def peek(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def unexpected(self) -> ExpressionError:
        token = self.peek()
        if token is None:
            return ExpressionError(f"unexpected end at position {self._length + 1}")
        return ExpressionError(f"unexpected {token.text!r} at position {token.at + 1}")

    def expression(self, least: int, depth: int) -> Node:
        if depth > DEEPEST:
            raise ExpressionError(f"nested deeper than {DEEPEST} levels")
        left = self._unary(depth)
        while (token := self.peek()) is not None and PRECEDENCE.get(token.text, 0) >= least:
            if token.kind != "operator":
                break
            self._at += 1
            right = self.expression(PRECEDENCE[token.text] + 1, depth + 1)
            left = Call(OPERATORS[token.text], (left, right))
        return left

    def _unary(self, depth: int) -> Node:
        if depth > DEEPEST:
            raise ExpressionError(f"nested deeper than {DEEPEST} levels")
        token = self.peek()
        if token is not None and token.text in {"!", "-"}:
            self._at += 1
            return Call("NOT" if token.text == "!" else "SUB", (self._unary(depth + 1),))
        return self._postfix(self._primary(depth), depth)

    def _postfix(self, node: Node, depth: int) -> Node:
        while (token := self.peek()) is not None and token.text in {"[", "."}:
            self._at += 1
            if token.text == "[":
                index = self.expression(1, depth + 1)
                self._expect("]")
                node = Call("INDEX", (node, index))
                continue
            name = self.peek()
            if name is None or name.kind != "name":
                raise self.unexpected()
            self._at += 1
            self._expect("(")
            node = Call(name.text, (node, *self._arguments(depth)))
        return node

    def _primary(self, depth: int) -> Node:
        token = self.peek()
        if token is None:
            raise self.unexpected()
        self._at += 1
        if token.kind == "number":
            return Constant(float(token.text) if "." in token.text else int(token.text))
        if token.kind == "text":
            return Constant(_text(token))
        if token.kind == "name":
            return self._name(token, depth)
        if token.text == "(":
            inner = self.expression(1, depth + 1)
            self._expect(")")
            return inner
        self._at -= 1
        raise self.unexpected()

    def _name(self, token: _Token, depth: int) -> Node:
        """A constant, an attribute, a function, or a method of an attribute (``request.path.startsWith(...)``)."""
        if token.text.lower() in {"true", "false"}:
            return Constant(token.text.lower() == "true")
        following = self.peek()
        if following is None or following.text != "(":
            return Attribute(token.text)
        self._at += 1
        target, dot, method = token.text.rpartition(".")
        arguments = self._arguments(depth)
        return (
            Call(method, (Attribute(target), *arguments))
            if dot
            else Call(token.text, tuple(arguments))
        )

    def _arguments(self, depth: int) -> tuple[Node, ...]:
        made: list[Node] = []
        token = self.peek()
        if token is not None and token.text == ")":
            self._at += 1
            return ()
        while True:
            made.append(self.expression(1, depth + 1))
            token = self.peek()
            if token is None or token.text not in {",", ")"}:
                raise self.unexpected()
            self._at += 1
            if token.text == ")":
                return tuple(made)

    def _expect(self, text: str) -> None:
        token = self.peek()
        if token is None or token.text != text:
            raise self.unexpected()
        self._at += 1


def _text(token: _Token) -> str:
    if token.text.startswith("`"):
        return token.text[1:-1]
    try:
        return str(json.loads(token.text))
    except ValueError as error:
        raise ExpressionError(f"bad escape in the text at position {token.at + 1}") from error
