"""Rules that several kinds share: ports, exportTo, selectors, percentages, durations, hosts, header names.

Source: istio pkg/config/validation/validation.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from windward.config import regex
from windward.config.hosts import fqdn_fault, is_dns_label, is_ip, is_label, wildcard_fault
from windward.config.report import Report
from windward.config.types import Duration, Spec

_HEADER_NAME: Final = re.compile(r"[-!#$%&'*+.^_`|~0-9a-zA-Z]+")
_LABEL_KEY: Final = re.compile(
    r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE: Final = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
PROTOCOLS: Final = frozenset(
    {
        "HTTP",
        "HTTPS",
        "GRPC",
        "GRPC-WEB",
        "HTTP2",
        "MONGO",
        "REDIS",
        "MYSQL",
        "TCP",
        "TLS",
        "UDP",
        "HTTP_PROXY",
        "HBONE",
    }
)


class PortSelector(Spec, frozen=True):
    number: int = 0


class WorkloadSelector(Spec, frozen=True):
    """networking's selector."""

    labels: dict[str, str] = {}


class StringMatch(Spec, frozen=True):
    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None


def check_port(number: int, report: Report) -> None:
    if not 1 <= number <= 65535:
        report.error("out-of-range", f"must be a port between 1 and 65535, is {number}")


def check_protocol(protocol: str, report: Report) -> None:
    if not protocol:
        report.error("required", f"must be one of {', '.join(sorted(PROTOCOLS))}")
    elif protocol.upper() not in PROTOCOLS:
        report.error(
            "invalid-value", f"must be one of {', '.join(sorted(PROTOCOLS))}, is {protocol}"
        )


def check_port_name(name: str, report: Report) -> None:
    if not name:
        report.error("required", "must be set")
    elif not is_label(name):
        report.error("invalid-value", f"must be a DNS label, is {name!r}")


def check_export_to(export_to: tuple[str, ...], report: Report, namespace: str = "") -> None:
    """``*``, ``.``, ``~`` or namespaces; ``*`` and ``~`` stand alone, nothing stands twice."""
    seen: set[str] = set()
    for index, entry in enumerate(export_to):
        if entry not in {"*", ".", "~"} and not is_dns_label(entry):
            report.at(index).error("invalid-value", f"must be *, ., ~ or a namespace, is {entry!r}")
        meant = namespace if entry == "." and namespace else entry
        if meant in seen:
            report.at(index).error("duplicate", f"{entry!r} stands twice")
        seen.add(meant)
    if len(export_to) > 1 and ("*" in seen or "~" in seen):
        report.error("conflict", "* and ~ stand alone")


def check_labels(labels: Mapping[str, str], report: Report) -> None:
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            report.key(key[:80]).error("invalid-value", "is not a label key")
        if not _LABEL_VALUE.fullmatch(value):
            report.key(key[:80]).error("invalid-value", f"{value[:80]!r} is not a label value")


def check_selector(labels: Mapping[str, str], report: Report) -> None:
    """Selectors: no empty key, no wildcard; an empty value selects nothing a user would mean."""
    for key, value in labels.items():
        if not key:
            report.error("invalid-value", "a selector's key must not be empty")
        if "*" in key or "*" in value:
            report.key(key).error("invalid-value", "wildcards are not supported in selectors")


def check_fqdn(host: str, report: Report) -> None:
    if problem := fqdn_fault(host):
        report.error("invalid-host", problem)


def check_wildcard_host(host: str, report: Report) -> None:
    if problem := wildcard_fault(host):
        report.error("invalid-host", problem)


def check_host_or_ip(host: str, report: Report) -> None:
    """An FQDN, a leading wildcard, or an IP address."""
    if not host:
        report.error("required", "must be set")
    elif not is_ip(host):
        check_wildcard_host(host, report)


def check_duration(
    value: Duration, report: Report, *, least_s: float = 0.001, most_s: float = 0.0
) -> None:
    """Whole milliseconds, at least 1 ms, as Envoy's timers want."""
    if value < least_s:
        report.error("out-of-range", f"must be at least {least_s * 1000:g} ms, is {value:g} s")
    elif abs(value * 1000 - round(value * 1000)) > 1e-6:
        report.error("invalid-value", f"must be whole milliseconds, is {value:g} s")
    if most_s and value > most_s:
        report.error("out-of-range", f"must be at most {most_s:g} s, is {value:g} s")


def check_percent(value: float, report: Report) -> None:
    if not 0 <= value <= 100 or 0 < value < 0.0001:
        report.error(
            "out-of-range", f"must be between 0 and 100, and 0 or at least 0.0001, is {value:g}"
        )


def check_regex(pattern: str, report: Report) -> None:
    if problem := regex.fault(pattern):
        report.error("invalid-regex", problem)


def check_string_match(match: StringMatch, report: Report) -> None:
    report.one_of({"exact": match.exact, "prefix": match.prefix, "regex": match.regex})
    if match.regex is not None:
        if not match.regex:
            report.at("regex").error("required", "must not be empty")
        check_regex(match.regex, report.at("regex"))


def check_header_name(name: str, report: Report, *, strict: bool = False) -> None:
    """A header field name (RFC 9110, 5.1); strict: no pseudo-header and not ``host``."""
    if not name:
        report.error("required", "a header name must not be empty")
        return
    plain = name.removeprefix(":")
    if not _HEADER_NAME.fullmatch(plain):
        report.error("invalid-value", f"{name!r} is not a header name")
    elif strict and (name.startswith(":") or name.lower() == "host"):
        report.error(
            "invalid-value",
            f"{name!r} cannot be changed here",
            "use rewrite.authority or rewrite.uri",
        )
