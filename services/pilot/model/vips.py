"""Virtual addresses for services that have none, so that a name resolves to something that Envoy can tell apart. Pure.

    hosts with their ages, those that went -> Vips.changed -> Vips (shares what did not change), and who moved

240.240.0.0/16 (class E) and 2001:2::/48 (benchmarking), as Istio uses them: a host has the same offset in both. The law:
addresses depend only on the hosts that are there and their ages, not on who computed them nor in which order hosts came.
Each host, the oldest first, takes the first free offset of a sequence that its name's hash decides. So a host that comes
moves nobody who is older; one that goes moves at most those that it had kept from an offset (of 1,000 hosts: eight on
average had met another at all). Source: Istio's pilot/pkg/serviceregistry/serviceentry/serviceentry.go (autoAllocateIPs).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from services.pilot.model.service import Service
from windward.config.service_entry import Resolution

OFFSETS: Final = 65521
"""A prime, so that any step visits every offset once."""
MOST_PROBES: Final = 128
"""A host that finds no offset in so many tries has no address: unlikely before nine of ten are taken."""
FIRST_V4: Final = int(IPv4Address("240.240.0.1"))
FIRST_V6: Final = int(IPv6Address("2001:2::f0f0:1"))
PINNED: Final = "="
"""Begins the names under which addresses that users gave themselves stand: no host has it."""

FIRST_OF_ALL: Final = datetime.min.replace(tzinfo=UTC)

Rank = tuple[bool, datetime, str]
"""The order of choosing: pinned addresses (False), then hosts by the age of their services, then by name."""


def wants_vip(service: Service) -> bool:
    """Whether a service is given addresses: it has none, and Envoy knows where its requests go without them."""
    return (
        not service.addresses
        and service.resolution is not Resolution.NONE
        and not service.host.startswith("*")
    )


@dataclass(frozen=True, slots=True)
class Vips:
    """Who has which offset. ``Vips()`` is nobody."""

    ranks: Mapping[str, Rank] = field(default_factory=dict)
    tried: Mapping[str, int] = field(default_factory=dict)
    """Host -> index in its sequence of the offset that it has; MOST_PROBES: it has none."""
    holders: Mapping[int, str] = field(default_factory=dict)
    rejected: Mapping[int, frozenset[str]] = field(default_factory=dict)
    """Offset -> hosts that would have it, were the holder not there: who come back for it when it is free."""
    moved: frozenset[str] = field(default=frozenset(), compare=False)
    """Hosts whose addresses differ from those in the value that this one was made from."""

    def addresses(self, host: str) -> tuple[str, ...]:
        """IPv4, then IPv6; nothing for a host that has none."""
        index = self.tried.get(host, MOST_PROBES)
        if index == MOST_PROBES:
            return ()
        offset = _probe(host, index)
        return (str(IPv4Address(FIRST_V4 + offset)), str(IPv6Address(FIRST_V6 + offset)))

    def changed(
        self,
        wanted: Mapping[str, datetime],
        gone: Iterable[str] = (),
        *,
        pinned: Iterable[str] = (),
        unpinned: Iterable[str] = (),
    ) -> Vips:
        """The value after hosts came (host -> when its service was created) or went.

        ``pinned``: addresses that users gave to services, which nobody gets; those outside the ranges mean nothing.
        ``unpinned``: addresses that no service has any more.
        O(changes), beside copying dicts of references; the very same value when nothing changes.
        """
        ranks = {host: (True, created, host) for host, created in wanted.items()}
        held = {name: (False, FIRST_OF_ALL, name) for name in _pins(pinned)}
        come = {name: rank for name, rank in (ranks | held).items() if self.ranks.get(name) != rank}
        left = [
            name
            for name in dict.fromkeys([*gone, *_pins(unpinned)])
            if name in self.ranks and name not in ranks and name not in held
        ]
        if not come and not left:
            return self if not self.moved else _settled(self)
        work = _Work(dict(self.ranks), dict(self.tried), dict(self.holders), dict(self.rejected))
        for name in (*left, *(name for name in come if name in self.ranks)):
            work.remove(name)
        for name, rank in come.items():
            work.add(name, rank)
        moved = {
            name
            for name in work.touched
            if not name.startswith(PINNED)
            and work.tried.get(name, MOST_PROBES) != self.tried.get(name, MOST_PROBES)
        }
        return Vips(work.ranks, work.tried, work.holders, work.rejected, frozenset(moved))


def _settled(vips: Vips) -> Vips:
    return Vips(vips.ranks, vips.tried, vips.holders, vips.rejected)


@dataclass(slots=True)
class _Work:
    """Copies under change. Invariant: a host holds the first offset of its sequence that no host before it holds."""

    ranks: dict[str, Rank]
    tried: dict[str, int]
    holders: dict[int, str]
    rejected: dict[int, frozenset[str]]
    touched: set[str] = field(default_factory=set)

    def add(self, name: str, rank: Rank) -> None:
        self.ranks[name] = rank
        self._seek(name, 0)

    def _seek(self, name: str, index: int) -> None:
        """Find an offset from ``index`` on; whoever has to give way to an older host seeks on."""
        while True:
            self.touched.add(name)
            if index >= _probes(name):
                self.tried[name] = MOST_PROBES
                return
            offset = _probe(name, index)
            holder = self.holders.get(offset)
            if holder is None or self.ranks[name] < self.ranks[holder]:
                self.holders[offset] = name
                self.tried[name] = index
                if holder is None:
                    return
                name, index = holder, self.tried[holder]
            self.rejected[offset] = self.rejected.get(offset, frozenset()) | {name}
            index += 1

    def remove(self, name: str) -> None:
        """Whoever was kept from the offset comes back for it, the oldest of them, and leaves another one in turn."""
        index = self.tried.pop(name)
        self.touched.add(name)
        self._forget(name, 0, index)
        free = _probe(name, index) if index < MOST_PROBES else None
        while free is not None:
            del self.holders[free]
            heirs = self.rejected.get(free)
            if not heirs:
                break
            heir = min(heirs, key=self.ranks.__getitem__)
            had = self.tried[heir]
            index = next(at for at in range(_probes(heir)) if _probe(heir, at) == free)
            self._forget(heir, index, had)
            self.holders[free], self.tried[heir] = heir, index
            self.touched.add(heir)
            free = _probe(heir, had) if had < MOST_PROBES else None
        del self.ranks[name]

    def _forget(self, name: str, begin: int, end: int) -> None:
        """It no longer waits for what it was refused."""
        for index in range(begin, min(end, _probes(name))):
            offset = _probe(name, index)
            left = self.rejected[offset] - {name}
            if left:
                self.rejected[offset] = left
            else:
                del self.rejected[offset]


def _probes(name: str) -> int:
    return 1 if name.startswith(PINNED) else MOST_PROBES


def _probe(name: str, index: int) -> int:
    """The offset that a host tries as its ``index``-th; a pinned address has one only."""
    if name.startswith(PINNED):
        return int(name[1:])
    digest = blake2b(name.encode(), digest_size=16).digest()
    first = int.from_bytes(digest[:8], "big") % OFFSETS
    step = 1 + int.from_bytes(digest[8:], "big") % (OFFSETS - 1)
    return (first + index * step) % OFFSETS


def _pins(addresses: Iterable[str]) -> list[str]:
    """Names of the offsets that are meant by addresses of the two ranges."""
    found = []
    for text in addresses:
        try:
            address = ip_address(text)
        except ValueError:
            continue  # a range of addresses: nothing of it is given out unless it lies here, and then to nobody
        first = FIRST_V4 if isinstance(address, IPv4Address) else FIRST_V6
        offset = int(address) - first
        if 0 <= offset < OFFSETS:
            found.append(f"{PINNED}{offset}")
    return found
