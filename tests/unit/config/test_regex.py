"""Regular expressions: what RE2 would refuse is refused here."""

from __future__ import annotations

import pytest

from windward.config.regex import LONGEST, fault


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "a",
        "^/api/v[0-9]+/.*$",
        r"\d{3}-\w+",
        "(?i)abc",
        "(?P<name>x)",
        "(?:a|b)*?",
        "[^]a]",
        "[[:alpha:]]+",
        "a{2,5}",
        r"\.x\-",
    ],
)
def test_what_re2_takes(pattern: str):
    assert fault(pattern) == ""


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        ")",
        "[a",
        "*a",
        "a**",
        "a{1001}",
        "a{3,2}",
        r"\1",
        "(?=a)",
        "(?<!a)",
        "(?>a)",
        "\\",
        "a" * (LONGEST + 1),
    ],
)
def test_what_re2_refuses(pattern: str):
    assert fault(pattern) != ""
