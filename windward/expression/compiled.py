"""Typing and compiling: a parsed expression becomes one Python code object over an attribute bag.

    Node + vocabulary -> type (static) -> ast.Expression -> code -> evaluate(bag)

No text of a user is ever executed: the code is built as Python AST nodes whose constants are the user's values and whose
names are ours. Absent attributes raise AbsentError; ``|`` rescues an absent attribute or map key and nothing else;
``&&`` and ``||`` short-circuit.
"""

from __future__ import annotations

import ast
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from windward.expression.syntax import Attribute, Call, Constant, ExpressionError, Node, parse
from windward.expression.vocabulary import VOCABULARY, ValueType

Bag = Mapping[str, Any]
ORDERED: Final = (ValueType.STRING, ValueType.INT64, ValueType.DOUBLE, ValueType.TIMESTAMP)
COMPARED: Final = (*ORDERED, ValueType.BOOL, ValueType.IP_ADDRESS)
COMPARISONS: Final[dict[str, type[ast.cmpop]]] = {
    "EQ": ast.Eq, "NEQ": ast.NotEq, "LT": ast.Lt, "LEQ": ast.LtE, "GT": ast.Gt, "GEQ": ast.GtE
}  # fmt: skip
STRING, BOOL, MAP = ValueType.STRING, ValueType.BOOL, ValueType.STRING_MAP
ABSENT: Final = object()


class AbsentError(LookupError):
    """An attribute that the expression needs is not there."""


class EvaluationError(ValueError):
    """A function failed on a value."""


@dataclass(frozen=True, slots=True)
class _Function:
    arguments: tuple[ValueType, ...]
    result: ValueType
    run: Callable[..., Any]


def _ip(text: str) -> Any:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise EvaluationError(f"could not convert {text!r} to an IP address") from error


def _timestamp(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise EvaluationError(f"could not convert {text!r} to a timestamp") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _match(text: str, pattern: str) -> bool:
    if pattern.endswith("*"):
        return text.startswith(pattern[:-1])
    if pattern.startswith("*"):
        return text.endswith(pattern[1:])
    return text == pattern


FUNCTIONS: Final[Mapping[str, _Function]] = {
    "ip": _Function((STRING,), ValueType.IP_ADDRESS, _ip),
    "timestamp": _Function((STRING,), ValueType.TIMESTAMP, _timestamp),
    "match": _Function((STRING, STRING), BOOL, _match),
    "startsWith": _Function((STRING, STRING), BOOL, str.startswith),
    "endsWith": _Function((STRING, STRING), BOOL, str.endswith),
    "toLower": _Function((STRING,), STRING, str.lower),
    "size": _Function((STRING,), ValueType.INT64, len),
    "emptyStringMap": _Function((), MAP, dict),
}
UNBUILT: Final = frozenset({"matches", "dnsName", "email", "uri"})


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression. ``evaluate`` raises AbsentError or EvaluationError."""

    text: str
    type: ValueType
    evaluate: Callable[[Bag], Any]


def compile_expression(text: str, wanted: ValueType | None = None) -> Expression:
    """Raises ExpressionError, also when the type is not the wanted one."""
    node = parse(text)
    kind, tree = _build(node)
    if wanted is not None and kind is not wanted:
        raise ExpressionError(f"must be {wanted.value}, is {kind.value}")
    bag = ast.arguments([], [ast.arg("bag")], None, [], [], None, [])
    whole = ast.fix_missing_locations(ast.Expression(ast.Lambda(bag, tree)))
    code = compile(whole, "<expression>", "eval")
    return Expression(text, kind, eval(code, _NAMESPACE))  # noqa: S307  our own AST, no text of a user


def _build(node: Node) -> tuple[ValueType, ast.expr]:
    if isinstance(node, Constant):
        return _type_of(node.value), ast.Constant(node.value)
    if isinstance(node, Attribute):
        return _attribute_type(node.name), _helper("_get", ast.Constant(node.name))
    if node.function in {"LAND", "LOR"}:
        return _logic(node)
    if node.function in COMPARISONS:
        return _comparison(node)
    if node.function == "OR":
        return _alternative(node)
    if node.function == "INDEX":
        return STRING, _helper("_index", *_index_parts(node))
    if node.function == "ADD":
        return _add(node)
    if node.function in {"conditional", "conditionalString"}:
        return _conditional(node)
    return _call(node)


def _type_of(value: object) -> ValueType:
    if isinstance(value, bool):
        return BOOL
    return {str: STRING, int: ValueType.INT64, float: ValueType.DOUBLE}[type(value)]


def _attribute_type(name: str) -> ValueType:
    if name not in VOCABULARY:
        raise ExpressionError(f"unknown attribute {name}")
    return VOCABULARY[name]


def _helper(name: str, *arguments: ast.expr) -> ast.Call:
    bag = ast.Name("bag", ast.Load())
    return ast.Call(ast.Name(name, ast.Load()), [bag, *arguments], [])


def _arity(node: Call, count: int) -> None:
    if len(node.arguments) != count:
        raise ExpressionError(f"{node.function} takes {count} arguments, not {len(node.arguments)}")


def _expect(node: Call, index: int, wanted: ValueType) -> ast.expr:
    kind, tree = _build(node.arguments[index])
    if kind is not wanted:
        raise ExpressionError(
            f"{node.function} arg {index + 1} must be {wanted.value}, is {kind.value}"
        )
    return tree


def _logic(node: Call) -> tuple[ValueType, ast.expr]:
    operator: ast.boolop = ast.And() if node.function == "LAND" else ast.Or()
    operands = []
    for index, operand in enumerate(_chain(node)):
        kind, tree = _build(operand)
        if kind is not BOOL:
            raise ExpressionError(
                f"{node.function} arg {index + 1} must be {BOOL.value}, is {kind.value}"
            )
        operands.append(tree)
    return BOOL, ast.BoolOp(operator, operands)


def _comparison(node: Call) -> tuple[ValueType, ast.expr]:
    _arity(node, 2)
    kind, left = _build(node.arguments[0])
    allowed = COMPARED if node.function in {"EQ", "NEQ"} else ORDERED
    if kind not in allowed:
        raise ExpressionError(f"{node.function} does not compare {kind.value}")
    right = _expect(node, 1, kind)
    return BOOL, ast.Compare(left, [COMPARISONS[node.function]()], [right])


def _alternative(node: Call) -> tuple[ValueType, ast.expr]:
    """``a | b | c``: the first that is there; the last is evaluated as it stands."""
    options = _chain(node)
    kind, tree = _build(options[-1])
    for option in reversed(options[:-1]):
        other, value = _optional(option)
        if other is not kind:
            raise ExpressionError(
                f"both sides of | must be of one type, not {other.value} and {kind.value}"
            )
        tree = _helper("_or", _thunk(value), _thunk(tree))
    return kind, tree


def _chain(node: Call) -> list[Node]:
    """The operands of ``a op b op c``, which parses as ``(a op b) op c``."""
    operands: list[Node] = []
    rest: Node = node
    while isinstance(rest, Call) and rest.function == node.function:
        _arity(rest, 2)
        operands.append(rest.arguments[1])
        rest = rest.arguments[0]
    return [rest, *reversed(operands)]


def _optional(node: Node) -> tuple[ValueType, ast.expr]:
    """The value, or ABSENT for an absent attribute or map key; anything else as it stands."""
    if isinstance(node, Attribute):
        return _attribute_type(node.name), _helper("_find", ast.Constant(node.name))
    if isinstance(node, Call) and node.function == "INDEX":
        _arity(node, 2)
        kind, target = _optional(node.arguments[0])
        if kind is not MAP:
            raise ExpressionError(f"INDEX arg 1 must be {MAP.value}, is {kind.value}")
        return STRING, _helper("_find_key", target, _expect(node, 1, STRING))
    return _build(node)


def _thunk(body: ast.expr) -> ast.Lambda:
    return ast.Lambda(ast.arguments([], [], None, [], [], None, []), body)


def _index_parts(node: Call) -> tuple[ast.expr, ast.expr]:
    _arity(node, 2)
    return _expect(node, 0, MAP), _expect(node, 1, STRING)


def _add(node: Call) -> tuple[ValueType, ast.expr]:
    _arity(node, 2)
    kind, left = _build(node.arguments[0])
    if kind not in {STRING, ValueType.INT64, ValueType.DOUBLE}:
        raise ExpressionError(f"ADD does not add {kind.value}")
    return kind, ast.BinOp(left, ast.Add(), _expect(node, 1, kind))


def _conditional(node: Call) -> tuple[ValueType, ast.expr]:
    _arity(node, 3)
    condition = _expect(node, 0, BOOL)
    kind, yes = _build(node.arguments[1])
    return kind, ast.IfExp(condition, yes, _expect(node, 2, kind))


def _call(node: Call) -> tuple[ValueType, ast.expr]:
    if node.function in UNBUILT:
        raise ExpressionError(f"function {node.function} is not supported yet")
    function = FUNCTIONS.get(node.function)
    if function is None:
        raise ExpressionError(f"unknown function: {node.function}")
    _arity(node, len(function.arguments))
    arguments = [_expect(node, index, kind) for index, kind in enumerate(function.arguments)]
    return function.result, ast.Call(ast.Name(f"_f_{node.function}", ast.Load()), arguments, [])


def _get(bag: Bag, name: str) -> Any:
    value = bag.get(name, ABSENT)
    if value is ABSENT:
        raise AbsentError(f"lookup failed: {name!r}")
    return value


def _find(bag: Bag, name: str) -> Any:
    return bag.get(name, ABSENT)


def _index(_: Bag, values: Mapping[str, str], key: str) -> str:
    return values.get(key, "")


def _find_key(_: Bag, values: Any, key: str) -> Any:
    return ABSENT if values is ABSENT else values.get(key, ABSENT)


def _or(_: Bag, first: Callable[[], Any], other: Callable[[], Any]) -> Any:
    value = first()
    return other() if value is ABSENT else value


_NAMESPACE: Final[dict[str, Any]] = {
    "__builtins__": {},
    "_get": _get,
    "_find": _find,
    "_index": _index,
    "_find_key": _find_key,
    "_or": _or,
    **{f"_f_{name}": function.run for name, function in FUNCTIONS.items()},
}
