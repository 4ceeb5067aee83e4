"""``denier`` and ``list``: verdicts about one request. Source: istio 1.4 mixer/adapter/{denier,list}."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from windward.config.mixer_rule import DenierParams, ListEntryType, ListParams

OK = 0
INVALID_ARGUMENT = 3
PERMISSION_DENIED = 7
FAILED_PRECONDITION = 9


@dataclass(frozen=True, slots=True)
class Verdict:
    """A gRPC status and its words; ``code`` 0 lets the request pass."""

    code: int = OK
    message: str = ""


Check = Callable[[Any], Verdict]
"""The instance's value (None for checknothing) -> verdict."""


def denier(params: DenierParams) -> Check:
    status = params.status
    code = (
        status.code if status else OK
    ) or FAILED_PRECONDITION  # a denier that says OK denies all the same
    verdict = Verdict(code, (status.message if status else "") or "denied by the mesh's policy")
    return lambda _: verdict


def list_checker(params: ListParams) -> Check:
    """A miss on a whitelist, or a hit on a blacklist, denies."""
    contains = _membership(params)

    def check(value: Any) -> Verdict:
        text = str(value)
        try:
            found = contains(text)
        except ValueError:
            return Verdict(INVALID_ARGUMENT, f"{text} is not a valid entry")
        if params.blacklist:
            return Verdict(PERMISSION_DENIED, f"{text} is blacklisted") if found else Verdict()
        return Verdict() if found else Verdict(PERMISSION_DENIED, f"{text} is not whitelisted")

    return check


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An IPv4 address that came as ``::ffff:10.0.0.1`` is 10.0.0.1: a list must not be passed by another spelling."""
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _membership(params: ListParams) -> Callable[[str], bool]:
    match params.entry_type:
        case ListEntryType.IP_ADDRESSES:
            networks = [ipaddress.ip_network(entry, strict=False) for entry in params.overrides]
            return lambda text: any(_address(text) in network for network in networks)
        case ListEntryType.CASE_INSENSITIVE_STRINGS:
            folded = {entry.upper() for entry in params.overrides}
            return lambda text: text.upper() in folded
        case _:
            exact = set(params.overrides)
            return lambda text: text in exact
