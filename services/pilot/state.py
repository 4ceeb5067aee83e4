"""The mesh's state, with one owner: changes by key in, the next snapshot and its difference out.

    objects and workloads that changed -> MeshState.apply -> MeshSnapshot, Delta

The cost is that of what changed (and of copying dicts of references), not of what exists. The law: however a state came
about, it is what a fresh state makes of the same objects and workloads.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from services.pilot.ahead import Ahead
from services.pilot.credentials.folder import Changes
from services.pilot.envoy.gateway_routes import destination_hosts
from services.pilot.model.hosts import HostIndex
from services.pilot.model.service import Endpoint, Service, labels_match
from services.pilot.model.sidecar_scope import Sidecars
from services.pilot.model.vips import Vips, wants_vip
from services.pilot.registry.liveness import WorkloadKey
from services.pilot.registry.mesh import (
    age_order,
    endpoint_of_entry,
    endpoint_of_workload,
    listed_endpoints,
    services_of,
)
from services.pilot.snapshot import Address, Delta, MeshSnapshot
from services.pilot.taken_back import Pair, TakenBack, route_hosts, rule_hosts
from windward.config.hosts import matches
from windward.config.mixer_rule import fails_open, is_check_rule
from windward.config.object import ConfigObject, ObjectKey
from windward.config.service_entry import Resolution, ServiceEntry
from windward.config.virtual_service import VirtualService
from windward.identity.names import ROOT_NAMESPACE
from windward.registration import RegisteredWorkload
from windward.slices import Work, at_once

Objects = dict[ObjectKey, ConfigObject[Any]]
NONE: Mapping[ObjectKey, ConfigObject[Any]] = {}
NO_CREDENTIALS: Changes = {}
Label = tuple[str, str, str]
"""(namespace, key, value)."""
Rank = tuple[Any, ...]
"""The order of endpoints behind a service: live workloads by name, then WorkloadEntries by age."""
K = TypeVar("K")
V = TypeVar("V")


class Candidates:
    """Workloads that services may select, found by label."""

    def __init__(self) -> None:
        self._by_label: dict[Label, dict[Rank, Endpoint]] = {}
        self._hosts: dict[Label, set[str]] = {}
        self._selectors: dict[str, Label] = {}

    def select(self, service: Service | None, host: str) -> None:
        """What a host selects from now on; None: nothing."""
        old = self._selectors.pop(host, None)
        if old is not None:
            _discard(self._hosts, old, host)
        if service is not None and service.selector and service.resolution is not Resolution.NONE:
            label = (service.namespace, *service.selector[0])
            self._selectors[host] = label
            self._hosts.setdefault(label, set()).add(host)

    def put(self, rank: Rank, before: Endpoint | None, now: Endpoint | None) -> set[str]:
        """Replace a workload; the hosts that may have it, or had it, among their endpoints."""
        touched: set[str] = set()
        for endpoint, kept in ((before, False), (now, True)):
            if endpoint is None:
                continue
            for key, value in endpoint.labels.items():
                label = (endpoint.namespace, key, value)
                touched |= self._hosts.get(label, set())
                if kept:
                    self._by_label.setdefault(label, {})[rank] = endpoint
                else:
                    members = self._by_label.get(label, {})
                    members.pop(rank, None)
                    if not members:
                        self._by_label.pop(label, None)
        return touched

    def selected(self, service: Service) -> tuple[Endpoint, ...]:
        """The workloads of the service's own namespace that its selector names."""
        if not service.selector or service.resolution is Resolution.NONE:
            return ()
        members = self._by_label.get((service.namespace, *service.selector[0]), {})
        return tuple(
            members[rank]
            for rank in sorted(members)
            if labels_match(service.selector, members[rank].labels)
        )


class MeshState:
    """One owner applies changes; ``snapshot`` is what is in force."""

    def __init__(self) -> None:
        self.snapshot = MeshSnapshot()
        self._objects: dict[str, Objects] = {}
        """Kind -> key -> object."""
        self._replaced: dict[ObjectKey, ConfigObject[Any] | None] = {}
        """What a change in hand has put others in the place of; None: nothing was there."""
        self._claims: dict[str, list[tuple[Any, ConfigObject[ServiceEntry]]]] = {}
        self._workloads: dict[WorkloadKey, Endpoint] = {}
        self._candidates = Candidates()
        self._given: Counter[str] = Counter()
        """Addresses that users gave to services -> how many have them."""
        self._label_users: set[ObjectKey] = set()
        self._taken_back = TakenBack()
        self.ahead = Ahead()
        """Of ``snapshot``'s maps."""
        self.put_again: tuple[ObjectKey, ...] = ()
        """Refused objects that the last change put in force again: what they are about is another one."""

    def in_force(self) -> Objects:
        """The objects that ``snapshot`` is of, also while others are applied; made anew with each call."""
        found = {key: item for kind in self._objects.values() for key, item in kind.items()}
        for key, item in self._replaced.items():
            if item is None:
                found.pop(key, None)
            else:
                found[key] = item
        return found

    def apply(self, *changes: Any, **more: Any) -> Delta:
        """All of ``applying`` at once."""
        return at_once(self.applying(*changes, **more))

    def applying(
        self,
        objects: Mapping[ObjectKey, ConfigObject[Any] | None],
        workloads: Mapping[WorkloadKey, tuple[RegisteredWorkload, bool] | None],
        revision: int,
        refused: Mapping[ObjectKey, ConfigObject[Any]] = NONE,
        *,
        position: str = "",
        credentials: Changes = NO_CREDENTIALS,
    ) -> Work[Delta]:
        """Objects and (workload, healthy) as they are now; None for what is gone. Yields where other work may go between.

        ``refused``: objects, as they are, that Envoy refuses. The last good ones stay in force until they change, or until
        a service that they are about does.
        """
        pairs: dict[str, list[Pair]] = {}
        for key, come in objects.items():
            yield
            if come is not None and self._taken_back.is_refused(come):
                continue
            self._taken_back.forget(key)
            kind = self._objects.setdefault(key.kind, {})
            gone = kind.get(key)
            if gone == come:
                continue  # indices hold the very object that came first
            self._replaced.setdefault(key, gone)
            if come is None:
                del kind[key]
            else:
                kind[key] = come
            pairs.setdefault(key.kind, []).append((gone, come))
            self._taken_back.replaced(key, gone, come)
        for item in refused.values():
            kind = self._objects.setdefault(item.key.kind, {})
            for pair in self._taken_back.take_back(kind, item):
                self._replaced.setdefault(item.key, pair[0])
                pairs.setdefault(item.key.kind, []).append(pair)
        touched = set[str]()
        for pair in pairs.get("ServiceEntry", ()):
            touched |= self._claim(*pair)
            yield
        for pair in pairs.get("WorkloadEntry", ()):
            touched |= self._candidate_entry(*pair)
            yield
        for name, workload in workloads.items():
            touched |= self._candidate_workload(name, workload)
            yield
        before = self.snapshot
        now, delta = yield from self._registry(before, touched)
        yield
        retried = self._taken_back.due(delta.services)
        self.put_again = tuple(item.key for item in retried)
        for item in retried:
            again = self._taken_back.put_again(self._objects[item.key.kind], item)
            pairs.setdefault(item.key.kind, []).append(again)
        now, delta = self._policies(now, delta, pairs)
        if credentials:
            held = {**now.credentials, **credentials}
            now = replace(now, credentials={name: it for name, it in held.items() if it})
            delta = replace(delta, credentials=frozenset(credentials))
        version = before.version + 1 if delta else max(before.version, 1)
        self.snapshot = replace(now, version=version, revision=revision, position=position)
        self._replaced = {}
        return delta

    def look_ahead(self) -> None:
        """In a quiet moment: endpoints change most, and soon."""
        self.ahead.prepare((self.snapshot.endpoints, self.snapshot.hosts_at))

    # ---- services and endpoints -------------------------------------------------------------------------------------

    def _claim(
        self, gone: ConfigObject[ServiceEntry] | None, come: ConfigObject[ServiceEntry] | None
    ) -> set[str]:
        """Which hosts a ServiceEntry claims; those that it is about, or was."""
        touched: set[str] = set()
        for item in (gone, come):
            if item is None:
                continue
            for host in item.spec.hosts:
                touched.add(host)
                claims = self._claims.setdefault(host, [])
                if item is come:
                    insort(claims, (age_order(item), item), key=lambda pair: pair[0])
                else:
                    claims[:] = [pair for pair in claims if pair[1] is not item]
                if not claims:
                    del self._claims[host]
        return touched

    def _candidate_entry(
        self, gone: ConfigObject[Any] | None, come: ConfigObject[Any] | None
    ) -> set[str]:
        touched: set[str] = set()
        if gone is not None:
            endpoint = endpoint_of_entry(gone.spec, gone.key.namespace, gone.key.name)
            touched |= self._candidates.put((1, *age_order(gone)), endpoint, None)
        if come is not None:
            endpoint = endpoint_of_entry(come.spec, come.key.namespace, come.key.name)
            touched |= self._candidates.put((1, *age_order(come)), None, endpoint)
        return touched

    def _candidate_workload(
        self, key: WorkloadKey, workload: tuple[RegisteredWorkload, bool] | None
    ) -> set[str]:
        before = self._workloads.pop(key, None)
        now = None
        if workload is not None:
            now = endpoint_of_workload(workload[0], healthy=workload[1])
            self._workloads[key] = now
        return set() if now == before else self._candidates.put((0, *key), before, now)

    def _registry(
        self, before: MeshSnapshot, touched: set[str]
    ) -> Work[tuple[MeshSnapshot, Delta]]:
        now: dict[str, tuple[Service | None, tuple[Endpoint, ...]]] = {}
        for host in sorted(touched):
            yield
            now[host] = self._host(host)
        come = {host for host, (service, _) in now.items() if service != before.services.get(host)}
        moved = {host for host, (_, them) in now.items() if them != before.endpoints.get(host, ())}
        services, endpoints, hosts_at = before.services, before.endpoints, before.hosts_at
        addresses: set[Address] = set()
        if come:
            services = changed = self.ahead.copy(before.services)
            for host in come:
                service, _ = now[host]
                self._candidates.select(service, host)
                _put(changed, host, service)
                yield
        if come or moved:
            endpoints = changed_endpoints = self.ahead.copy(before.endpoints)
            for host in come | moved:
                service, them = now[host]
                _put(changed_endpoints, host, them if service is not None else None)
        if moved:
            hosts_at = places = self.ahead.copy(before.hosts_at)
            for host in moved:
                had, them = before.endpoints.get(host, ()), now[host][1]
                addresses |= _differing(had, them)
                _move(places, host, set(map(_place, had)), set(map(_place, them)))
                yield
        vips = yield from self._vips(before, services, touched)
        delta = Delta(
            services=frozenset(come) | vips.moved,
            endpoints=frozenset(moved),
            addresses=frozenset(addresses),
        )
        if not delta:
            return replace(before, vips=vips), delta
        after = replace(
            before, services=services, endpoints=endpoints, hosts_at=hosts_at, vips=vips
        )
        return after, delta

    def _vips(
        self, before: MeshSnapshot, services: Mapping[str, Service], changed: AbstractSet[str]
    ) -> Work[Vips]:
        """Virtual addresses after these services came, went, changed or aged."""
        wanted: dict[str, datetime] = {}
        gone: list[str] = []
        for host in changed:
            yield
            old, new = before.services.get(host), services.get(host)
            self._given.subtract(old.addresses if old else ())
            self._given.update(new.addresses if new else ())
            if new is not None and wants_vip(new):
                wanted[host] = age_order(self._claims[host][0][1])[0]
            else:
                gone.append(host)
        named = {
            address
            for host in changed
            for service in (before.services.get(host), services.get(host))
            for address in (service.addresses if service else ())
        }
        pinned = [address for address in sorted(named) if self._given[address] > 0]
        unpinned = [address for address in sorted(named) if self._given[address] <= 0]
        for address in unpinned:
            del self._given[address]
        return before.vips.changed(wanted, gone, pinned=pinned, unpinned=unpinned)

    def _host(self, host: str) -> tuple[Service | None, tuple[Endpoint, ...]]:
        """A host's service, from the oldest entry that claims it, and what is behind it."""
        claims = self._claims.get(host)
        if not claims:
            return None, ()
        entry = claims[0][1]
        service = next(item for item in services_of(entry) if item.host == host)
        if service.selector is None:
            return service, listed_endpoints(entry)
        return service, self._candidates.selected(service)

    # ---- policies -----------------------------------------------------------------------------------------------------

    def _policies(
        self, now: MeshSnapshot, delta: Delta, pairs: Mapping[str, list[Pair]]
    ) -> tuple[MeshSnapshot, Delta]:
        if rules := pairs.get("DestinationRule"):
            index = now.rules.changed(rules, rule_hosts, age_order)
            now = replace(now, rules=index)
            delta = replace(delta, rules=_services_named(now, rules, rule_hosts))
        if routes := pairs.get("VirtualService"):
            now, delta = self._routes(now, delta, routes)
        if "Gateway" in pairs:
            now = replace(now, gateways=self._oldest_first("Gateway"))
            delta = replace(delta, gateways=True)
        if "PeerAuthentication" in pairs:
            now = replace(now, peer_authentications=self._oldest_first("PeerAuthentication"))
            delta = replace(delta, peers=True)
        if "Sidecar" in pairs:
            found = self._objects["Sidecar"].values()
            now = replace(now, sidecars=Sidecars.of(found, ROOT_NAMESPACE))
            delta = replace(delta, scopes=True)
        if "rule" in pairs or "instance" in pairs:
            instances = tuple(self._objects.get("instance", {}).values())
            checks = [
                item
                for item in self._objects.get("rule", {}).values()
                if is_check_rule(item, instances)
            ]
            opens, closes = any(map(fails_open, checks)), not all(map(fails_open, checks))
            if (opens, closes) != (now.checks_open, now.checks_closed):
                now = replace(now, checks_open=opens, checks_closed=closes)
                delta = replace(delta, checks=True)
        return now, delta

    def _routes(
        self, now: MeshSnapshot, delta: Delta, pairs: list[Pair]
    ) -> tuple[MeshSnapshot, Delta]:
        index: HostIndex[ConfigObject[VirtualService]] = now.routes.changed(
            pairs, route_hosts, age_order
        )
        now = replace(now, routes=index, virtual_services=len(self._objects["VirtualService"]))
        delta = replace(delta, routes=_services_named(now, pairs, route_hosts))
        for gone, come in pairs:
            if gone is not None:
                self._label_users.discard(gone.key)
            if come is not None and _uses_labels(come.spec):
                self._label_users.add(come.key)
        if bool(self._label_users) != now.routes_by_label:
            now = replace(now, routes_by_label=bool(self._label_users))
            delta = replace(delta, scopes=True)
        if any(item is not None and item.spec.gateways for pair in pairs for item in pair):
            named = self._oldest_first("VirtualService")
            routes = tuple(item for item in named if item.spec.gateways)
            now = replace(
                now, gateway_routes=routes, gateway_destinations=destination_hosts(routes)
            )
            delta = replace(delta, gateways=True)
        return now, delta

    def _oldest_first(self, kind: str) -> tuple[ConfigObject[Any], ...]:
        return tuple(sorted(self._objects.get(kind, {}).values(), key=age_order))


def _uses_labels(spec: VirtualService) -> bool:
    return any(match.source_labels for item in spec.http for match in item.match) or any(
        match.source_labels for item in spec.tcp for match in item.match
    )


def _services_named(now: MeshSnapshot, pairs: Iterable[Pair], hosts_of: Any) -> frozenset[str]:
    """The services that objects, before or after their change, are about."""
    patterns = {
        host for pair in pairs for item in pair if item is not None for host in hosts_of(item)
    }
    found = {host for host in patterns if host in now.services}
    wildcards = [pattern for pattern in patterns if pattern.startswith("*")]
    if wildcards:
        found |= {
            host for host in now.services if any(matches(pattern, host) for pattern in wildcards)
        }
    return frozenset(found)


def _place(endpoint: Endpoint) -> Address:
    return (endpoint.namespace, endpoint.address)


def _differing(had: Sequence[Endpoint], found: Sequence[Endpoint]) -> set[Address]:
    """Where the workloads are that came, went or changed."""
    before = {(_place(endpoint), endpoint.workload): endpoint for endpoint in had}
    now = {(_place(endpoint), endpoint.workload): endpoint for endpoint in found}
    return {key[0] for key in before.keys() | now.keys() if before.get(key) != now.get(key)}


def _move(
    hosts_at: MutableMapping[Address, tuple[str, ...]],
    host: str,
    had: set[Address],
    found: set[Address],
) -> None:
    """A host's workloads are now at other addresses."""
    for place in had - found:
        _put(hosts_at, place, tuple(h for h in hosts_at[place] if h != host) or None)
    for place in found - had:
        hosts_at[place] = tuple(sorted((*hosts_at.get(place, ()), host)))


def _put(mapping: MutableMapping[K, V], key: K, value: V | None) -> None:
    if value is None:
        mapping.pop(key, None)
    else:
        mapping[key] = value


def _discard(sets: MutableMapping[K, set[V]], key: K, value: V) -> None:
    members = sets[key]
    members.discard(value)
    if not members:
        del sets[key]
