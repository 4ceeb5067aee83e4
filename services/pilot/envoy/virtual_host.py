"""Route configurations: one a port for sidecars, one for the HTTP proxy, one a port for gateways.

Source: istio pilot/pkg/networking/core/{httproute,gateway}.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from hashlib import blake2b

from envoy.config.route.v3 import route_components_pb2 as route
from envoy.config.route.v3 import route_pb2
from google.protobuf import wrappers_pb2

from services.pilot.envoy import names
from services.pilot.envoy.common import duration
from services.pilot.envoy.route import RouteContext, http_routes, retry_policy
from services.pilot.model.service import Port, Service
from services.pilot.registry.mesh import origin_of
from windward.config.hosts import DOMAIN_SUFFIX
from windward.config.object import ConfigObject
from windward.config.virtual_service import VirtualService
from windward.xds import resource as xds
from windward.xds.resource import Origin, Resource, bytes_field


@dataclass(frozen=True, slots=True)
class Viewer:
    """The proxy as its routes see it."""

    namespace: str
    labels: Mapping[str, str]


def outbound_host(
    service: Service,
    port: Port,
    rule: ConfigObject[VirtualService] | None,
    viewer: Viewer,
    port_of: Callable[[str, int], int],
    *,
    with_port_only: bool = False,
) -> route.VirtualHost:
    """``host:port``: by its VirtualService, else straight to the service."""
    routes: list[route.Route] = []
    if rule is not None:
        context = RouteContext(
            rule.key.namespace, port.number, "mesh", viewer.namespace, viewer.labels, port_of
        )
        routes = http_routes(rule.spec.http, context)
    if not routes:
        routes = [default_route(names.outbound(port.number, "", service.host))]
    return route.VirtualHost(
        name=f"{service.host}:{port.number}",
        domains=domains(service, port.number, viewer.namespace, with_port_only=with_port_only),
        routes=routes,
        include_request_attempt_count=True,
    )


def default_route(cluster: str) -> route.Route:
    action = route.RouteAction(cluster=cluster, timeout=duration(0))
    policy = retry_policy(None)
    assert policy is not None
    action.retry_policy.CopyFrom(policy)
    return route.Route(name="default", match=route.RouteMatch(prefix="/"), route=action)


def domains(service: Service, port: int, namespace: str, *, with_port_only: bool) -> list[str]:
    """The host, its shorter forms where the proxy may use them, its addresses; each with and without the port."""
    addresses = [f"[{address}]" if ":" in address else address for address in service.addresses]
    hosts = [service.host, *aliases(service.host, namespace), *addresses]
    made = []
    for host in hosts:
        if not with_port_only or port == 80:
            made.append(host)
        made.append(f"{host}:{port}")
    return made


def aliases(host: str, namespace: str) -> list[str]:
    """``reviews.shop.svc.cluster.local`` is also ``reviews.shop.svc`` and ``reviews.shop``; ``reviews`` in its own."""
    suffix = f".svc.{DOMAIN_SUFFIX}"
    if not host.endswith(suffix):
        return []
    name, _, owner = host.removesuffix(suffix).partition(".")
    if not owner:
        return []
    own = [name] if owner == namespace else []
    return [f"{name}.{owner}.svc", f"{name}.{owner}", *own]


@dataclass(frozen=True, slots=True)
class HostRoutes:
    """A virtual host as bytes, ready to be spliced into route configurations."""

    name: str
    domains: frozenset[str]
    """In lower case: Envoy refuses a configuration that says one twice, whatever the case."""
    body: bytes
    origins: tuple[Origin, ...]
    field: bytes = dataclass_field(init=False, repr=False, compare=False)
    """``RouteConfiguration.virtual_hosts``, tag and length included."""
    digest: bytes = dataclass_field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "field", bytes_field(VIRTUAL_HOSTS, self.body))
        object.__setattr__(self, "digest", blake2b(self.body, digest_size=16).digest())


def host_routes(
    service: Service,
    port: Port,
    rule: ConfigObject[VirtualService] | None,
    viewer: Viewer,
    port_of: Callable[[str, int], int],
    *,
    with_port_only: bool,
) -> HostRoutes:
    host = outbound_host(service, port, rule, viewer, port_of, with_port_only=with_port_only)
    origins = (service.origin, *((origin_of(rule),) if rule else ()))
    return spliceable(host, origins)


def spliceable(host: route.VirtualHost, origins: tuple[Origin, ...] = ()) -> HostRoutes:
    unique = list(dict.fromkeys(host.domains))
    if len(unique) != len(host.domains):
        del host.domains[:]
        host.domains.extend(unique)
    return HostRoutes(
        host.name,
        frozenset(domain.lower() for domain in unique),
        host.SerializeToString(deterministic=True),
        origins,
    )


def route_configuration(
    name: str,
    hosts: Sequence[HostRoutes],
    fallback: HostRoutes | None,
    *,
    origins: tuple[Origin, ...] = (),
    disjoint: bool = False,
) -> Resource:
    """Hosts in the order given, joined from their bytes; a domain belongs to the first that claims it.

    ``disjoint``: the caller knows that no two hosts share a domain. Concatenated fields are one message: the bytes are
    those that the whole message, serialised at once, would have. The version is a digest of the hosts' digests, so that
    a long configuration need not be hashed again for one host of many.
    """
    kept = list(hosts) if disjoint else _resolved(hosts)
    if fallback is not None and not any("*" in host.domains for host in kept):
        kept.append(fallback)
    version = blake2b(name.encode(), digest_size=8)
    for host in kept:
        version.update(host.digest)
    parts = [route_pb2.RouteConfiguration(name=name).SerializeToString()]
    parts += [host.field for host in kept]
    parts.append(REST)
    origins += tuple(origin for host in kept for origin in host.origins)
    return Resource(xds.ROUTE, name, tuple(parts), origins, version.hexdigest())


VIRTUAL_HOSTS = route_pb2.RouteConfiguration.VIRTUAL_HOSTS_FIELD_NUMBER
REST = route_pb2.RouteConfiguration(
    validate_clusters=wrappers_pb2.BoolValue(value=False),
    max_direct_response_body_size_bytes=wrappers_pb2.UInt32Value(value=1_048_576),
).SerializeToString(deterministic=True)


def are_disjoint(hosts: Iterable[HostRoutes]) -> bool:
    taken: set[str] = set()
    count = 0
    for host in hosts:
        taken |= host.domains
        count += len(host.domains)
    return count == len(taken)


def _resolved(hosts: Iterable[HostRoutes]) -> list[HostRoutes]:
    """Every domain with the first host that claims it."""
    taken: set[str] = set()
    kept: list[HostRoutes] = []
    for host in hosts:
        fresh = host if taken.isdisjoint(host.domains) else _without(host, taken)
        if fresh is not None:
            taken |= fresh.domains
            kept.append(fresh)
    return kept


def _without(host: HostRoutes, taken: set[str]) -> HostRoutes | None:
    """The host less the domains that others have; None when nothing is left."""
    message = route.VirtualHost.FromString(host.body)
    fresh = [domain for domain in message.domains if domain.lower() not in taken]
    if not fresh:
        return None
    del message.domains[:]
    message.domains.extend(fresh)
    return spliceable(message, host.origins)


def unknown_hosts(*, allow_any: bool) -> route.VirtualHost:
    """Hosts that no service has: as the application meant it, or 502."""
    if allow_any:
        action = route.RouteAction(cluster=names.PASSTHROUGH, timeout=duration(0))
        passing = route.Route(
            name=names.ALLOW_ANY, match=route.RouteMatch(prefix="/"), route=action
        )
        return route.VirtualHost(name=names.ALLOW_ANY, domains=["*"], routes=[passing])
    refusing = route.Route(
        name=names.BLOCK_ALL,
        match=route.RouteMatch(prefix="/"),
        direct_response=route.DirectResponseAction(status=502),
    )
    return route.VirtualHost(name=names.BLOCK_ALL, domains=["*"], routes=[refusing])
