"""A snapshot in which objects are otherwise, without anybody being told. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from services.pilot.model.service import labels_match
from services.pilot.registry.mesh import (
    age_order,
    endpoint_of_entry,
    listed_endpoints,
    services_of,
)
from services.pilot.snapshot import MeshSnapshot
from services.pilot.taken_back import route_hosts, rule_hosts
from windward.config.object import ConfigObject

Object = ConfigObject[Any]
Change = tuple[Object, Object | None]
"""An object, and what stands in its place; nothing: it is not there."""


def with_changes(snapshot: MeshSnapshot, changes: Sequence[Change]) -> MeshSnapshot:
    """A copy; many changes cost little more than one."""
    by_kind: dict[str, list[Change]] = {}
    for change in changes:
        by_kind.setdefault(change[0].key.kind, []).append(change)
    for kind, pairs in by_kind.items():
        snapshot = _with_kind(snapshot, kind, pairs)
    return snapshot


def _with_kind(snapshot: MeshSnapshot, kind: str, pairs: list[Change]) -> MeshSnapshot:
    match kind:
        case "DestinationRule":
            return replace(snapshot, rules=snapshot.rules.changed(pairs, rule_hosts, age_order))
        case "VirtualService":
            return replace(
                snapshot,
                routes=snapshot.routes.changed(pairs, route_hosts, age_order),
                gateway_routes=_swapped(snapshot.gateway_routes, pairs),
            )
        case "Gateway":
            return replace(snapshot, gateways=_swapped(snapshot.gateways, pairs))
        case "PeerAuthentication":
            peers = _swapped(snapshot.peer_authentications, pairs)
            return replace(snapshot, peer_authentications=peers)
        case "ServiceEntry":
            return _with_entries(snapshot, pairs)
        case "WorkloadEntry":
            return _with_workloads(snapshot, pairs)
    return snapshot


def _swapped(items: tuple[Object, ...], pairs: Iterable[Change]) -> tuple[Object, ...]:
    instead = {id(old): new for old, new in pairs}
    changed = (instead.get(id(item), item) for item in items)
    return tuple(item for item in changed if item is not None)


def _with_entries(snapshot: MeshSnapshot, pairs: Iterable[Change]) -> MeshSnapshot:
    services, endpoints = dict(snapshot.services), dict(snapshot.endpoints)
    for old, new in pairs:
        for service in services_of(old):
            present = services.get(service.host)
            if present is not None and present.origin == service.origin:
                del services[service.host]
        for service in services_of(new) if new is not None else ():
            if services.setdefault(service.host, service) is service and service.selector is None:
                assert new is not None
                endpoints[service.host] = listed_endpoints(new)
    hosts = {
        host for pair in pairs for item in pair if item is not None for host in item.spec.hosts
    }
    for host in hosts - services.keys():
        endpoints.pop(host, None)
    return _placed(replace(snapshot, services=services, endpoints=endpoints), snapshot, hosts)


def _with_workloads(snapshot: MeshSnapshot, pairs: Iterable[Change]) -> MeshSnapshot:
    endpoints = dict(snapshot.endpoints)
    hosts: set[str] = set()
    for old, new in pairs:
        before = endpoint_of_entry(old.spec, old.key.namespace, old.key.name)
        now = endpoint_of_entry(new.spec, old.key.namespace, old.key.name) if new else None
        for host in snapshot.hosts_at.get((before.namespace, before.address), ()):
            hosts.add(host)
            selector = snapshot.services[host].selector
            kept = now if now and labels_match(selector or (), now.labels) else None
            instead = (kept if item == before else item for item in endpoints.get(host, ()))
            endpoints[host] = tuple(item for item in instead if item is not None)
    return _placed(replace(snapshot, endpoints=endpoints), snapshot, hosts)


def _placed(changed: MeshSnapshot, before: MeshSnapshot, hosts: Iterable[str]) -> MeshSnapshot:
    """With the hosts below the addresses where their endpoints are now."""
    hosts_at = dict(before.hosts_at)
    for host in sorted(hosts):
        for item in before.endpoints.get(host, ()):
            at = (item.namespace, item.address)
            hosts_at[at] = tuple(other for other in hosts_at.get(at, ()) if other != host)
        for item in changed.endpoints.get(host, ()):
            at = (item.namespace, item.address)
            hosts_at[at] = tuple(sorted({*hosts_at.get(at, ()), host}))
    return replace(changed, hosts_at=hosts_at)
