"""A snapshot in which objects are otherwise, without anybody being told. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from services.pilot.registry.mesh import age_order, listed_endpoints, services_of
from services.pilot.snapshot import MeshSnapshot
from services.pilot.taken_back import route_hosts, rule_hosts
from windward.config.object import ConfigObject


def with_object(
    snapshot: MeshSnapshot, old: ConfigObject[Any], new: ConfigObject[Any] | None
) -> MeshSnapshot:
    """A copy in which an object is another one, or is not there."""
    pairs = [(old, new)]
    match old.key.kind:
        case "DestinationRule":
            return replace(snapshot, rules=snapshot.rules.changed(pairs, rule_hosts, age_order))
        case "VirtualService":
            return replace(
                snapshot,
                routes=snapshot.routes.changed(pairs, route_hosts, age_order),
                gateway_routes=_swapped(snapshot.gateway_routes, old, new),
            )
        case "Gateway":
            return replace(snapshot, gateways=_swapped(snapshot.gateways, old, new))
        case "PeerAuthentication":
            peers = _swapped(snapshot.peer_authentications, old, new)
            return replace(snapshot, peer_authentications=peers)
        case "ServiceEntry":
            return _with_entry(snapshot, old, new)
    return snapshot


def _swapped(
    items: tuple[ConfigObject[Any], ...], old: ConfigObject[Any], new: ConfigObject[Any] | None
) -> tuple[ConfigObject[Any], ...]:
    changed = (new if item is old else item for item in items)
    return tuple(item for item in changed if item is not None)


def _with_entry(
    snapshot: MeshSnapshot, old: ConfigObject[Any], new: ConfigObject[Any] | None
) -> MeshSnapshot:
    services, endpoints = dict(snapshot.services), dict(snapshot.endpoints)
    for service in services_of(old):
        present = services.get(service.host)
        if present is not None and present.origin == service.origin:
            del services[service.host]
    for service in services_of(new) if new is not None else ():
        if services.setdefault(service.host, service) is service and service.selector is None:
            assert new is not None
            endpoints[service.host] = listed_endpoints(new)
    return replace(snapshot, services=services, endpoints=endpoints)
