"""The names of the mesh, as Pilot's name tables tell them: what to answer for a name, or that it is not ours.

    apply({resource: NameTable bytes}, removed)   only the names of those resources are touched
    lookup(wire name) -> Found(entry, canonical)  or None: somebody else's name

A question is tried as it stands; completed, if it is short for a host of Kubernetes' form (``reviews``,
``reviews.shop``, ``reviews.shop.svc``); without a search domain of the workload's resolver, as a CNAME, since
resolvers ask those first; and last against wildcards, the most specific first. Nothing is stored for any of these
variants. Source: Istio's pkg/dns/client/dns.go (lookupHost, generateAltHosts, buildDNSAnswers).

All lookups run in the thread that applies, and ``apply`` awaits nothing: no lookup sees half of a change.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

import msgspec
from google.protobuf.message import DecodeError

from services.agent.dns import message
from windward.api.istio.networking.nds.v1 import nds_pb2

STAR = b"\x01*"
SVC = b"\x03svc\0"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One host. The tails are its records without their names (``message.address_tail``)."""

    host: str
    resource: str
    alias: bool
    """Whether it stands under a further name of the host: a host of that very name goes before it."""
    completes: bool
    """Whether short forms stand for it."""
    v4: tuple[bytes, ...]
    v6: tuple[bytes, ...]

    def tails(self, type_: int) -> tuple[bytes, ...] | None:
        """The records of a question's type; None for types that a name table knows nothing of."""
        match type_:
            case message.A:
                return self.v4
            case message.AAAA:
                return self.v6
            case message.ANY:
                return self.v4 + self.v6
        return None


class Found(msgspec.Struct, frozen=True, gc=False):
    entry: Entry
    canonical: bytes = b""
    """Wire form of the name that a search domain was appended to; empty when the question's name is it."""


class NameTable:
    def __init__(
        self,
        *,
        namespace: str,
        domain: str,
        search: Sequence[str] = (),
        families: Collection[int] = (4, 6),
    ) -> None:
        """``namespace``: the workload's own, whose services have short names. ``search``: of its resolver.

        ``families``: those in which the workload has addresses. A host that has one of these is not said to have others:
        an IPv6 virtual address is of no use to who has no IPv6, and some programs try nothing else.
        """
        self._families = families
        self._own = message.wire_name(f"{namespace}.svc.{domain}")
        self._svc = message.wire_name(f"svc.{domain}")
        self._domain = message.wire_name(domain)
        self._domains: Sequence[str] = ()
        self._search: tuple[bytes, ...] = ()
        self.search_in(search)
        self._names: dict[bytes, Entry] = {}
        self._contested: dict[bytes, list[Entry]] = {}
        self._held: dict[str, tuple[bytes, ...]] = {}
        self._wildcards = 0
        self._loaded = False

    def __len__(self) -> int:
        """How many names stand in it, variants not counted."""
        return len(self._names)

    def __iter__(self) -> Iterator[tuple[str, Entry]]:
        """(name, entry), by name."""
        for name in sorted(self._names):
            yield _text(name), self._names[name]

    def search_in(self, domains: Sequence[str]) -> None:
        """From now on the workload's resolver appends these."""
        if domains is not self._domains:
            self._domains, self._search = domains, tuple(_usable(domains))

    def apply(self, upserts: Mapping[str, bytes], removed: Iterable[str]) -> tuple[str, ...]:
        """Replace and remove resources; says what is wrong with those that were refused, which stay as they were.

        O(names of these resources). Of several claims to one name a host's own goes before an alias, then the
        resource's name decides, whatever came first.
        """
        self._loaded = True
        problems: list[str] = []
        read: dict[str, list[tuple[bytes, Entry]]] = {}
        for resource, data in upserts.items():
            try:
                read[resource] = list(self._entries(resource, data))
            except (DecodeError, ValueError, OSError) as error:
                problems.append(f"{resource}: {error}")
        for resource in removed:
            self._forget(resource)
        for resource, entries in read.items():
            self._forget(resource)
            self._held[resource] = tuple(dict.fromkeys(name for name, _ in entries))
            for name, entry in entries:
                self._claim(name, entry)
        return tuple(problems)

    def lookup(self, name: bytes) -> Found | None:
        """What is known of a lowercase wire name. A handful of look-ups, however large the table is."""
        starts = _starts(name)
        found = self._exact(name, starts)
        if found is not None:
            return Found(found)
        bases = [base for suffix in self._search if (base := _without(name, suffix, starts))]
        for base in bases:
            found = self._exact(base, _starts(base))
            if found is not None:
                return Found(found, base)
        if not self._wildcards:
            return None
        found = self._covering(name, starts)
        if found is not None:
            return Found(found)
        for base in bases:
            found = self._covering(base, _starts(base))
            if found is not None:
                return Found(found, base)
        return None

    def may_come(self, name: bytes) -> bool:
        """Whether a name looks like one of the mesh's, and no table has come yet: nobody else should deny it."""
        if self._loaded:
            return False
        short = len(_starts(name)) == 1
        return short or name.endswith((b"\x03svc" + self._domain, SVC))

    def _exact(self, name: bytes, starts: Sequence[int]) -> Entry | None:
        found = self._names.get(name)
        if found is not None or len(starts) > 3:
            return found
        match len(starts):
            case 1:
                full = name[:-1] + self._own
            case 2:
                full = name[:-1] + self._svc
            case 3 if name.endswith(SVC):
                full = name[:-1] + self._domain
            case _:
                return None
        found = self._names.get(full)
        return found if found is not None and found.completes else None

    def _covering(self, name: bytes, starts: Sequence[int]) -> Entry | None:
        for start in starts[1:]:
            found = self._names.get(STAR + name[start:])
            if found is not None:
                return found
        return None

    def _entries(self, resource: str, data: bytes) -> Iterator[tuple[bytes, Entry]]:
        table = nds_pb2.NameTable.FromString(data).table
        for host, info in table.items():
            v4: list[bytes] = []
            v6: list[bytes] = []
            for address in info.ips:
                packed = _packed(address)
                (v4 if len(packed) == 4 else v6).append(message.address_tail(packed))
            if v4 and 4 in self._families and 6 not in self._families:
                v6 = []
            if v6 and 6 in self._families and 4 not in self._families:
                v4 = []
            kubernetes = f"{info.shortname}.{info.namespace}.svc." if info.shortname else "."
            for name, alias in [(host, False), *((other, True) for other in info.alt_hosts)]:
                completes = not alias and host.startswith(kubernetes)
                wire = message.wire_name(name)
                yield wire, Entry(host, resource, alias, completes, tuple(v4), tuple(v6))

    def _claim(self, name: bytes, entry: Entry) -> None:
        present = self._names.get(name)
        if present is None:
            self._names[name] = entry
            self._wildcards += name.startswith(STAR)
            return
        claims = self._contested.setdefault(name, [present])
        claims.append(entry)
        claims.sort(key=_rank)
        self._names[name] = claims[0]

    def _forget(self, resource: str) -> None:
        for name in self._held.pop(resource, ()):
            left = [item for item in self._contested.pop(name, ()) if item.resource != resource]
            if len(left) > 1:
                self._contested[name] = left
            if left:
                self._names[name] = left[0]
            else:
                del self._names[name]
                self._wildcards -= name.startswith(STAR)


def _usable(domains: Iterable[str]) -> Iterator[bytes]:
    """Search domains come from a file that anybody may have written."""
    for domain in domains:
        with suppress(ValueError):
            yield message.wire_name(domain)


def _rank(entry: Entry) -> tuple[bool, str, str]:
    return (entry.alias, entry.resource, entry.host)


def _packed(address: str) -> bytes:
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except (OSError, ValueError) as error:
        raise ValueError(f"{address[:80]!r} is not an IP address") from error


def _starts(name: bytes) -> list[int]:
    """Where each label of a well-formed wire name begins, the root left out."""
    starts, at = [], 0
    while name[at]:
        starts.append(at)
        at += name[at] + 1
    return starts


def _without(name: bytes, suffix: bytes, starts: Sequence[int]) -> bytes:
    """The name that a search domain was appended to; empty if it was not, or is all there is."""
    at = len(name) - len(suffix)
    return name[:at] + b"\0" if at > 0 and name.endswith(suffix) and at in starts else b""


def _text(name: bytes) -> str:
    labels = [name[at + 1 : at + 1 + name[at]] for at in _starts(name)]
    return ".".join(label.decode("ascii") for label in labels)
