"""One form for rules that mean the same: what we wrote and what ``iptables-save`` prints differ in order and spelling.

    -p tcp --dport 53 -d 192.0.2.1/32 -j REDIRECT --to-port 15053
    -d 192.0.2.1/32 -p tcp -m tcp --dport 53 -j REDIRECT --to-ports 15053      the same, as saved

Matches of a rule must all hold, so their order means nothing. Whether this form is right is tested against the kernel:
whatever is loaded must be saved as something with the same form.
"""

from __future__ import annotations

import grp
import ipaddress
from collections.abc import Iterator

from services.agent.netfilter.errors import NetfilterError

Canonical = tuple[tuple[str, str, str], ...]
"""(extension, option with its ``!``, value), sorted."""

SPELLINGS = {"--to-port": "--to-ports", "--set-mark": "--set-xmark"}
MARKS = ("--mark", "--set-xmark", "--tproxy-mark", "--nfmask", "--ctmask")
WHOLE = 0xFFFFFFFF
IMPLIED = {
    ("--on-ip", "0.0.0.0"),
    ("--on-ip", "::"),
    ("--nfmask", str(WHOLE)),
    ("--ctmask", str(WHOLE)),
}
"""Said by ``iptables-save``, meant anyway."""


def canonical(spec: str) -> Canonical:
    """Raises NetfilterError for a group that this machine does not know."""
    return tuple(sorted(_items(spec)))


def _items(spec: str) -> Iterator[tuple[str, str, str]]:
    extension = ""
    for negated, option, value in _options(spec):
        if option == "-m":
            # What belongs to the protocol may stand without its -m.
            extension = "" if value in {"tcp", "udp"} else value
            continue
        if option == "-j":
            extension = value
        name = SPELLINGS.get(option, option)
        plain = _value(name, value)
        if plain == "" and name in {"-s", "-d"} and not negated:
            continue
        if (name, plain) in IMPLIED:
            continue
        own = "" if name.startswith("-") and not name.startswith("--") else extension
        yield own, ("! " if negated else "") + name, plain


def _options(spec: str) -> Iterator[tuple[bool, str, str]]:
    """(negated, option, its value)."""
    words = spec.split()
    negated, at = False, 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "!":
            negated = True
            continue
        values = []
        while at < len(words) and words[at] != "!" and not words[at].startswith("-"):
            values.append(words[at])
            at += 1
        yield negated, word, " ".join(values)
        negated = False


def _value(option: str, value: str) -> str:
    if option in {"-s", "-d"}:
        network = ipaddress.ip_network(value, strict=False)
        return str(network) if network.prefixlen else ""
    if option in MARKS:
        return _mark(option, value)
    if option == "--ctstate":
        return ",".join(sorted(value.split(",")))
    if option == "--gid-owner":
        return str(group_number(value))
    return value


def _mark(option: str, value: str) -> str:
    number, _, mask = value.partition("/")
    if option in {"--nfmask", "--ctmask"}:
        return str(int(number, 0))
    return f"{int(number, 0)}/{int(mask, 0) if mask else WHOLE}"


def group_number(name: str) -> int:
    """Rules may name a group; the kernel keeps its number."""
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise NetfilterError(
            f"ISTIO_OUTBOUND_OWNER_GROUPS: there is no group {name} here: give its number"
        ) from None
