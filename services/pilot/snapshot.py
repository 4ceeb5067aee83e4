"""The mesh at one moment: immutable, and sharing with its predecessor everything that did not change.

    objects, live workloads, previous snapshot -> MeshSnapshot(version, revision)

What builders read are these values; that a value is the same object as before is how they know that it did not change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from services.pilot.model.hosts import HostIndex
from services.pilot.model.service import Endpoint, Service
from services.pilot.registry.mesh import (
    age_order,
    endpoint_of_entry,
    endpoint_of_workload,
    listed_endpoints,
    selected_endpoints,
    services_of,
)
from windward.config.destination_rule import DestinationRule
from windward.config.gateway import Gateway
from windward.config.hosts import resolve
from windward.config.mixer_rule import fails_open, is_check_rule
from windward.config.object import ConfigObject, ObjectKey
from windward.config.peer_authentication import PeerAuthentication
from windward.config.virtual_service import VirtualService
from windward.registration import RegisteredWorkload

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MeshSnapshot:
    version: int = 0
    revision: int = 0
    services: Mapping[str, Service] = field(default_factory=dict)
    """Host -> service; of several with one host the oldest."""
    endpoints: Mapping[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    """Host -> everything behind it."""
    virtual_services: tuple[ConfigObject[VirtualService], ...] = ()
    """Oldest first."""
    destination_rules: tuple[ConfigObject[DestinationRule], ...] = ()
    rules_by_host: HostIndex[ConfigObject[DestinationRule]] = field(default_factory=HostIndex)
    routes_by_host: HostIndex[ConfigObject[VirtualService]] = field(default_factory=HostIndex)
    gateways: tuple[ConfigObject[Gateway], ...] = ()
    peer_authentications: tuple[ConfigObject[PeerAuthentication], ...] = ()
    checks_open: bool = False
    """Whether a Mixer rule that fails open decides about requests."""
    checks_closed: bool = False


def build_snapshot(
    objects: Mapping[ObjectKey, ConfigObject[Any]],
    workloads: Sequence[tuple[RegisteredWorkload, bool]],
    before: MeshSnapshot,
    revision: int,
) -> MeshSnapshot:
    """The next snapshot. O(objects); values that are equal to the previous ones are the previous ones."""
    by_kind: dict[str, list[ConfigObject[Any]]] = {}
    for item in objects.values():
        by_kind.setdefault(item.key.kind, []).append(item)
    for items in by_kind.values():
        items.sort(key=age_order)
    services, endpoints = _registry(by_kind, workloads, before)
    open_, closed = _checks(by_kind)
    routes = _same(tuple(by_kind.get("VirtualService", ())), before.virtual_services)
    rules = _same(tuple(by_kind.get("DestinationRule", ())), before.destination_rules)
    peers = tuple(by_kind.get("PeerAuthentication", ()))
    return MeshSnapshot(
        version=before.version + 1,
        revision=revision,
        services=services,
        endpoints=endpoints,
        virtual_services=routes,
        destination_rules=rules,
        rules_by_host=before.rules_by_host
        if rules is before.destination_rules
        else HostIndex.of(rules, lambda item: (resolve(item.spec.host, item.key.namespace),)),
        routes_by_host=before.routes_by_host
        if routes is before.virtual_services
        else HostIndex.of(
            routes, lambda item: [resolve(h, item.key.namespace) for h in item.spec.hosts]
        ),
        gateways=_same(tuple(by_kind.get("Gateway", ())), before.gateways),
        peer_authentications=_same(peers, before.peer_authentications),
        checks_open=open_,
        checks_closed=closed,
    )


def _registry(
    by_kind: Mapping[str, Sequence[ConfigObject[Any]]],
    workloads: Sequence[tuple[RegisteredWorkload, bool]],
    before: MeshSnapshot,
) -> tuple[Mapping[str, Service], Mapping[str, tuple[Endpoint, ...]]]:
    candidates: dict[str, list[Endpoint]] = {}
    for workload, healthy in workloads:
        endpoint = endpoint_of_workload(workload, healthy=healthy)
        candidates.setdefault(workload.namespace, []).append(endpoint)
    for item in by_kind.get("WorkloadEntry", ()):
        entry = endpoint_of_entry(item.spec, item.key.namespace, item.key.name)
        candidates.setdefault(item.key.namespace, []).append(entry)
    services: dict[str, Service] = {}
    endpoints: dict[str, tuple[Endpoint, ...]] = {}
    for item in by_kind.get("ServiceEntry", ()):
        for service in services_of(item):
            if service.host in services:
                continue
            services[service.host] = _same(service, before.services.get(service.host))
            found = (
                listed_endpoints(item)
                if service.selector is None
                else selected_endpoints(service, candidates)
            )
            endpoints[service.host] = _same(found, before.endpoints.get(service.host))
    return _same(services, before.services), _same(endpoints, before.endpoints)


def _checks(by_kind: Mapping[str, Sequence[ConfigObject[Any]]]) -> tuple[bool, bool]:
    instances = by_kind.get("instance", ())
    checks = [rule for rule in by_kind.get("rule", ()) if is_check_rule(rule, instances)]
    return any(fails_open(rule) for rule in checks), any(not fails_open(rule) for rule in checks)


def _same(value: T, before: object) -> T:
    """The earlier value where it is equal: identity is how readers see that nothing changed."""
    return before if value == before else value
