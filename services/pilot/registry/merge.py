"""Several registries as one: merged by host, the first that has a host wins. Pure.

    batches of each registry -> Merge.apply -> what to tell downstream: upserts, removals

A service entry of a later registry keeps the hosts that no earlier one has; without any it is not told at all, and comes
back when the earlier one gives the host up. Likewise for objects of the same kind, namespace and name. Within one registry
nothing is decided here: there the oldest wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from services.pilot.registry.protocol import RegistryBatch
from windward.config.object import ConfigObject, ObjectKey
from windward.config.service_entry import ServiceEntry
from windward.slices import Work, at_once


@dataclass(frozen=True, slots=True, order=True)
class Conflict:
    """A host that two registries have."""

    host: str
    loser: str
    winner: str


class Merge:
    """One owner. O(what changed), and what claims the same hosts."""

    def __init__(self, registries: Sequence[str]) -> None:
        """In the order in which they win."""
        self._rank = {name: rank for rank, name in enumerate(registries)}
        self._names = tuple(registries)
        self._held: list[dict[ObjectKey, ConfigObject[Any]]] = [{} for _ in registries]
        self._chosen: dict[ObjectKey, tuple[int, ConfigObject[Any]]] = {}
        """Each key's object from the first registry that has the key."""
        self._claims: dict[str, dict[ObjectKey, int]] = {}
        """Host -> keys of chosen objects that have it -> rank."""
        self._told: dict[ObjectKey, ConfigObject[Any]] = {}
        self.conflicts: set[Conflict] = set()
        """Those of now."""

    def apply(self, registry: str, batch: RegistryBatch) -> RegistryBatch:
        """All of ``applying`` at once."""
        return at_once(self.applying(registry, batch))

    def applying(self, registry: str, batch: RegistryBatch) -> Work[RegistryBatch]:
        """Take in a registry's batch; what is different for those who see all registries as one.

        Yields where other work may go between, but that of this merge.
        """
        held = self._held[self._rank[registry]]
        come = {item.key: item for item in batch.upserts}
        gone = set(batch.removed) - come.keys()
        if batch.whole:
            gone |= held.keys() - come.keys()
        for key in gone:
            held.pop(key, None)
        held.update(come)
        concerned = gone | come.keys()
        hosts: set[str] = set()
        for key in concerned:
            hosts |= self._choose(key)
            yield
        for host in hosts:
            # Not |=: with a view of keys that makes a new set a host, which is quadratic at a start.
            concerned.update(self._claims.get(host, ()))
        self._note_conflicts(hosts)
        yield
        return (yield from self._tell(concerned))

    def count(self, registry: str) -> int:
        """How many objects a registry has."""
        return len(self._held[self._rank[registry]])

    def _choose(self, key: ObjectKey) -> set[str]:
        """Settle who has a key; the hosts that are claimed by another now, or no longer."""
        before = self._chosen.pop(key, None)
        now = next(((rank, held[key]) for rank, held in enumerate(self._held) if key in held), None)
        old, new = _claimed(before), _claimed(now)
        for _, host in old:
            self._claims[host].pop(key)
            if not self._claims[host]:
                del self._claims[host]
        if now is not None:
            self._chosen[key] = now
        for rank, host in new:
            self._claims.setdefault(host, {})[key] = rank
        return {host for _, host in old ^ new}

    def _tell(self, keys: Iterable[ObjectKey]) -> Work[RegistryBatch]:
        upserts: list[ConfigObject[Any]] = []
        removed: list[ObjectKey] = []
        for key in sorted(keys):
            yield
            now = self._effective(key)
            if now == self._told.get(key):
                continue
            if now is None:
                del self._told[key]
                removed.append(key)
            else:
                self._told[key] = now
                upserts.append(now)
        return RegistryBatch(tuple(upserts), tuple(removed))

    def _effective(self, key: ObjectKey) -> ConfigObject[Any] | None:
        """An object without the hosts that an earlier registry has."""
        rank, item = self._chosen.get(key, (0, None))
        if item is None or not isinstance(item.spec, ServiceEntry):
            return item
        won = tuple(host for host in item.spec.hosts if self._winner(host) == rank)
        if won == item.spec.hosts:
            return item
        return replace(item, spec=_with_hosts(item.spec, won)) if won else None

    def _winner(self, host: str) -> int:
        return min(self._claims[host].values())

    def _note_conflicts(self, hosts: set[str]) -> None:
        if not hosts:
            return
        self.conflicts = {item for item in self.conflicts if item.host not in hosts}
        for host in hosts & self._claims.keys():
            winner = self._winner(host)
            for rank in set(self._claims[host].values()) - {winner}:
                self.conflicts.add(Conflict(host, self._names[rank], self._names[winner]))


def _claimed(chosen: tuple[int, ConfigObject[Any]] | None) -> set[tuple[int, str]]:
    """(rank, host) of a service entry."""
    if chosen is None or not isinstance(chosen[1].spec, ServiceEntry):
        return set()
    return {(chosen[0], host) for host in chosen[1].spec.hosts}


def _with_hosts(spec: ServiceEntry, hosts: tuple[str, ...]) -> ServiceEntry:
    """As many addresses as hosts are one each, and leave with their hosts."""
    if len(spec.addresses) != len(spec.hosts) or len(spec.hosts) == 1:
        return msgspec.structs.replace(spec, hosts=hosts)
    pairs = zip(spec.hosts, spec.addresses, strict=True)
    kept = tuple(address for host, address in pairs if host in hosts)
    return msgspec.structs.replace(spec, hosts=hosts, addresses=kept)
