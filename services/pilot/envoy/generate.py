"""From a snapshot to everything one proxy group should have. Pure but for the memo, which only saves work.

    (MeshSnapshot, proxy, options) -> {type URL: {name: Resource}}

What does not depend on the proxy itself is kept under its scope (namespace, and labels where routes look at them), so
proxies of one scope share the very same Resource objects.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import partial

from envoy.config.core.v3 import extension_pb2

from services.pilot.envoy import cluster, listener, mixer, names, selection, virtual_host
from services.pilot.envoy.common import resource
from services.pilot.envoy.endpoint import load_assignment
from services.pilot.envoy.http import Telemetry
from services.pilot.envoy.listener import InboundPort
from services.pilot.envoy.memo import Memo
from services.pilot.envoy.route import RouteContext, cluster_name
from services.pilot.envoy.virtual_host import Viewer
from services.pilot.model.policy import EffectivePolicy, effective
from services.pilot.model.proxy import Interception, Proxy, ProxyType
from services.pilot.model.service import Endpoint, Port, Service, labels_match
from services.pilot.registry.mesh import origin_of
from services.pilot.snapshot import MeshSnapshot
from windward.config.gateway import Gateway, Server
from windward.config.object import ConfigObject
from windward.config.service_entry import Resolution
from windward.config.virtual_service import MESH
from windward.xds import resource as xds
from windward.xds.resource import Origin, Resource

Resources = dict[str, dict[str, Resource]]


@dataclass(frozen=True, slots=True)
class Options:
    """Of this Pilot; the same for every proxy."""

    trust_domain: str
    allow_any: bool
    mixer_addresses: tuple[str, ...]

    @property
    def telemetry(self) -> Telemetry:
        return Telemetry(bool(self.mixer_addresses), self.trust_domain)


@dataclass(frozen=True, slots=True)
class Generator:
    snapshot: MeshSnapshot
    proxy: Proxy
    options: Options
    memo: Memo

    @property
    def scope(self) -> Hashable:
        """What outbound resources depend on beside the snapshot."""
        uses_labels = any(
            match.source_labels
            for item in self.snapshot.virtual_services
            for route in item.spec.http
            for match in route.match
        )
        return (self.proxy.namespace, tuple(sorted(self.labels.items())) if uses_labels else ())

    @property
    def labels(self) -> dict[str, str]:
        """The proxy's own, over those it was registered with."""
        for endpoints in self.snapshot.endpoints.values():
            for endpoint in endpoints:
                if (
                    endpoint.address == self.proxy.address
                    and endpoint.namespace == self.proxy.namespace
                ):
                    return {**endpoint.labels, **dict(self.proxy.labels)}
        return dict(self.proxy.labels)

    @property
    def viewer(self) -> Viewer:
        return Viewer(self.proxy.namespace, self.labels)

    def visible(self) -> list[Service]:
        found = (s for s in self.snapshot.services.values() if s.visible_in(self.proxy.namespace))
        return sorted(found, key=lambda service: service.host)

    def generate(self) -> Resources:
        made: Resources = {
            xds.CLUSTER: {}, xds.ENDPOINT: {}, xds.LISTENER: {}, xds.ROUTE: {}, xds.EXTENSION: {}
        }  # fmt: skip
        for item in (*self._outbound(), *self._fixed(), *self._mixer()):
            made[item.type_url][item.name] = item
        proxied = self._sidecar() if self.proxy.type is ProxyType.SIDECAR else self._gateway()
        for item in proxied:
            made[item.type_url].setdefault(item.name, item)
        return made

    # ---- clusters and endpoints -------------------------------------------------------------------------------------

    def _outbound(self) -> list[Resource]:
        made = []
        for service in self.visible():
            rule = selection.destination_rule(
                self.snapshot.rules_by_host.candidates(service.host),
                service.host,
                service.namespace,
                self.proxy.namespace,
            )
            endpoints = self.snapshot.endpoints.get(service.host, ())
            subsets: list[tuple[str, tuple[tuple[str, str], ...]]] = [("", ())]
            if rule is not None:
                subsets += [
                    (item.name, tuple(sorted(item.labels.items()))) for item in rule.spec.subsets
                ]
            for port in service.ports:
                for subset, labels in subsets:
                    made += self._destination(service, port, subset, labels, rule, endpoints)
        return made

    def _destination(
        self,
        service: Service,
        port: Port,
        subset: str,
        labels: tuple[tuple[str, str], ...],
        rule: selection.MergedRule | None,
        endpoints: tuple[Endpoint, ...],
    ) -> list[Resource]:
        """One cluster, and its endpoints where they come by EDS."""
        name = names.outbound(port.number, subset, service.host)
        policy = effective(rule.spec if rule else None, port.number, subset)
        origins = (service.origin, *(rule.origins if rule else ()))
        static = service.resolution is Resolution.STATIC and not policy.passthrough
        accounts = frozenset(
            (item.namespace, item.service_account, item.mtls)
            for item in endpoints
            if labels_match(labels, item.labels)
        )
        inputs = (service, port, policy, origins, labels, accounts if static else endpoints)
        made = [
            self.memo.get(
                ("cluster", self.proxy.namespace, name),
                inputs,
                lambda: self._cluster(service, port, subset, labels, policy, endpoints, origins),
            )
        ]
        if static:
            made.append(
                self.memo.get(
                    ("endpoint", self.proxy.namespace, name),
                    (port, endpoints, labels, origins),
                    lambda: resource(
                        xds.ENDPOINT,
                        name,
                        load_assignment(
                            name, port, [e for e in endpoints if labels_match(labels, e.labels)]
                        ),
                        origins,
                    ),
                )
            )
        return made

    def _cluster(
        self,
        service: Service,
        port: Port,
        subset: str,
        labels: tuple[tuple[str, str], ...],
        policy: EffectivePolicy,
        endpoints: tuple[Endpoint, ...],
        origins: tuple[Origin, ...],
    ) -> Resource:
        chosen = [endpoint for endpoint in endpoints if labels_match(labels, endpoint.labels)]
        message = cluster.outbound(service, port, subset, policy, chosen, self.options.trust_domain)
        return resource(xds.CLUSTER, message.name, message, origins)

    def _fixed(self) -> list[Resource]:
        intercepted = self.proxy.interception is Interception.REDIRECT
        return [
            self.memo.get(
                ("fixed", intercepted, item.name),
                (),
                partial(resource, xds.CLUSTER, item.name, item),
            )
            for item in cluster.fixed(intercepted=intercepted)
        ]

    def _mixer(self) -> list[Resource]:
        addresses = self.options.mixer_addresses
        if not addresses:
            return []
        made = [
            self.memo.get(
                "mixer",
                (addresses,),
                lambda: resource(
                    xds.CLUSTER,
                    mixer.CLUSTER_NAME,
                    mixer.cluster(addresses, self.options.trust_domain),
                ),
            )
        ]
        for name, enabled in (
            (mixer.CHECK_OPEN, self.snapshot.checks_open),
            (mixer.CHECK_CLOSED, self.snapshot.checks_closed),
        ):
            made.append(
                self.memo.get(
                    ("check", name),
                    (enabled,),
                    partial(self._check, name, enabled=enabled),
                )
            )
        return made

    @staticmethod
    def _check(name: str, *, enabled: bool) -> Resource:
        message: extension_pb2.TypedExtensionConfig = mixer.check_filter(name, enabled=enabled)
        return resource(xds.EXTENSION, name, message)

    # ---- sidecars ---------------------------------------------------------------------------------------------------

    def _sidecar(self) -> list[Resource]:
        if self.proxy.interception is Interception.NONE:
            return [*self._inbound_direct(), *self._http_proxy()]
        return [*self._inbound_intercepted(), *self._outbound_listeners()]

    def _outbound_listeners(self) -> list[Resource]:
        telemetry, allow = self.options.telemetry, self.options.allow_any
        made = [
            self.memo.get(
                ("listener", names.VIRTUAL_OUTBOUND),
                (telemetry, allow),
                lambda: resource(
                    xds.LISTENER,
                    names.VIRTUAL_OUTBOUND,
                    listener.virtual_outbound(telemetry, allow_any=allow),
                ),
            )
        ]
        http: dict[int, list[tuple[Service, Port]]] = {}
        tcp: list[tuple[Service, Port]] = []
        for service in self.visible():
            for port in service.ports:
                if port.protocol.is_http:
                    http.setdefault(port.number, []).append((service, port))
                else:
                    tcp.append((service, port))
        for service, port in tcp:
            # A TCP service without an address would take the whole port; HTTP on that port comes first.
            if service.addresses or port.number not in http:
                made += self._tcp(service, port)
        for number, members in sorted(http.items()):
            made.append(self._http_listener(number))
            made.append(self._routes(str(number), members, with_port_only=False))
        return made

    def _http_listener(self, number: int) -> Resource:
        telemetry, allow = self.options.telemetry, self.options.allow_any
        name = f"0.0.0.0_{number}"
        return self.memo.get(
            ("listener", name),
            (telemetry, allow),
            lambda: resource(
                xds.LISTENER, name, listener.outbound_http(telemetry, number, allow_any=allow)
            ),
        )

    def _tcp(self, service: Service, port: Port) -> list[Resource]:
        """A listener an address; a service without one is reached on any address of its port."""
        rule = selection.mesh_virtual_service(
            self.snapshot.routes_by_host.candidates(service.host),
            service.host,
            self.proxy.namespace,
        )
        weights, origins = self._tcp_weights(service, port)
        made = []
        for host in service.addresses or ("0.0.0.0",):
            made.append(
                self.memo.get(
                    ("listener", self.scope, f"{host}_{port.number}"),
                    (service, port, rule, tuple(sorted(weights.items())), self.options.telemetry),
                    partial(self._tcp_listener, host, port.number, weights, origins),
                )
            )
        return made

    def _tcp_listener(
        self, host: str, port: int, weights: Mapping[str, int], origins: tuple[Origin, ...]
    ) -> Resource:
        message = listener.outbound_tcp(self.options.telemetry, host, port, weights)
        return resource(xds.LISTENER, message.name, message, origins)

    def _tcp_weights(
        self, service: Service, port: Port
    ) -> tuple[Mapping[str, int], tuple[Origin, ...]]:
        """Clusters by weight, from the first TCP route that applies."""
        straight = {names.outbound(port.number, "", service.host): 1}
        rule = selection.mesh_virtual_service(
            self.snapshot.routes_by_host.candidates(service.host),
            service.host,
            self.proxy.namespace,
        )
        if rule is None:
            return straight, (service.origin,)
        labels = self.labels
        context = RouteContext(
            rule.key.namespace, port.number, MESH, self.proxy.namespace, labels, self.port_of
        )
        for index, tcp in enumerate(rule.spec.tcp):
            if tcp.match and not any(
                (not match.port or match.port == port.number)
                and (not match.gateways or MESH in match.gateways)
                and (not match.source_namespace or match.source_namespace == self.proxy.namespace)
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

    def _routes(
        self, name: str, members: list[tuple[Service, Port]], *, with_port_only: bool
    ) -> Resource:
        """One route configuration: a virtual host a service and port."""
        chosen = [
            (
                service,
                port,
                selection.mesh_virtual_service(
                    self.snapshot.routes_by_host.candidates(service.host),
                    service.host,
                    self.proxy.namespace,
                ),
            )
            for service, port in members
        ]
        ports = tuple((service.host, service.ports) for service in self.snapshot.services.values())
        intercepted = self.proxy.interception is Interception.REDIRECT
        allow = self.options.allow_any and intercepted
        origins = tuple(
            dict.fromkeys(
                origin
                for service, _, rule in chosen
                for origin in (service.origin, *((origin_of(rule),) if rule else ()))
            )
        )

        def build() -> Resource:
            hosts = [
                virtual_host.outbound_host(
                    service, port, rule, self.viewer, self.port_of, with_port_only=with_port_only
                )
                for service, port, rule in chosen
            ]
            message = virtual_host.route_configuration(
                name, hosts, virtual_host.unknown_hosts(allow_any=allow)
            )
            return resource(xds.ROUTE, name, message, origins)

        return self.memo.get(
            ("route", self.scope, intercepted, name), (tuple(chosen), ports, allow), build
        )

    def port_of(self, host: str, wanted: int) -> int:
        """The port that a destination without one means: the listener's own if the service has it, else its only one."""
        service = self.snapshot.services.get(host)
        if service is None or service.port(wanted) is not None or not service.ports:
            return wanted
        return service.ports[0].number

    def _http_proxy(self) -> list[Resource]:
        telemetry, host = self.options.telemetry, self.proxy.address
        name = f"{host}_{names.HTTP_PROXY_PORT}"
        members = [
            (service, port)
            for service in self.visible()
            for port in service.ports
            if port.protocol.is_http
        ]
        return [
            self.memo.get(
                ("listener", name),
                (telemetry,),
                lambda: resource(xds.LISTENER, name, listener.http_proxy(telemetry, host)),
            ),
            self._routes(names.HTTP_PROXY, members, with_port_only=True),
        ]

    # ---- inbound ----------------------------------------------------------------------------------------------------

    def _own_ports(
        self,
    ) -> tuple[dict[int, tuple[int, InboundPort]], selection.PeerModes, tuple[Origin, ...]]:
        """Workload port -> (service port, what is behind it), from the services whose endpoint this proxy is."""
        labels = self.labels
        modes = selection.peer_modes(
            self.snapshot.peer_authentications, self.proxy.namespace, labels
        )
        found: dict[int, tuple[int, InboundPort]] = {}
        origins = [origin_of(item) for item in self.snapshot.peer_authentications]
        for host, endpoints in sorted(self.snapshot.endpoints.items()):
            own = next(
                (
                    e
                    for e in endpoints
                    if e.address == self.proxy.address and e.namespace == self.proxy.namespace
                ),
                None,
            )
            if own is None:
                continue
            service = self.snapshot.services[host]
            origins.append(service.origin)
            for port in service.ports:
                number = own.ports.get(port.name, port.target)
                found.setdefault(
                    number,
                    (
                        number,
                        InboundPort(
                            number,
                            port.protocol,
                            host,
                            service.origin.name,
                            service.namespace,
                            modes.of(number),
                        ),
                    ),
                )
        return found, modes, tuple(origins)

    def _inbound_intercepted(self) -> list[Resource]:
        ports, modes, origins = self._own_ports()
        telemetry = self.options.telemetry
        listed = tuple(port for _, (_, port) in sorted(ports.items()))
        made = [self._inbound_cluster(port, None, origins) for port in listed]
        made.append(
            self.memo.get(
                ("inbound", self.proxy.address),
                (listed, modes.default, telemetry),
                lambda: resource(
                    xds.LISTENER,
                    names.VIRTUAL_INBOUND,
                    listener.virtual_inbound(telemetry, listed, modes.default),
                    origins,
                ),
            )
        )
        return made

    def _inbound_direct(self) -> list[Resource]:
        ports, _, origins = self._own_ports()
        telemetry, host = self.options.telemetry, self.proxy.address
        made = []
        for number, (bound, port) in sorted(ports.items()):
            made.append(self._inbound_cluster(port, self.proxy.app_address, origins))
            made.append(
                self.memo.get(
                    ("inbound", host, number),
                    (bound, port, telemetry),
                    partial(self._direct_listener, bound, port, origins),
                )
            )
        return made

    def _direct_listener(
        self, bound: int, port: InboundPort, origins: tuple[Origin, ...]
    ) -> Resource:
        message = listener.direct_inbound(self.options.telemetry, self.proxy.address, bound, port)
        return resource(xds.LISTENER, message.name, message, origins)

    def _inbound_cluster(
        self, port: InboundPort, application: str | None, origins: tuple[Origin, ...]
    ) -> Resource:
        return self.memo.get(
            ("inbound-cluster", application, port.port),
            (port.protocol, origins),
            lambda: resource(
                xds.CLUSTER,
                names.inbound(port.port),
                cluster.inbound(port.port, port.protocol, application),
                origins,
            ),
        )

    # ---- gateways ---------------------------------------------------------------------------------------------------

    def _gateway(self) -> list[Resource]:
        labels = dict(self.proxy.labels)
        by_port: dict[int, list[tuple[ConfigObject[Gateway], Server]]] = {}
        for item in self.snapshot.gateways:
            if not labels_match(tuple(item.spec.selector.items()), labels):
                continue
            for server in item.spec.servers:
                if server.port is not None:
                    by_port.setdefault(server.port.number, []).append((item, server))
        host = "0.0.0.0" if self.proxy.interception is Interception.REDIRECT else self.proxy.address
        made = []
        for number, servers in sorted(by_port.items()):
            made.append(self._gateway_listener(host, number))
            made.append(self._gateway_routes(number, servers))
        return made

    def _gateway_listener(self, host: str, number: int) -> Resource:
        telemetry = self.options.telemetry
        name = f"{host}_{number}"
        return self.memo.get(
            ("gateway", name),
            (telemetry,),
            lambda: resource(xds.LISTENER, name, listener.gateway(telemetry, host, number)),
        )

    def _gateway_routes(
        self, number: int, servers: list[tuple[ConfigObject[Gateway], Server]]
    ) -> Resource:
        name = f"http.{number}"
        rules = tuple(
            item
            for item in self.snapshot.virtual_services
            if item.spec.gateways
            and selection.exported(item.spec.export_to, item.key.namespace, self.proxy.namespace)
        )
        ports = tuple((service.host, service.ports) for service in self.snapshot.services.values())
        gateways = tuple(servers)
        origins = tuple(
            dict.fromkeys([origin_of(g) for g, _ in servers] + [origin_of(rule) for rule in rules])
        )

        def build() -> Resource:
            hosts = virtual_host.gateway_hosts(number, servers, rules, self.viewer, self.port_of)
            message = virtual_host.route_configuration(name, hosts, None)
            return resource(xds.ROUTE, name, message, origins)

        return self.memo.get(
            ("gateway-route", self.scope, self.proxy.labels, name), (rules, gateways, ports), build
        )
