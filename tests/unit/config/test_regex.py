"""Users' regular expressions: what Envoy's RE2 takes, what it refuses, and that judging them is cheap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windward.config import regex


@pytest.mark.parametrize(
    "pattern",
    [
        "", "abc", ".*", "^/api/v[0-9]+/.*$", "a|b|", "(a|b)*", "(?:a)+?", "(?i)abc", "(?i:a)b", "(?P<name>a)", "a{2,3}",
        "a{2,}?", "a{", "a{,3}", "x{1000}", r"\d+\.\d+", r"[\]a]", "[]a]", "[^]a]", "[[:alpha:]_-]", r"\pL", r"\p{Greek}",
        r"\bfoo\b", "()*", r"\x41", r"\n\t", "日本語+", "(((a)))",
    ],
)  # fmt: skip
def test_what_re2_takes(pattern: str) -> None:
    assert regex.fault(pattern) == ""


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(a", "not closed"),
        ("a)", "no group is open"),
        (")(", "no group is open"),
        ("[a", "not closed"),
        ("[]", "not closed"),
        ("*a", "nothing to repeat"),
        ("a|*", "nothing to repeat"),
        ("(+)", "nothing to repeat"),
        ("a**", "nothing to repeat"),
        ("a{2}{3}", "nothing to repeat"),
        ("a*??", "nothing to repeat"),
        ("a++", "nothing to repeat"),
        ("a{1001}", "repeat count"),
        ("a{3,2}", "repeat count"),
        ("a{0,99999}", "repeat count"),
        (r"(a)\1", "backreference"),
        ("(?=a)", "look-around"),
        ("(?!a)", "look-around"),
        ("(?<=a)b", "look-around"),
        ("(?<!a)b", "look-around"),
        ("(?>a)", "not supported"),
        ("(?P=name)", "not supported"),
        ("(?(1)a|b)", "not supported"),
        ("(?#note)", "not supported"),
        (r"\Z", "escape"),
        (r"\k<a>", "escape"),
        ("a\\", "trailing"),
        ("a" * 1025, "at most 1024"),
    ],
)
def test_what_re2_lacks_is_refused_with_a_reason(pattern: str, reason: str) -> None:
    assert reason in regex.fault(pattern)


@given(st.text(alphabet="ab()[]{}*+?|^$\\.:<>P=!,019-i", max_size=60))
def test_no_pattern_raises(pattern: str) -> None:
    assert isinstance(regex.fault(pattern), str)


PIECE = st.sampled_from(["a", "[a-z]", r"\d", ".", "(?:x|y)", "[[:digit:]]", r"\."])
PATTERNS = st.recursive(
    PIECE,
    lambda inner: st.one_of(
        inner.map(lambda text: f"({text})"),
        inner.map(lambda text: f"(?:{text})*"),
        inner.map(lambda text: f"(?:{text}){{1,3}}?"),
        st.tuples(inner, inner).map("|".join),
        st.tuples(inner, inner).map("".join),
    ),
    max_leaves=8,
)


@given(PATTERNS)
def test_well_made_patterns_are_taken_and_lose_that_with_one_parenthesis(pattern: str) -> None:
    assert regex.fault(pattern) == ""
    assert regex.fault(f"({pattern}")
    assert regex.fault(f"{pattern})")
    assert regex.fault(f"{pattern}(?={pattern})")


def test_patterns_that_blow_up_backtracking_engines_are_judged_without_being_run() -> None:
    assert regex.fault("(a*)*" * 200 + "b") == ""
