from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windward.expression.syntax import (
    DEEPEST,
    LONGEST,
    OPERATORS,
    PRECEDENCE,
    Attribute,
    Call,
    Constant,
    ExpressionError,
    Node,
    parse,
)


def show(node: Node) -> str:
    """Function and arguments, so that grouping is seen."""
    match node:
        case Constant(value):
            return repr(value)
        case Attribute(name):
            return f"${name}"
        case Call(function, arguments):
            return f"{function}({', '.join(map(show, arguments))})"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a", "$a"),
        ("a.b.c", "$a.b.c"),
        ('a | "x" == "y"', "EQ(OR($a, 'x'), 'y')"),
        ("a || b && c", "LOR($a, LAND($b, $c))"),
        ("a && b || c", "LOR(LAND($a, $b), $c)"),
        ("a == b && c != d", "LAND(EQ($a, $b), NEQ($c, $d))"),
        ("a + b * c", "ADD($a, MUL($b, $c))"),
        ("a * b + c", "ADD(MUL($a, $b), $c)"),
        ("a - b - c", "SUB(SUB($a, $b), $c)"),
        ("a | b | c", "OR(OR($a, $b), $c)"),
        ("a < b == c", "EQ(LT($a, $b), $c)"),
        ("a + b < c | d", "LT(ADD($a, $b), OR($c, $d))"),
        ("(a || b) && c", "LAND(LOR($a, $b), $c)"),
        ("a == (b == c)", "EQ($a, EQ($b, $c))"),
        ("!a && b", "LAND(NOT($a), $b)"),
        ("!(a && b)", "NOT(LAND($a, $b))"),
        ("-a + b", "ADD(SUB($a), $b)"),
        ('a["k"]', "INDEX($a, 'k')"),
        ('a.b["k"] == "v"', "EQ(INDEX($a.b, 'k'), 'v')"),
        ('a["k"] | b', "OR(INDEX($a, 'k'), $b)"),
        ("f()", "f()"),
        ("f(a, 2)", "f($a, 2)"),
        ("f(g(a), b | c)", "f(g($a), OR($b, $c))"),
        ('a.b.startsWith("x")', "startsWith($a.b, 'x')"),
        ('"x".startsWith(a)', "startsWith('x', $a)"),
        ('a["k"].endsWith("x")', "endsWith(INDEX($a, 'k'), 'x')"),
        ("a.f().g(b)", "g(f($a), $b)"),
    ],
)
def test_operators_bind_as_in_go(text, shown):
    assert show(parse(text)) == shown


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("FALSE", False),
        ("True", True),
        ("0", 0),
        ("200", 200),
        ("3.14", 3.14),
        ('""', ""),
        ('"quay"', "quay"),
        (r'"a \"b\" \\ c"', 'a "b" \\ c'),
        (r'"tab\tend"', "tab\tend"),
        (r'"\u00e9"', "é"),
        ('"причал"', "причал"),
        ('`raw \\n "text"`', 'raw \\n "text"'),
        ('"a || b"', "a || b"),
    ],
)
def test_a_literal_is_its_value(text, value):
    node = parse(text)
    assert node == Constant(value)
    assert isinstance(node, Constant)
    assert type(node.value) is type(value)


@pytest.mark.parametrize("text", ["a==b", "  a  ==  b  ", "a\n==\tb"])
def test_white_space_means_nothing(text):
    assert show(parse(text)) == "EQ($a, $b)"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "unexpected end at position 1"),
        ("   ", "unexpected end"),
        ("a ==", "unexpected end at position 5"),
        ("a b", "unexpected 'b' at position 3"),
        ("== a", "unexpected '==' at position 1"),
        ("(a", "unexpected end at position 3"),
        ("a)", "unexpected ')' at position 2"),
        ("f(a,", "unexpected end"),
        ("f(a b)", "unexpected 'b' at position 5"),
        ('a["k"', "unexpected end"),
        ("a[]", "unexpected ']'"),
        ("a=b", "unexpected character '=' at position 2"),
        ("a=='b'", 'unexpected character "\'" at position 4'),
        ("f{}", "unexpected character '{' at position 2"),
        ('a=="b', "unexpected character '\"' at position 4"),
        ("a().b", "unexpected end"),
        (r'"\q"', "bad escape in the text at position 1"),
    ],
)
def test_an_error_says_what_and_where(text, words):
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert words in str(caught.value)


def test_length_and_nesting_are_bounded():
    parse("(" * (DEEPEST - 1) + "a" + ")" * (DEEPEST - 1))
    with pytest.raises(ExpressionError, match="nested deeper"):
        parse("(" * (DEEPEST + 1) + "a" + ")" * (DEEPEST + 1))
    with pytest.raises(ExpressionError, match=str(LONGEST)):
        parse("a" * (LONGEST + 1))


def test_every_operator_has_a_precedence_and_a_name():
    assert OPERATORS.keys() == PRECEDENCE.keys()


PIECES = st.sampled_from(
    [*OPERATORS, "a", "a.b", "f(", "(", ")", "[", "]", ",", ".", "!", '"x"', "`y`", "1", "2.5", " "]
)


@given(st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=40).map("".join)))
def test_any_text_parses_or_is_refused_with_an_expression_error(text):
    with contextlib.suppress(ExpressionError):
        parse(text)


@given(st.sampled_from(sorted(OPERATORS)), st.sampled_from(sorted(OPERATORS)))
def test_of_two_operators_the_tighter_or_the_first_groups(first, second):
    expected = (
        f"{OPERATORS[first]}($a, {OPERATORS[second]}($b, $c))"
        if PRECEDENCE[second] > PRECEDENCE[first]
        else f"{OPERATORS[second]}({OPERATORS[first]}($a, $b), $c)"
    )
    assert show(parse(f"a {first} b {second} c")) == expected
