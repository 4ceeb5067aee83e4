"""What resources would be if objects were otherwise: built from a changed copy of a snapshot, for trials. Pure.

bench(changes...) -> {name: Resource}: what the same part of the mesh makes then, one type of it
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from envoy.config.route.v3 import route_components_pb2, route_pb2

from services.pilot.blame.changed import Change, with_changes
from services.pilot.envoy.memo import Memo
from services.pilot.envoy.options import Options
from services.pilot.envoy.outbound import HostBuilder, HostPart, Scope
from services.pilot.envoy.own import own_resources
from services.pilot.envoy.virtual_host import REST, route_configuration
from services.pilot.model.proxy import Proxy
from services.pilot.snapshot import MeshSnapshot
from windward.config.hosts import matches, resolve
from windward.config.object import ConfigObject, ObjectKey
from windward.config.virtual_service import MESH, VirtualService
from windward.xds import resource as xds
from windward.xds.resource import Origin, Resource

Objects = Mapping[ObjectKey, ConfigObject[Any]]
Made = Mapping[str, Resource]


class Bench(Protocol):
    """Raises what building raises."""

    def __call__(self, *changes: Change) -> Made: ...


@dataclass(frozen=True, slots=True)
class Workshop:
    """Builds at one snapshot."""

    snapshot: MeshSnapshot
    options: Options

    def host(self, scope: Scope, host: str, type_url: str = "") -> Bench:
        """Clusters, load assignments or TCP listeners of a host, all in one map when no type is given."""

        def made(*changes: Change) -> Made:
            found: dict[str, Resource] = {}
            for part in self._parts(scope, host, changes):
                for item in (*part.resources, *(tcp.resource for tcp in part.tcp)):
                    if not type_url or item.type_url == type_url:
                        found[item.name] = item
            return found

        return made

    def virtual_hosts(self, scope: Scope, host: str) -> Bench:
        """A host's virtual hosts, each as a route configuration with nothing else in it."""

        def made(*changes: Change) -> Made:
            return {
                routes.name: route_configuration(str(port), [routes], None)
                for part in self._parts(scope, host, changes)
                for port, routes in part.http
            }

        return made

    def own(self, proxy: Proxy, type_url: str) -> Bench:
        """What is the proxy's alone."""

        def made(*changes: Change) -> Made:
            found = own_resources(self.changed(changes), proxy, self.options)
            return {item.name: item for item in found if item.type_url == type_url}

        return made

    def gateway_hosts(
        self, proxy: Proxy, name: str, rules: Sequence[ConfigObject[VirtualService]]
    ) -> Bench:
        """The virtual hosts of a gateway's route configuration, of these VirtualServices and no others."""
        configurations = self.with_gateway_routes(rules).own(proxy, xds.ROUTE)

        def made(*changes: Change) -> Made:
            found = configurations(*changes)
            # Of another port, when it is that which was changed.
            chosen = [found[name]] if name in found else found.values()
            return {
                host.name: of_virtual_hosts(item.name, [host])
                for item in chosen
                for host in virtual_hosts(item)
            }

        return made

    def with_gateway_routes(self, rules: Sequence[ConfigObject[VirtualService]]) -> Workshop:
        """As if gateways had these VirtualServices alone: what a trial costs does not grow with the others."""
        return replace(self, snapshot=replace(self.snapshot, gateway_routes=tuple(rules)))

    def _parts(self, scope: Scope, host: str, changes: Sequence[Change]) -> Iterable[HostPart]:
        """A host's part; when the changes give it another name, the part of that one."""
        snapshot = self.changed(changes)
        names = [host]
        if host not in snapshot.services:
            names = sorted(snapshot.services.keys() - self.snapshot.services.keys())
        builder = HostBuilder(snapshot, scope, self.options, Memo())
        parts = [builder.part(name, referred=True) for name in names]
        return [part for part in parts if part is not None]

    def changed(self, changes: Sequence[Change]) -> MeshSnapshot:
        return with_changes(self.snapshot, changes)


def key_of(origin: Origin) -> ObjectKey:
    return ObjectKey(origin.group, origin.kind, origin.namespace, origin.name)


def hosts_of(objects: Objects, resource: Resource) -> list[str]:
    """The hosts of the ServiceEntries that a resource was built from."""
    found: dict[str, None] = {}
    for origin in resource.origins:
        entry = objects.get(key_of(origin))
        if origin.kind == "ServiceEntry" and entry is not None:
            found.update(dict.fromkeys(entry.spec.hosts))
    return list(found)


def virtual_hosts(resource: Resource) -> list[route_components_pb2.VirtualHost]:
    return list(route_pb2.RouteConfiguration.FromString(resource.body).virtual_hosts)


def of_virtual_hosts(name: str, hosts: Sequence[route_components_pb2.VirtualHost]) -> Resource:
    """A route configuration of these alone; what else it says decides what is taken too."""
    message = route_pb2.RouteConfiguration(name=name, virtual_hosts=hosts)
    return Resource(xds.ROUTE, name, message.SerializeToString() + REST)


def is_on_gateways(item: ConfigObject[Any]) -> bool:
    """Whether a VirtualService is (also) on gateways."""
    return any(name != MESH for name in item.spec.gateways)


def may_serve(item: ConfigObject[VirtualService], host: str) -> bool:
    """Whether a VirtualService on a gateway may be in the virtual host of a host."""
    names = (resolve(name, item.key.namespace).lower() for name in item.spec.hosts)
    return any(matches(name, host) or matches(host, name) for name in names)
