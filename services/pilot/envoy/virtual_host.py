"""Route configurations: one a port for sidecars, one for the HTTP proxy, one a port for gateways.

Source: istio pilot/pkg/networking/core/{httproute,gateway}.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from envoy.config.route.v3 import route_components_pb2 as route
from envoy.config.route.v3 import route_pb2
from google.protobuf import wrappers_pb2

from services.pilot.envoy import names
from services.pilot.envoy.common import duration
from services.pilot.envoy.route import RouteContext, http_routes, retry_policy
from services.pilot.model.service import Port, Service
from windward.config.gateway import Gateway, Server
from windward.config.hosts import DOMAIN_SUFFIX, matches, resolve
from windward.config.object import ConfigObject
from windward.config.virtual_service import VirtualService


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


def route_configuration(
    name: str, hosts: Sequence[route.VirtualHost], fallback: route.VirtualHost | None
) -> route_pb2.RouteConfiguration:
    """Hosts in name order; a domain belongs to the first that claims it (Envoy refuses duplicates)."""
    taken: set[str] = set()
    kept = []
    for host in sorted(hosts, key=lambda item: item.name):
        fresh = [domain for domain in host.domains if domain.lower() not in taken]
        taken.update(domain.lower() for domain in fresh)
        if fresh:
            copy = route.VirtualHost()
            copy.CopyFrom(host)
            del copy.domains[:]
            copy.domains.extend(dict.fromkeys(fresh))
            kept.append(copy)
    if fallback is not None and "*" not in taken:
        kept.append(fallback)
    return route_pb2.RouteConfiguration(
        name=name,
        virtual_hosts=kept,
        validate_clusters=wrappers_pb2.BoolValue(value=False),
        max_direct_response_body_size_bytes=wrappers_pb2.UInt32Value(value=1_048_576),
    )


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


def gateway_hosts(
    port: int,
    servers: Sequence[tuple[ConfigObject[Gateway], Server]],
    rules: Sequence[ConfigObject[VirtualService]],
    viewer: Viewer,
    port_of: Callable[[str, int], int],
) -> list[route.VirtualHost]:
    """One virtual host a host, VirtualServices merged oldest first, routes that match everything last."""
    by_host: dict[str, list[route.Route]] = {}
    for item in rules:
        for gateway, server in servers:
            bound = f"{gateway.key.namespace}/{gateway.key.name}"
            if bound not in {_full(name, item.key.namespace) for name in item.spec.gateways}:
                continue
            context = RouteContext(
                item.key.namespace, port, bound, viewer.namespace, viewer.labels, port_of
            )
            routes = http_routes(item.spec.http, context)
            for host in item.spec.hosts:
                name = resolve(host, item.key.namespace)
                for pattern in server.hosts:
                    served = _served(pattern, name, gateway.key.namespace, item.key.namespace)
                    if served:
                        by_host.setdefault(served, []).extend(routes)
    made = []
    for host, routes in by_host.items():
        ordered = sorted(routes, key=_is_catch_all)
        listed = [host] if host == "*" else [host, f"{host}:{port}"]
        made.append(
            route.VirtualHost(
                name=f"{host}:{port}",
                domains=listed,
                routes=ordered,
                include_request_attempt_count=True,
            )
        )
    return made


def _is_catch_all(item: route.Route) -> bool:
    return item.match.prefix == "/" and not item.match.headers and not item.match.query_parameters


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
