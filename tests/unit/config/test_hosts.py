"""Host names: what is one, what it is short for, what covers it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windward.config import hosts

LABEL = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,6}[a-z])?", fullmatch=True).filter(
    lambda label: not label.isdigit()
)
HOST = st.lists(LABEL, min_size=1, max_size=5).map(".".join)
PATTERN = st.one_of(HOST, HOST.map(lambda host: f"*.{host}"), st.just("*"))


@pytest.mark.parametrize(
    "host", ["a", "a.b", "A.example.com", "a.b.", "1.a", "x" * 63 + ".com", "a-b.c", "a--b.c"]
)
def test_good_names(host: str) -> None:
    assert hosts.fqdn_fault(host) == ""


@pytest.mark.parametrize(
    "host",
    ["", ".", "..", "a..b", ".a", "-a.b", "a-.b", "a_b", "a b", "*.a", "x" * 64, "a.1", "10.0.0.1",
     ".".join(["abcdefgh"] * 30), "a/b", "a:80", "ä.de", "a\n", "a..", "a\0"],
)  # fmt: skip
def test_bad_names_are_refused_with_a_reason(host: str) -> None:
    assert hosts.fqdn_fault(host)


@pytest.mark.parametrize(
    "host",
    [
        "*",
        "*.com",
        "*.example.com",
        "*-shop.example.com",
        "a.b",
        "*shop.example.com",
        "*shop",
        "outbound_.80_.v1_.a.b",
        "outbound_.80_._.a.b",
    ],
)
def test_good_wildcards(host: str) -> None:
    assert hosts.wildcard_fault(host) == ""


@pytest.mark.parametrize(
    "host",
    [
        "",
        "**",
        "*.",
        "*a_.com",
        "a.*",
        "a*.b",
        "*.*.com",
        "*-",
        "a.*.b",
        "*--a",
        "outbound_.x_._.a",
        "outbound_.80_._.*",
    ],
)
def test_bad_wildcards_are_refused_with_a_reason(host: str) -> None:
    assert hosts.wildcard_fault(host)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("reviews", "reviews.shop.svc.cluster.local"),
        ("reviews.other", "reviews.other"),
        ("example.com", "example.com"),
        ("*", "*"),
        ("::1", "::1"),
        ("10.0.0.1", "10.0.0.1"),
    ],
)
def test_short_names_are_completed_and_nothing_else(host: str, expected: str) -> None:
    assert hosts.resolve(host, "shop") == expected


def test_another_domain_suffix() -> None:
    assert hosts.resolve("a", "b", "mesh.test") == "a.b.svc.mesh.test"


@pytest.mark.parametrize(
    ("pattern", "host", "expected"),
    [
        ("a.com", "a.com", True),
        ("a.com", "b.com", False),
        ("*", "a.com", True),
        ("*", "*.com", True),
        ("*.com", "a.com", True),
        ("*.com", "a.b.com", True),
        ("*.com", "*.a.com", True),
        ("*.com", "*.com", True),
        ("*.com", "com", False),
        ("*.com", ".com", False),
        ("*.a.com", "a.com", False),
        ("*.a.com", "*.com", False),
        ("a.com", "*", False),
        ("a.com", "*.com", False),
        ("*.a.com", "xa.com", False),
    ],
)
def test_what_a_pattern_covers(pattern: str, host: str, expected: bool) -> None:
    assert hosts.matches(pattern, host) is expected


@given(PATTERN, PATTERN, HOST)
def test_covering_is_reflexive_and_transitive(outer: str, inner: str, host: str) -> None:
    assert hosts.matches(outer, outer)
    assert hosts.matches("*", inner)
    if hosts.matches(outer, inner) and hosts.matches(inner, host):
        assert hosts.matches(outer, host)


@given(HOST)
def test_made_names_are_names_and_are_covered_by_their_wildcards(host: str) -> None:
    assert hosts.fqdn_fault(host) == ""
    first, dot, rest = host.partition(".")
    assert hosts.resolve(host, "ns") == (host if dot else f"{first}.ns.svc.cluster.local")
    if dot:
        assert hosts.matches(f"*.{rest}", host)


@given(st.lists(PATTERN, max_size=8))
def test_sorted_by_specificity_the_first_match_is_the_closest(patterns: list[str]) -> None:
    ordered = sorted(patterns, key=hosts.specificity)
    for index, earlier in enumerate(ordered):
        for later in ordered[index + 1 :]:
            assert earlier == later or not hosts.matches(earlier, later)


@given(st.text(max_size=40))
def test_no_text_raises(text: str) -> None:
    for function in (hosts.fqdn_fault, hosts.wildcard_fault, hosts.is_ip, hosts.is_cidr_or_ip):
        function(text)


@pytest.mark.parametrize(
    ("text", "ip", "cidr"),
    [
        ("10.0.0.1", True, True),
        ("10.0.0.0/8", False, True),
        ("10.0.0.1/8", False, True),
        ("::/0", False, True),
        ("::1", True, True),
        ("10.0.0.1/33", False, False),
        ("10.0.0", False, False),
        ("010.0.0.1", False, False),
        ("", False, False),
    ],
)
def test_addresses_and_subnets(text: str, ip: bool, cidr: bool) -> None:
    assert hosts.is_ip(text) is ip
    assert hosts.is_cidr_or_ip(text) is cidr


@pytest.mark.parametrize(("text", "good"), [("a", True), ("a-1", True), ("1", True), ("A", False),
                         ("a.b", False), ("", False), ("-a", False), ("a" * 64, False)])  # fmt: skip
def test_dns_labels(text: str, good: bool) -> None:
    assert hosts.is_dns_label(text) is good
