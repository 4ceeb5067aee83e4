"""Hosts as Istio writes them: FQDNs, wildcards, short names, and which of two is the more specific.

Source: istio pkg/config/host, pkg/config/validation (ValidateFQDN, ValidateWildcardDomain), pilot/pkg/model/config.go
(a name without a dot is completed with the namespace of the rule it stands in).
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

DOMAIN_SUFFIX: Final = "cluster.local"
_LABEL: Final = re.compile(r"[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?")
_WILDCARD_LABEL: Final = re.compile(r"\*(?:-?[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?)?")
_OUTBOUND: Final = re.compile(r"outbound_\.[0-9]+_\.[-a-zA-Z0-9]*_\.(.+)")
"""What a sidecar sends as SNI: ``outbound_.<port>_.<subset>_.<host>``."""
_DNS_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")


def is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_cidr_or_ip(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def is_dns_label(text: str) -> bool:
    """A Kubernetes name of one label (RFC 1123)."""
    return len(text) <= 63 and _DNS_LABEL.fullmatch(text) is not None


def is_label(text: str) -> bool:
    """A DNS label of either case: what Istio asks of names that only stand inside an object, such as a subset's."""
    return len(text) <= 63 and _LABEL.fullmatch(text) is not None


def fqdn_fault(text: str) -> str:
    """Why a text is no FQDN; empty when it is one. A trailing dot is allowed."""
    name = text.removesuffix(".")
    if not name:
        return "must not be empty"
    if len(name) > 255:
        return "must have at most 255 characters"
    for label in name.split("."):
        if len(label) > 63 or not _LABEL.fullmatch(label):
            return f"{label!r} is not a DNS label"
    if name.rsplit(".", 1)[-1].isdigit():
        return "a top-level domain cannot be a number"
    return ""


def wildcard_fault(text: str) -> str:
    """Why a text is neither an FQDN nor one whose first label is, or begins with, a ``*``; empty when it is."""
    if found := _OUTBOUND.fullmatch(text):
        return fqdn_fault(found[1])
    first, dot, rest = text.partition(".")
    if not first.startswith("*"):
        return fqdn_fault(text)
    if len(first) > 64 or not _WILDCARD_LABEL.fullmatch(first):
        return "a wildcard stands at the start: *.example.com"
    return fqdn_fault(rest) if dot else ""


def resolve(host: str, namespace: str, suffix: str = DOMAIN_SUFFIX) -> str:
    """A short name (no dot) completed with the namespace of the object it stands in; anything else as written."""
    if host == "*" or "." in host or is_ip(host) or host.startswith("*"):
        return host
    return f"{host}.{namespace}.svc.{suffix}"


def matches(pattern: str, host: str) -> bool:
    """Whether a host pattern (exact, or with a leading ``*``) covers a host, which may itself be a pattern."""
    if pattern == "*":
        return True
    if pattern.startswith("*"):
        other = host.removeprefix("*")
        return other.endswith(pattern[1:]) and (
            host.startswith("*") or len(host) > len(pattern) - 1
        )
    return pattern == host


def specificity(host: str) -> tuple[int, int]:
    """Sorts hosts: exact before wildcards, longer before shorter."""
    return (1 if host.startswith("*") else 0, -len(host))
