from __future__ import annotations

import ipaddress
from datetime import UTC, datetime

import pytest

from windward.expression.compiled import (
    UNBUILT,
    AbsentError,
    EvaluationError,
    compile_expression,
)
from windward.expression.syntax import ExpressionError
from windward.expression.vocabulary import ValueType

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
BAG = {
    "request.path": "/books/2",
    "request.host": "catalog",
    "request.size": 20,
    "request.headers": {"tester": "yes", "empty": "", "from": "10.0.0.7"},
    "request.time": NOON,
    "source.ip": ipaddress.ip_address("10.0.0.7"),
    "connection.mtls": True,
}
TEXT, INT, BOOL = ValueType.STRING, ValueType.INT64, ValueType.BOOL


def value(text):
    return compile_expression(text).evaluate(BAG)


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("request.path", TEXT, "/books/2"),
        ("request.size", INT, 20),
        ("request.size + 2", INT, 22),
        ("1.5 + 2.5", ValueType.DOUBLE, 4.0),
        ('request.host + ":" + request.path', TEXT, "catalog:/books/2"),
        ('request.path == "/books/2"', BOOL, True),
        ('request.path != "/books/2"', BOOL, False),
        ("request.size < 20", BOOL, False),
        ("request.size <= 20", BOOL, True),
        ("request.size > 19", BOOL, True),
        ("request.size >= 21", BOOL, False),
        ('"a" < "b"', BOOL, True),
        ("connection.mtls", BOOL, True),
        ("connection.mtls == false", BOOL, False),
        ('request.headers["tester"]', TEXT, "yes"),
        ('request.headers["absent"]', TEXT, ""),
        ('emptyStringMap()["any"]', TEXT, ""),
        ('source.ip == ip("10.0.0.7")', BOOL, True),
        ('source.ip == ip(request.headers["from"])', BOOL, True),
        ('source.ip != ip("2001:db8::1")', BOOL, True),
        ('request.time == timestamp("2026-03-01T12:00:00Z")', BOOL, True),
        ('request.time > timestamp("2026-03-01T12:59:59+01:00")', BOOL, True),
        ('match(request.path, "/books/*")', BOOL, True),
        ('match(request.path, "*/2")', BOOL, True),
        ('match(request.path, "/books")', BOOL, False),
        ('match(request.path, "/books/2")', BOOL, True),
        ('match(request.path, "*")', BOOL, True),
        ('request.path.startsWith("/books")', BOOL, True),
        ('request.path.startsWith("")', BOOL, True),
        ('request.path.startsWith("books")', BOOL, False),
        ('request.path.endsWith("/2")', BOOL, True),
        ('"abc".endsWith("dabc")', BOOL, False),
        ('toLower("QUAY")', TEXT, "quay"),
        ("size(request.host)", INT, 7),
        ('conditional(connection.mtls, "safe", "bare")', TEXT, "safe"),
        ('conditionalString(request.size == 1, "one", "more")', TEXT, "more"),
    ],
)
def test_a_value_and_its_type(text, kind, expected):
    compiled = compile_expression(text)
    assert compiled.type is kind
    assert compiled.text == text
    assert compiled.evaluate(BAG) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('request.method | "GET"', "GET"),
        ('request.path | "x"', "/books/2"),
        ('request.method | request.scheme | "none"', "none"),
        ('request.method | request.host | "none"', "catalog"),
        ('request.path | request.host | "none"', "/books/2"),
        ('request.path | (request.host | "none")', "/books/2"),
        ('request.headers["absent"] | "none"', "none"),
        ('request.headers["empty"] | "none"', ""),
        ('source.labels["app"] | "none"', "none"),
        ('request.headers["absent"] | request.headers["tester"]', "yes"),
        ('(request.method | "GET") + "!"', "GET!"),
        ("destination.port | 80", 80),
        ('conditional(connection.mtls, request.method | "a", "b")', "a"),
        ('request.method | "GET" == "GET"', True),
    ],
)
def test_an_alternative_rescues_what_is_absent(text, expected):
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("request.method", "request.method"),
        ("request.method | request.scheme", "request.scheme"),
        ('request.method == "GET"', "request.method"),
        ('source.labels["app"]', "source.labels"),
        ("ip(request.method) | source.ip", "request.method"),
        ('toLower(request.method) | "x"', "request.method"),
        ('connection.mtls && request.method == "GET"', "request.method"),
    ],
)
def test_an_absent_attribute_is_named(text, missing):
    with pytest.raises(AbsentError, match=missing):
        value(text)


@pytest.mark.parametrize(
    "text", ['ip("quay")', "ip(request.path) | source.ip", 'timestamp("tomorrow")', 'ip("")']
)
def test_a_failing_function_is_an_error_and_never_rescued(text):
    with pytest.raises(EvaluationError):
        value(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('connection.mtls || request.method == "GET"', True),
        ('connection.mtls == false && request.method == "GET"', False),
        ('conditional(connection.mtls, "a", request.method)', "a"),
        ("request.path | request.method", "/books/2"),
    ],
)
def test_what_does_not_count_is_not_evaluated(text, expected):
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("request.quay", "unknown attribute request.quay"),
        ("quay(request.path)", "unknown function: quay"),
        ("request.size / 2", "unknown function: QUO"),
        ("request.size * 2", "unknown function: MUL"),
        ("!connection.mtls", "unknown function: NOT"),
        ("-1", "unknown function: SUB"),
        ("request.size == true", "EQ arg 2 must be INT64, is BOOL"),
        ('request.size == "20"', "EQ arg 2 must be INT64, is STRING"),
        ("1 == 1.0", "EQ arg 2 must be INT64, is DOUBLE"),
        ("request.size && true", "LAND arg 1 must be BOOL, is INT64"),
        ("true || request.path", "LOR arg 2 must be BOOL, is STRING"),
        ("connection.mtls < true", "LT does not compare BOOL"),
        ('source.ip < ip("10.0.0.1")', "LT does not compare IP_ADDRESS"),
        ("request.headers == request.headers", "EQ does not compare STRING_MAP"),
        ("source.ip + source.ip", "ADD does not add IP_ADDRESS"),
        ("request.size + 1.5", "ADD arg 2 must be INT64, is DOUBLE"),
        ("request.path | 1", "both sides of |"),
        ('request.path["k"]', "INDEX arg 1 must be STRING_MAP"),
        ("request.headers[1]", "INDEX arg 2 must be STRING"),
        ('conditional("x", "a", "b")', "conditional arg 1 must be BOOL"),
        ('conditional(true, "a", 1)', "conditional arg 3 must be STRING"),
        ("ip(request.size)", "ip arg 1 must be STRING"),
        ("ip()", "ip takes 1 argument"),
        ("conditional(true)", "conditional takes 3 arguments"),
        ("size(request.headers)", "size arg 1 must be STRING"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_request(text, words):
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", sorted(UNBUILT))
def test_a_function_that_is_not_built_says_so(name):
    with pytest.raises(ExpressionError, match="not supported yet"):
        compile_expression(f'{name}("x", "y")')


def test_a_wanted_type_is_checked():
    assert compile_expression("connection.mtls", BOOL).type is BOOL
    with pytest.raises(ExpressionError, match="must be BOOL, is STRING"):
        compile_expression("request.path", BOOL)


@pytest.mark.parametrize(
    "text",
    ["\"__import__('os')\"", '"{0.__class__}"', '"%s"', '"\\"); raise SystemExit(\\""', "`bag`"],
)
def test_text_of_a_user_is_only_ever_a_value(text):
    inner = compile_expression(text).evaluate({})
    assert compile_expression(f"{text} == {text}").evaluate({}) is True
    assert isinstance(inner, str)


@pytest.mark.parametrize("name", ["_get", "bag", "__builtins__", "eval", "_f_ip"])
def test_names_of_the_compiled_code_cannot_be_reached(name):
    for text in (name, f'{name}("x")', f'request.path.{name}("x")'):
        with pytest.raises(ExpressionError):
            compile_expression(text)


def test_evaluating_leaves_the_bag_as_it_was():
    before = {**BAG, "request.headers": dict(BAG["request.headers"])}  # type: ignore[call-overload]
    value('request.headers["absent"] | request.method | "x"')
    assert before == BAG


@pytest.mark.parametrize(
    "text",
    [
        "!" * 500 + "true",
        "-" * 500 + "1",
        "(" * 500 + "true" + ")" * 500,
        "1" + " + 1" * 500,
        '"a"' + ' | "a"' * 500,
    ],
)
def test_an_expression_that_is_too_deep_is_refused_in_words(text: str) -> None:
    with pytest.raises(ExpressionError, match="deeper than"):
        compile_expression(text)


def test_a_long_chain_of_conditions_is_one_level() -> None:
    assert compile_expression(" || ".join(["false"] * 400 + ["true"])).evaluate({}) is True


def test_a_time_without_a_zone_is_utc() -> None:
    assert value('request.time == timestamp("2026-03-01T12:00:00")') is True


def test_nested_alternatives_are_compiled_once_each() -> None:
    text = "request.host"
    for _ in range(18):
        text = f'(({text} | "d") + "c")'
    assert compile_expression(text).evaluate(BAG) == "catalog" + "c" * 18
