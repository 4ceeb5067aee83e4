"""What a resource would be if objects were otherwise: built from a changed copy of a snapshot, for trials. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from envoy.config.route.v3 import route_components_pb2, route_pb2

from services.pilot.envoy.memo import Memo
from services.pilot.envoy.options import Options
from services.pilot.envoy.outbound import HostBuilder, HostPart
from services.pilot.envoy.own import own_resources, scope_of
from services.pilot.envoy.virtual_host import route_configuration
from services.pilot.model.proxy import Proxy
from services.pilot.registry.mesh import age_order, listed_endpoints, services_of
from services.pilot.snapshot import MeshSnapshot
from services.pilot.state import route_hosts, rule_hosts
from windward.config.object import ConfigObject, ObjectKey
from windward.config.virtual_service import MESH
from windward.xds import resource as xds
from windward.xds.resource import Resource

Objects = Mapping[ObjectKey, ConfigObject[Any]]
Change = tuple[ConfigObject[Any], ConfigObject[Any] | None]
"""An object, and what stands in its place."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """Builds for one proxy at one snapshot."""

    snapshot: MeshSnapshot
    proxy: Proxy
    options: Options

    def own(self, type_url: str, name: str, *changes: Change) -> Resource | None:
        """A resource that is the proxy's alone."""
        made = own_resources(self._changed(changes), self.proxy, self.options)
        return next((r for r in made if (r.type_url, r.name) == (type_url, name)), None)

    def of_host(self, host: str, type_url: str, name: str, *changes: Change) -> Resource | None:
        """A cluster, load assignment or TCP listener of a host."""
        part = self._part(host, changes)
        if part is None:
            return None
        made = (*part.resources, *(item.resource for item in part.tcp))
        return next((r for r in made if (r.type_url, r.name) == (type_url, name)), None)

    def virtual_host(self, host: str, port: int, *changes: Change) -> Resource | None:
        """A route configuration with nothing in it but a host's routes on a port."""
        part = self._part(host, changes)
        routes = dict(part.http).get(port) if part is not None else None
        return route_configuration(str(port), [routes], None) if routes is not None else None

    def _part(self, host: str, changes: Sequence[Change]) -> HostPart | None:
        scope = scope_of(self.snapshot, self.proxy)
        builder = HostBuilder(self._changed(changes), scope, self.options, Memo())
        return builder.part(host, referred=True)

    def _changed(self, changes: Sequence[Change]) -> MeshSnapshot:
        snapshot = self.snapshot
        for old, new in changes:
            snapshot = with_object(snapshot, old, new)
        return snapshot


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


def hosts_of(objects: Objects, resource: Resource) -> list[str]:
    """The hosts of the ServiceEntries that a resource was built from."""
    found: dict[str, None] = {}
    for origin in resource.origins:
        key = ObjectKey(origin.group, origin.kind, origin.namespace, origin.name)
        entry = objects.get(key)
        if origin.kind == "ServiceEntry" and entry is not None:
            found.update(dict.fromkeys(entry.spec.hosts))
    return list(found)


def virtual_hosts(resource: Resource) -> list[route_components_pb2.VirtualHost]:
    return list(route_pb2.RouteConfiguration.FromString(resource.body).virtual_hosts)


def of_virtual_hosts(name: str, hosts: Sequence[route_components_pb2.VirtualHost]) -> Resource:
    message = route_pb2.RouteConfiguration(name=name, virtual_hosts=hosts)
    message.validate_clusters.value = False
    return Resource(xds.ROUTE, name, message.SerializeToString())


def is_on_gateways(item: ConfigObject[Any]) -> bool:
    """Whether a VirtualService is (also) on gateways."""
    return any(name != MESH for name in item.spec.gateways)
