"""The virtual hosts of gateways: which VirtualServices serve which host of which server, and their routes.

    VirtualServices by the gateway that they name ─► claims of hosts ─► a virtual host each, made once for the same claims

Source: istio pilot/pkg/networking/core/gateway.go (buildGatewayHTTPRouteConfig).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from envoy.config.route.v3 import route_components_pb2 as route

from services.pilot.envoy.memo import Memo
from services.pilot.envoy.route import RouteContext, catches_all, destinations, http_routes
from services.pilot.envoy.virtual_host import HostRoutes, Viewer, spliceable
from services.pilot.registry.mesh import origin_of
from windward.config.gateway import Gateway, Server
from windward.config.hosts import matches, resolve
from windward.config.object import ConfigObject
from windward.config.virtual_service import VirtualService
from windward.xds.resource import Origin

GATEWAYS = "gateways/"
"""What is kept for gateways lies below this in a Memo, where no host is."""
Rule = ConfigObject[VirtualService]
Servers = Sequence[tuple[ConfigObject[Gateway], Server]]
Claim = tuple[Rule, str]
"""A VirtualService, and the gateway (``namespace/name``) by which it serves a host."""
Failure = tuple[tuple[Origin, ...], Exception]


@dataclass(slots=True)
class Bound:
    """The VirtualServices that name one gateway, each with its place among all: the oldest comes first."""

    exact: dict[str, list[tuple[int, Rule]]] = field(default_factory=dict)
    """By their hosts."""
    patterns: list[tuple[int, Rule]] = field(default_factory=list)
    """Those with a wildcard among their hosts."""
    every: list[tuple[int, Rule]] = field(default_factory=list)

    def about(self, pattern: str) -> Sequence[tuple[int, Rule]]:
        """Those that may serve a host of a server; others do not."""
        if pattern.startswith("*"):
            return self.every
        named = self.exact.get(pattern, [])
        return [*named, *self.patterns] if self.patterns else named


def bound(rules: Iterable[Rule]) -> Mapping[str, Bound]:
    """By gateway; ``rules`` oldest first."""
    found: dict[str, Bound] = {}
    for place, item in enumerate(rules):
        hosts = {resolve(host, item.key.namespace) for host in item.spec.hosts}
        for name in {_full(name, item.key.namespace) for name in item.spec.gateways}:
            mine = found.setdefault(name, Bound())
            mine.every.append((place, item))
            if any(host.startswith("*") for host in hosts):
                mine.patterns.append((place, item))
            for host in hosts:
                mine.exact.setdefault(host, []).append((place, item))
    return found


def claims(servers: Servers, rules: Mapping[str, Bound]) -> dict[str, tuple[Claim, ...]]:
    """Host in lower case -> who serves it, the oldest first: to Envoy two cases of a name are one domain."""
    found: dict[str, dict[tuple[int, int, str], Rule]] = {}
    for number, (gateway, server) in enumerate(servers):
        name = f"{gateway.key.namespace}/{gateway.key.name}"
        mine = rules.get(name)
        if mine is None:
            continue
        for pattern in server.hosts:
            for place, item in mine.about(pattern.rpartition("/")[2]):
                for served in _served_of(item, pattern, gateway.key.namespace):
                    found.setdefault(served.lower(), {})[place, number, name] = item
    made: dict[str, tuple[Claim, ...]] = {}
    for host, by_place in found.items():
        # Two servers of one gateway may have the host: it is served once.
        once = {
            (place, name): (by_place[place, at, name], name) for place, at, name in sorted(by_place)
        }
        made[host] = tuple(once.values())
    return made


def _served_of(item: Rule, pattern: str, gateway_namespace: str) -> Iterator[str]:
    for host in item.spec.hosts:
        name = resolve(host, item.key.namespace)
        if served := _served(pattern, name, gateway_namespace, item.key.namespace):
            yield served


def redirected(servers: Servers) -> frozenset[str]:
    """Patterns, in lower case, of what is redirected to HTTPS when it comes without TLS."""
    return frozenset(
        pattern.rpartition("/")[2].lower()
        for _, server in servers
        if server.tls is not None and server.tls.https_redirect
        for pattern in server.hosts
    )


@dataclass(frozen=True, slots=True)
class HostsOfPort:
    """Makes the virtual hosts of one port of a gateway, as a proxy sees them."""

    port: int
    viewer: Viewer
    port_of: Callable[[str, int], int]
    memo: Memo

    def host(
        self, name: str, claimed: tuple[Claim, ...], *, redirect: bool
    ) -> tuple[HostRoutes, tuple[Failure, ...]]:
        """Routes of all who claim it, merged oldest first, those that match everything last.

        And the VirtualServices whose routes cannot be built: the others are there without them.
        """
        # What the ports of services make of destinations, which is all that routes take from services.
        clusters = tuple(self._clusters(claim) for claim in claimed)
        viewer = self.viewer
        return self.memo.get(
            GATEWAYS,
            ("host", self.port, name),
            (claimed, clusters, redirect, viewer.namespace, viewer.labels),
            lambda: self._host(name, claimed, redirect=redirect),
        )

    def _host(
        self, name: str, claimed: tuple[Claim, ...], *, redirect: bool
    ) -> tuple[HostRoutes, tuple[Failure, ...]]:
        routes: list[route.Route] = []
        origins: list[Origin] = []
        failures: list[Failure] = []
        for item, gateway in claimed:
            origin = origin_of(item)
            try:
                routes += http_routes(item.spec.http, self._context(item, gateway))
            except Exception as error:
                failures.append(((origin,), error))
            else:
                origins.append(origin)
        made = route.VirtualHost(
            name=f"{name}:{self.port}",
            domains=[name] if name == "*" else [name, f"{name}:{self.port}"],
            routes=sorted(routes, key=lambda item: catches_all(item.match)),
            include_request_attempt_count=True,
            require_tls=route.VirtualHost.ALL if redirect else route.VirtualHost.NONE,
        )
        return spliceable(made, tuple(dict.fromkeys(origins))), tuple(failures)

    def _context(self, item: Rule, gateway: str) -> RouteContext:
        viewer = self.viewer
        return RouteContext(
            item.key.namespace, self.port, gateway, viewer.namespace, viewer.labels, self.port_of
        )

    def _clusters(self, claim: Claim) -> tuple[str, ...]:
        item, gateway = claim
        try:
            return tuple(destinations(item.spec.http, self._context(item, gateway)))
        except Exception:
            return ()  # building says what is wrong with it


def destination_hosts(rules: Iterable[Rule]) -> frozenset[str]:
    """The services that VirtualServices send to: what their routes are depends on these services' ports."""
    return frozenset(
        resolve(part.destination.host, item.key.namespace)
        for item in rules
        for http in item.spec.http
        for part in http.route
        if part.destination is not None
    )


def _full(name: str, namespace: str) -> str:
    return name if "/" in name else f"{namespace}/{name}"


def _served(pattern: str, host: str, gateway_namespace: str, namespace: str) -> str:
    """The host that a server serves of a VirtualService's: the narrower of the two; empty when they do not meet."""
    owner, slash, wanted = pattern.rpartition("/")
    if (
        slash
        and owner not in {"*", namespace}
        and not (owner == "." and namespace == gateway_namespace)
    ):
        return ""
    if matches(wanted, host):
        return host
    return wanted if matches(host, wanted) else ""
