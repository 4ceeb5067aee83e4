"""What one host is to the proxies of a scope: clusters, endpoints, a virtual host a port, TCP listeners. Pure but for the memo.

    (MeshSnapshot, Scope, host) -> HostPart

Source: istio pilot/pkg/networking/core/{cluster,listener,httproute}.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from services.pilot.envoy import cluster, listener, names, proxyless, selection, virtual_host
from services.pilot.envoy.common import resource
from services.pilot.envoy.endpoint import spliced_assignment
from services.pilot.envoy.memo import Memo
from services.pilot.envoy.name_table import is_headless, name_table
from services.pilot.envoy.options import Options
from services.pilot.envoy.route import RouteContext, cluster_name
from services.pilot.envoy.virtual_host import HostRoutes, Viewer
from services.pilot.model.policy import EffectivePolicy, effective
from services.pilot.model.service import Endpoint, Port, Service, labels_match
from services.pilot.model.sidecar_scope import EVERYTHING, EgressScope
from services.pilot.registry.mesh import origin_of
from services.pilot.snapshot import MeshSnapshot
from windward.config.hosts import resolve
from windward.config.http_route import Destination
from windward.config.object import ConfigObject
from windward.config.service_entry import Resolution
from windward.config.virtual_service import MESH, VirtualService
from windward.xds import resource as xds
from windward.xds.resource import Origin, Resource

Labels = tuple[tuple[str, str], ...]
Route = ConfigObject[VirtualService]


class Shape(Enum):
    """How proxies of a scope take outbound traffic in."""

    INTERCEPTED = "intercepted"
    """A listener a port, or an address and port."""
    DIRECT = "direct"
    """One HTTP proxy listener, one route configuration."""
    ROUTER = "router"
    """A gateway: its listeners are its own."""
    PROXYLESS = "proxyless"
    """No proxy at all: a gRPC client."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Everything that outbound resources depend on beside the snapshot and the options. A key: proxies of one scope share."""

    shape: Shape
    namespace: str
    labels: Labels = ()
    """Empty unless routes match by the caller's labels."""
    egress: EgressScope = EVERYTHING
    vips: bool = False
    """Whether services without addresses have virtual ones."""
    ipv6: bool = False
    """Whether listeners for any address are for IPv6 ones too."""

    def sees(self, service: Service) -> bool:
        return service.visible_in(self.namespace) and (
            self.egress is EVERYTHING or self.egress.allows(service.host, service.namespace)
        )


@dataclass(frozen=True, slots=True)
class TcpListener:
    port: int
    anywhere: bool
    """Without an address of its own: it takes the whole port, where HTTP comes first."""
    resource: Resource


@dataclass(frozen=True, slots=True)
class HostPart:
    rule: selection.MergedRule | None = None
    route: Route | None = None
    resources: tuple[Resource, ...] = ()
    """Clusters and load assignments, and its name table."""
    http: tuple[tuple[int, HostRoutes], ...] = ()
    """(port, virtual host)."""
    tcp: tuple[TcpListener, ...] = ()
    refers: frozenset[str] = frozenset()
    """Other hosts that its routes go to: their ports decide how, and they are wanted where this one is."""


NOWHERE = HostPart()


@dataclass(frozen=True, slots=True)
class HostBuilder:
    """Builds the parts of one scope at one snapshot."""

    snapshot: MeshSnapshot
    scope: Scope
    options: Options
    memo: Memo

    def part(self, host: str, *, referred: bool = False) -> HostPart | None:
        """None for a host that is not there, or not visible. ``referred``: routes of a visible one go there."""
        service = self.snapshot.services.get(host)
        if service is None or not service.visible_in(self.scope.namespace):
            return None
        seen = self.scope.sees(service)
        service = self._addressed(service)
        if not seen and not referred:
            return None
        rule = self._rule(service)
        resources = self._destinations(service, rule)
        if self.scope.shape is Shape.ROUTER or not seen:
            return self._shared(host, HostPart(rule, None, resources))
        resources = self._named(service, resources)
        route = selection.mesh_virtual_service(
            self.snapshot.routes.candidates(host), host, self.scope.namespace
        )
        refers = frozenset(_destination_hosts(route)) - {host} if route else frozenset()
        http = tuple(
            (port.number, self._routes(service, port, route, refers))
            for port in service.ports
            if port.protocol.is_http
        )
        if self.scope.shape is Shape.PROXYLESS:
            resources = (*resources, *self._proxyless_routes(service, dict(http)))
            return self._shared(host, HostPart(rule, route, resources, refers=refers))
        tcp: tuple[TcpListener, ...] = ()
        if self.scope.shape is Shape.INTERCEPTED:
            tcp = tuple(
                made
                for port in service.ports
                if not port.protocol.is_http
                for made in self._tcp(service, port, route)
            )
        return self._shared(host, HostPart(rule, route, resources, http, tcp, refers))

    def with_endpoints(self, host: str, before: HostPart) -> HostPart:
        """The part when nothing but the host's endpoints changed."""
        service = self._addressed(self.snapshot.services[host])
        named = self.scope.shape is not Shape.ROUTER and self.scope.sees(service)
        resources = self._destinations(service, before.rule)
        if self.scope.shape is Shape.PROXYLESS:
            kept = (r for r in before.resources if r.type_url in {xds.LISTENER, xds.ROUTE})
            resources = (*resources, *kept)
        elif named:
            resources = self._named(service, resources)
        part = HostPart(
            before.rule, before.route, resources, before.http, before.tcp, before.refers
        )
        return self._shared(host, part)

    def _shared(self, host: str, part: HostPart) -> HostPart:
        """One object for all scopes that see the same of a host."""
        inputs = (part.rule, part.route, part.resources, part.http, part.tcp, part.refers)
        return self.memo.get(host, "part", inputs, lambda: part)

    def _addressed(self, service: Service) -> Service:
        """The service with the virtual addresses that it has in this scope."""
        vips = self.snapshot.vips.addresses(service.host) if self.scope.vips else ()
        if not vips or service.addresses:
            return service
        return self.memo.get(
            service.host, "vips", (service, vips), lambda: replace(service, addresses=vips)
        )

    # ---- clusters and endpoints -------------------------------------------------------------------------------------

    def _rule(self, service: Service) -> selection.MergedRule | None:
        candidates = self.snapshot.rules.candidates(service.host)
        if not candidates:
            return None
        return self.memo.get(
            service.host,
            ("rule", self.scope.namespace),
            (candidates, service.namespace),
            lambda: selection.destination_rule(
                candidates, service.host, service.namespace, self.scope.namespace
            ),
        )

    def _named(self, service: Service, resources: tuple[Resource, ...]) -> tuple[Resource, ...]:
        """With the host's name table, where the proxies' agents answer for it: where its traffic is intercepted."""
        if self.scope.shape is not Shape.INTERCEPTED:
            return resources
        endpoints = self.snapshot.endpoints.get(service.host, ()) if is_headless(service) else ()
        table = self.memo.get(
            service.host, "names", (service, endpoints), lambda: name_table(service, endpoints)
        )
        if table is None:
            return resources
        return self.memo.get(service.host, "named", (resources, table), lambda: (*resources, table))

    def _destinations(
        self, service: Service, rule: selection.MergedRule | None
    ) -> tuple[Resource, ...]:
        endpoints = self.snapshot.endpoints.get(service.host, ())
        return self.memo.get(
            service.host,
            ("destinations", self.scope.shape is Shape.PROXYLESS),
            (service, rule, endpoints),
            lambda: tuple(self._build_destinations(service, rule, endpoints)),
        )

    def _build_destinations(
        self,
        service: Service,
        rule: selection.MergedRule | None,
        endpoints: tuple[Endpoint, ...],
    ) -> Iterator[Resource]:
        subsets: list[tuple[str, Labels]] = [("", ())]
        if rule is not None:
            subsets += [
                (item.name, tuple(sorted(item.labels.items()))) for item in rule.spec.subsets
            ]
        for port in service.ports:
            for subset, labels in subsets:
                yield from self._destination(
                    service, port, subset, rule, _subset(endpoints, labels)
                )

    def _destination(
        self,
        service: Service,
        port: Port,
        subset: str,
        rule: selection.MergedRule | None,
        chosen: tuple[Endpoint, ...],
    ) -> Iterator[Resource]:
        """One cluster, and its endpoints where they come by EDS. ``chosen``: the endpoints of the subset."""
        name = names.outbound(port.number, subset, service.host)
        policy = effective(rule.spec if rule else None, port.number, subset)
        origins = (service.origin, *(rule.origins if rule else ()))
        by_eds = service.resolution is Resolution.STATIC and not policy.passthrough
        # An EDS cluster says of its endpoints only whom to expect there.
        behind = cluster.accounts(chosen) if by_eds else chosen
        without_proxy = self.scope.shape is Shape.PROXYLESS
        made = self.memo.get(
            service.host,
            ("cluster", name, without_proxy),
            (service, port, policy, origins, behind),
            lambda: self._cluster(service, port, subset, policy, chosen, origins),
        )
        if made is None:
            return
        yield made
        if by_eds:
            key = ("endpoint", name)
            spliced = self.memo.get(
                service.host,
                key,
                (port, chosen, origins),
                lambda: spliced_assignment(
                    name, port, chosen, origins, self.memo.latest(service.host, key)
                ),
            )
            yield spliced.resource

    def _cluster(
        self,
        service: Service,
        port: Port,
        subset: str,
        policy: EffectivePolicy,
        chosen: tuple[Endpoint, ...],
        origins: tuple[Origin, ...],
    ) -> Resource | None:
        """None where there is none for clients of this shape."""
        build = proxyless.cluster if self.scope.shape is Shape.PROXYLESS else cluster.outbound
        message = build(service, port, subset, policy, chosen, self.options.trust_domain)
        return resource(xds.CLUSTER, message.name, message, origins) if message else None

    # ---- routes -----------------------------------------------------------------------------------------------------

    def _proxyless_routes(
        self, service: Service, http: Mapping[int, HostRoutes]
    ) -> tuple[Resource, ...]:
        if service.resolution not in proxyless.UNDERSTOOD:
            return ()
        namespace = self.scope.namespace
        return self.memo.get(
            service.host,
            ("api", namespace),
            (service, tuple(http.items())),
            lambda: tuple(
                made
                for port in service.ports
                if port.number in http
                for made in proxyless.routes_of(service, port, http[port.number], namespace)
            ),
        )

    def _routes(
        self, service: Service, port: Port, rule: Route | None, refers: frozenset[str]
    ) -> HostRoutes:
        """The virtual host of a port. What it takes from the viewer is an input only where it makes a difference."""
        direct = self.scope.shape is Shape.DIRECT
        viewer = Viewer(self.scope.namespace, dict(self.scope.labels))
        mine = virtual_host.aliases(service.host, self.scope.namespace)
        seen: tuple[object, ...] = ()
        if rule is not None and looks_at_caller(rule.spec):
            seen = (self.scope.namespace, self.scope.labels)
        referred = tuple(self._ports_of(host) for host in sorted(refers))
        return self.memo.get(
            service.host,
            ("routes", port.number, direct),
            (service, port, rule, tuple(mine), seen, referred),
            lambda: virtual_host.host_routes(
                service, port, rule, viewer, self.port_of, with_port_only=direct
            ),
        )

    def _ports_of(self, host: str) -> tuple[Port, ...] | None:
        service = self.snapshot.services.get(host)
        return service.ports if service else None

    def port_of(self, host: str, wanted: int) -> int:
        return port_of(self.snapshot, host, wanted)

    # ---- TCP --------------------------------------------------------------------------------------------------------

    def _tcp(self, service: Service, port: Port, rule: Route | None) -> Iterator[TcpListener]:
        """A listener an address; a service without one is reached on any address of its port."""
        weights, origins = self._tcp_weights(service, port, rule)
        telemetry = self.options.telemetry
        for host in service.addresses or ("0.0.0.0",):
            made = self.memo.get(
                service.host,
                ("tcp", host, port.number),
                (tuple(weights.items()), origins),
                lambda host=host: resource(  # type: ignore[misc]
                    xds.LISTENER,
                    f"{host}_{port.number}",
                    listener.outbound_tcp(telemetry, host, port.number, weights),
                    origins,
                ),
            )
            yield TcpListener(port.number, not service.addresses, made)

    def _tcp_weights(
        self, service: Service, port: Port, rule: Route | None
    ) -> tuple[Mapping[str, int], tuple[Origin, ...]]:
        """Clusters by weight, from the first TCP route that applies."""
        straight = {names.outbound(port.number, "", service.host): 1}
        if rule is None:
            return straight, (service.origin,)
        labels = dict(self.scope.labels)
        context = RouteContext(
            rule.key.namespace, port.number, MESH, self.scope.namespace, labels, self.port_of
        )
        for index, tcp in enumerate(rule.spec.tcp):
            if tcp.match and not any(
                (not match.port or match.port == port.number)
                and (not match.gateways or MESH in match.gateways)
                and (not match.source_namespace or match.source_namespace == self.scope.namespace)
                and all(labels.get(key) == value for key, value in match.source_labels.items())
                for match in tcp.match
            ):
                continue
            weights: dict[str, int] = {}
            for part in tcp.route:
                name = cluster_name(part.destination, context)
                weights[name] = weights.get(name, 0) + (
                    part.weight or (1 if len(tcp.route) == 1 else 0)
                )
            return weights, (service.origin, origin_of(rule, f"spec.tcp[{index}]"))
        return straight, (service.origin,)


def port_of(snapshot: MeshSnapshot, host: str, wanted: int) -> int:
    """The port that a destination without one means: the listener's own if the service has it, else its only one."""
    service = snapshot.services.get(host)
    if service is None or service.port(wanted) is not None or not service.ports:
        return wanted
    return service.ports[0].number


def _subset(endpoints: tuple[Endpoint, ...], labels: Labels) -> tuple[Endpoint, ...]:
    if not labels:
        return endpoints
    return tuple(item for item in endpoints if labels_match(labels, item.labels))


def _destination_hosts(rule: Route) -> Iterator[str]:
    wanted: list[Destination | None] = []
    for http in rule.spec.http:
        wanted += [part.destination for part in http.route]
    for tcp in rule.spec.tcp:
        wanted += [part.destination for part in tcp.route]
    for destination in wanted:
        if destination is not None:
            yield resolve(destination.host, rule.key.namespace)


def differs(snapshot: MeshSnapshot, host: str, one: str, other: str) -> bool:
    """Whether a host's part may differ between two scopes that differ in nothing but their namespaces.

    It cannot where everybody sees the same objects, and the host is not called by a shorter name in either.
    """
    service = snapshot.services[host]
    here = (one, other)
    if _limited(service.export_to) or service.namespace in here:
        return True
    for rule in snapshot.rules.candidates(host):
        if _limited(rule.spec.export_to) or rule.key.namespace in here:
            return True
    return any(
        _limited(route.spec.export_to) or looks_at_caller(route.spec)
        for route in snapshot.routes.candidates(host)
    )


def _limited(export_to: Sequence[str]) -> bool:
    """Whether not everybody sees it."""
    return bool(export_to) and "*" not in export_to


def looks_at_caller(spec: VirtualService) -> bool:
    """Whether a VirtualService's routes differ by who calls."""
    return any(
        match.source_namespace or match.source_labels for item in spec.http for match in item.match
    ) or any(
        match.source_namespace or match.source_labels for item in spec.tcp for match in item.match
    )
