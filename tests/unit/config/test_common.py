"""Rules that several kinds share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from windward.config import common
from windward.config.report import Report
from windward.config.types import Duration


def judged(check: Callable[..., None], value: Any, **options: Any) -> list[str]:
    report = Report("x")
    check(value, report, **options)
    return [f"{finding.path} {finding.code}" for finding in report.findings]


@pytest.mark.parametrize(
    ("number", "good"), [(1, True), (65535, True), (0, False), (65536, False), (-1, False)]
)
def test_ports(number: int, good: bool) -> None:
    assert judged(common.check_port, number) == ([] if good else ["x out-of-range"])


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [("HTTP", []), ("http2", []), ("grpc-web", []), ("", ["x required"]), ("QUIC", ["x invalid-value"])],
)  # fmt: skip
def test_protocols(protocol: str, expected: list[str]) -> None:
    assert judged(common.check_protocol, protocol) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("http", []), ("http-1", []), ("", ["x required"]), ("http_1", ["x invalid-value"])],
)
def test_port_names(name: str, expected: list[str]) -> None:
    assert judged(common.check_port_name, name) == expected


@pytest.mark.parametrize(
    ("seconds", "options", "expected"),
    [
        (1.0, {}, []),
        (0.001, {}, []),
        (1.001, {}, []),
        (0.0, {}, ["x out-of-range"]),
        (0.0, {"least_s": 0.0}, []),
        (-1.0, {}, ["x out-of-range"]),
        (0.0015, {}, ["x invalid-value"]),
        (61.0, {"most_s": 60.0}, ["x out-of-range"]),
        (60.0, {"most_s": 60.0}, []),
    ],
)
def test_durations(seconds: float, options: dict[str, float], expected: list[str]) -> None:
    assert judged(common.check_duration, Duration(seconds), **options) == expected


@pytest.mark.parametrize(
    ("value", "good"),
    [(0, True), (0.0001, True), (100, True), (100.1, False), (-0.1, False), (0.00001, False)],
)
def test_percentages(value: float, good: bool) -> None:
    assert judged(common.check_percent, value) == ([] if good else ["x out-of-range"])


@pytest.mark.parametrize(
    ("name", "strict", "expected"),
    [
        ("x-y", False, []),
        ("X_Y.z~", True, []),
        (":path", False, []),
        ("host", False, []),
        (":path", True, ["x invalid-value"]),
        ("Host", True, ["x invalid-value"]),
        ("", False, ["x required"]),
        ("a b", False, ["x invalid-value"]),
        ("a:b", False, ["x invalid-value"]),
        ("::a", False, ["x invalid-value"]),
        ("a\n", False, ["x invalid-value"]),
        (":", False, ["x invalid-value"]),
    ],
)
def test_header_names(name: str, strict: bool, expected: list[str]) -> None:
    assert judged(common.check_header_name, name, strict=strict) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("a.b", []),
        ("*.b", []),
        ("::1", []),
        ("10.0.0.1", []),
        ("", ["x required"]),
        ("a_b", ["x invalid-host"]),
        ("10.0.0.256", ["x invalid-host"]),
    ],
)
def test_hosts_or_addresses(host: str, expected: list[str]) -> None:
    assert judged(common.check_host_or_ip, host) == expected


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, []),
        ({"app": "a", "example.com/app": "A_1.b", "empty": ""}, []),
        ({"": "a"}, ['x[""] invalid-value']),
        ({"a/b/c": "a"}, ['x["a/b/c"] invalid-value']),
        ({"/a": "a"}, ['x["/a"] invalid-value']),
        ({"a" * 64: "a"}, [f'x["{"a" * 64}"] invalid-value']),
        ({"a": "-a"}, ['x["a"] invalid-value']),
        ({"a ": "b", "c": "d e"}, ['x["a "] invalid-value', 'x["c"] invalid-value']),
    ],
)
def test_labels(labels: dict[str, str], expected: list[str]) -> None:
    assert judged(common.check_labels, labels) == expected


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"app": "a"}, []),
        ({"": "a"}, ["x invalid-value"]),
        ({"app": "v*"}, ['x["app"] invalid-value']),
        ({"*": "v"}, ['x["*"] invalid-value']),
    ],
)
def test_selectors_have_no_wildcards(labels: dict[str, str], expected: list[str]) -> None:
    assert judged(common.check_selector, labels) == expected


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ((), []),
        (("*",), []),
        ((".",), []),
        ((".", "other"), []),
        (("here", "."), ["x[1] duplicate"]),
        (("a", "b", "a"), ["x[2] duplicate"]),
        (("*", "a"), ["x conflict"]),
        (("A",), ["x[0] invalid-value"]),
        (("",), ["x[0] invalid-value"]),
    ],
)
def test_export_to(entries: tuple[str, ...], expected: list[str]) -> None:
    assert judged(common.check_export_to, entries, namespace="here") == expected


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        (common.StringMatch(), []),
        (common.StringMatch(exact=""), []),
        (common.StringMatch(prefix="a", exact="b"), ["x conflict"]),
        (common.StringMatch(regex=""), ["x.regex required"]),
        (common.StringMatch(regex="(?<=a)"), ["x.regex invalid-regex"]),
    ],
)
def test_string_matches(match: common.StringMatch, expected: list[str]) -> None:
    assert judged(common.check_string_match, match) == expected
