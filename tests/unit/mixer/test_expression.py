"""Mixer's expressions: grammar, types, absence."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.mixer.attributes.vocabulary import ValueType
from services.mixer.expression.compiled import AbsentError, EvaluationError, compile_expression
from services.mixer.expression.syntax import ExpressionError

BAG: dict[str, Any] = {
    "request.path": "/books/1",
    "request.method": "GET",
    "request.size": 10,
    "request.headers": {"user": "ada"},
    "source.ip": ipaddress.ip_address("10.0.0.7"),
    "connection.mtls": True,
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('request.path == "/books/1"', True),
        ('request.path != "/books/1"', False),
        ("request.size > 5 && request.size <= 10", True),
        ('request.headers["user"] == "ada"', True),
        ('request.headers["absent"] == ""', True),
        ('request.headers["absent"] | "nobody"', "nobody"),
        ('source.name | request.headers["x"] | "none"', "none"),
        ('source.name | "a" == "a"', True),
        ('request.path.startsWith("/books")', True),
        ('match(request.path, "*/1")', True),
        ('match(request.path, "/books*")', True),
        ('source.ip == ip("10.0.0.7")', True),
        ("conditional(connection.mtls, 1, 2)", 1),
        ('request.method + "-" + request.path', "GET-/books/1"),
        ("TRUE || source.name == request.path", True),
        ("size(request.path) == 8", True),
        ("toLower(request.method)", "get"),
        ('`raw` == "raw"', True),
    ],
)
def test_values(text: str, value: Any):
    assert compile_expression(text).evaluate(BAG) == value


@pytest.mark.parametrize(
    "text",
    [
        "", "a ==", "request.path ==", "request.path == 1", "unknown.attribute", "request.path[", 'request.path["a"]',
        'request.size + "x"', "!connection.mtls", "request.headers == request.headers", "foo(1)", "ip(1)",
        "request.path | 5", '"a" && true', 'request.path.matches("a")', "(", "a b", "conditional(1, 2, 3)", "$",
    ],
)  # fmt: skip
def test_what_is_refused_when_compiled(text: str):
    with pytest.raises(ExpressionError):
        compile_expression(text)


def test_an_absent_attribute_is_an_error_and_not_a_value():
    with pytest.raises(AbsentError, match=r"source\.name"):
        compile_expression('source.name == "a"').evaluate(BAG)


def test_an_alternative_does_not_rescue_a_failing_function():
    expression = compile_expression('ip(request.path) | ip("1.2.3.4")')
    with pytest.raises(EvaluationError):
        expression.evaluate(BAG)


def test_the_wanted_type_is_checked():
    with pytest.raises(ExpressionError, match="must be BOOL, is STRING"):
        compile_expression("request.path", ValueType.BOOL)


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet='abrequest.path "|&=!<>()[],+1`\\', max_size=40))
def test_no_text_raises_anything_else(text: str):
    try:
        compile_expression(text)
    except ExpressionError:
        return
