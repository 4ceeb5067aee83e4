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
    """Why a text is neither an FQDN nor one behind a leading ``*.`` or ``*-``; empty when it is."""
    if text == "*":
        return ""
    if text.startswith("*"):
        rest = (
            text[2:]
            if text.startswith("*.")
            else text[1:].lstrip("-")
            if text.startswith("*-")
            else None
        )
        if rest is None:
            return "a wildcard stands for whole labels at the start: *.example.com"
        return fqdn_fault(rest)
    return fqdn_fault(text)


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
