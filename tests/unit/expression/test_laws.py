"""The compiled expression against a plain interpreter, on random well-typed expressions and bags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from windward.expression.compiled import AbsentError, compile_expression

TEXTS = st.sampled_from(["", "a", "Ab", "/books", "x-y"])
TEXT_NAMES = ["request.path", "request.host", "request.method"]
MAP = "request.headers"


@dataclass(frozen=True)
class E:
    """A little expression: what it is, and its parts."""

    op: str
    parts: tuple[Any, ...]


def made(op: str, *parts: st.SearchStrategy[Any]) -> st.SearchStrategy[E]:
    return st.tuples(*parts).map(lambda values: E(op, values))


def texts(depth: int) -> st.SearchStrategy[E]:
    simple = [
        made("text", TEXTS),
        made("name", st.sampled_from(TEXT_NAMES)),
        made("key", TEXTS),
    ]
    if not depth:
        return st.one_of(simple)
    inner = texts(depth - 1)
    return st.one_of(
        *simple,
        made("+", inner, inner),
        made("|", inner, inner),
        made("toLower", inner),
        made("conditional", bools(depth - 1), inner, inner),
    )


def ints(depth: int) -> st.SearchStrategy[E]:
    simple = [made("int", st.integers(0, 5)), made("name", st.just("request.size"))]
    if not depth:
        return st.one_of(simple)
    inner = ints(depth - 1)
    return st.one_of(
        *simple, made("+", inner, inner), made("|", inner, inner), made("size", texts(depth - 1))
    )


def bools(depth: int) -> st.SearchStrategy[E]:
    simple = [made("bool", st.booleans()), made("name", st.just("connection.mtls"))]
    if not depth:
        return st.one_of(simple)
    inner = bools(depth - 1)
    comparison = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
    return st.one_of(
        *simple,
        made("&&", inner, inner),
        made("||", inner, inner),
        made("|", inner, inner),
        made("startsWith", texts(depth - 1), texts(depth - 1)),
        comparison.flatmap(lambda op: made(op, texts(depth - 1), texts(depth - 1))),
        comparison.flatmap(lambda op: made(op, ints(depth - 1), ints(depth - 1))),
    )


def write(e: E) -> str:
    match e.op:
        case "text":
            return f'"{e.parts[0]}"'
        case "int":
            return str(e.parts[0])
        case "bool":
            return str(e.parts[0]).lower()
        case "name":
            return str(e.parts[0])
        case "key":
            return f'{MAP}["{e.parts[0]}"]'
        case "toLower" | "size" | "conditional" | "startsWith":
            return f"{e.op}({', '.join(map(write, e.parts))})"
        case _:
            return f"({write(e.parts[0])} {e.op} {write(e.parts[1])})"


class Absent(Exception):
    pass


def alternatives(e: E) -> list[E]:
    return [*alternatives(e.parts[0]), e.parts[1]] if e.op == "|" else [e]


def interpret(e: E, bag: dict[str, Any]) -> Any:
    def of(index: int) -> Any:
        return interpret(e.parts[index], bag)

    match e.op:
        case "text" | "int" | "bool":
            return e.parts[0]
        case "name":
            if e.parts[0] not in bag:
                raise Absent
            return bag[e.parts[0]]
        case "key":
            if MAP not in bag:
                raise Absent
            return bag[MAP].get(e.parts[0], "")
        case "|":
            *first, last = alternatives(e)
            for option in first:
                if option.op == "name" and option.parts[0] not in bag:
                    continue
                if option.op == "key" and option.parts[0] not in bag.get(MAP, {}):
                    continue
                return interpret(option, bag)
            return interpret(last, bag)
        case "&&":
            return of(0) and of(1)
        case "||":
            return of(0) or of(1)
        case "toLower":
            return of(0).lower()
        case "size":
            return len(of(0))
        case "conditional":
            return of(1) if of(0) else of(2)
        case "startsWith":
            return of(0).startswith(of(1))
        case _:
            return simple_operator(e.op, of(0), of(1))


def simple_operator(op: str, left: Any, right: Any) -> Any:
    return {
        "+": lambda: left + right,
        "==": lambda: left == right,
        "!=": lambda: left != right,
        "<": lambda: left < right,
        "<=": lambda: left <= right,
        ">": lambda: left > right,
        ">=": lambda: left >= right,
    }[op]()


BAGS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(TEXT_NAMES, TEXTS),
        "request.size": st.integers(0, 5),
        "connection.mtls": st.booleans(),
        MAP: st.dictionaries(TEXTS, TEXTS, max_size=3),
    },
)


@given(st.one_of(bools(3), texts(3), ints(3)), BAGS)
def test_compiled_code_says_what_an_interpreter_says(expression, bag):
    compiled = compile_expression(write(expression))
    try:
        expected = interpret(expression, bag)
    except Absent:
        expected = Absent
    try:
        seen = compiled.evaluate(bag)
    except AbsentError:
        seen = Absent
    assert seen == expected
    assert type(seen) is type(expected)
