"""What is one proxy's alone: a sidecar's inbound listeners and clusters, a gateway's listeners and routes. Pure.

(MeshSnapshot, Proxy, its labels, Options) -> resources
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.pilot.envoy import cluster, gateway, listener, names, selection
from services.pilot.envoy.common import Failed, passed_on, resource
from services.pilot.envoy.listener import InboundPort
from services.pilot.envoy.options import Options
from services.pilot.envoy.outbound import Scope, Shape
from services.pilot.model.proxy import Interception, Proxy, ProxyType
from services.pilot.model.sidecar_scope import EVERYTHING
from services.pilot.registry.mesh import origin_of
from services.pilot.snapshot import Address, Delta, MeshSnapshot
from windward.xds import resource as xds
from windward.xds.resource import Origin, Resource


def place_of(proxy: Proxy) -> Address:
    return (proxy.namespace, proxy.address)


def labels_of(snapshot: MeshSnapshot, proxy: Proxy) -> dict[str, str]:
    """The proxy's own, over those that its workload was registered with."""
    registered = snapshot.endpoint_at(place_of(proxy))
    return {**(registered.labels if registered else {}), **dict(proxy.labels)}


def scope_of(snapshot: MeshSnapshot, proxy: Proxy) -> Scope:
    """Whom the proxy shares its outbound resources with."""
    labels = labels_of(snapshot, proxy)
    shape = Shape.ROUTER
    if proxy.proxyless:
        shape = Shape.PROXYLESS
    elif proxy.type is ProxyType.SIDECAR:
        intercepted = proxy.interception is not Interception.NONE
        shape = Shape.INTERCEPTED if intercepted else Shape.DIRECT
    return Scope(
        shape,
        proxy.namespace,
        tuple(sorted(labels.items())) if snapshot.routes_by_label else (),
        snapshot.sidecars.scope(proxy.namespace, labels)
        if proxy.type is ProxyType.SIDECAR
        else EVERYTHING,
        proxy.vips,
        proxy.ipv6 and shape is Shape.INTERCEPTED,
    )


def may_move(delta: Delta, proxy: Proxy) -> bool:
    """Whether a change may put the proxy into another scope."""
    return delta.scopes or place_of(proxy) in delta.addresses


def concerns(delta: Delta, before: MeshSnapshot, proxy: Proxy) -> bool:
    """Whether a change may be one of the proxy's own resources."""
    if proxy.proxyless:
        return False
    if proxy.type is ProxyType.ROUTER:
        mine = any(namespace == proxy.namespace for namespace, _ in delta.credentials)
        return mine or delta.gateways or bool(delta.services)
    if delta.peers or place_of(proxy) in delta.addresses:
        return True
    return not delta.services.isdisjoint(before.hosts_at.get(place_of(proxy), ()))


def own_resources(
    snapshot: MeshSnapshot, proxy: Proxy, options: Options, failed: Failed = passed_on
) -> list[Resource]:
    """``failed`` is told of parts that cannot be built: all others are there without them."""
    if proxy.proxyless:
        return []
    if proxy.type is ProxyType.ROUTER:
        labels = labels_of(snapshot, proxy)
        return list(gateway.resources(snapshot, proxy, labels, options, failed))
    inbound = _inbound(snapshot, proxy)
    build = _direct if proxy.interception is Interception.NONE else _intercepted
    try:
        return build(inbound, proxy, options)
    except Exception:
        if failed is passed_on:
            raise
        good = []
        for port in inbound.ports:
            try:
                build(replace(inbound, ports=(port,)), proxy, options)
            except Exception as fault:
                failed((snapshot.services[port.service_host].origin,), fault)
            else:
                good.append(port)
        if len(good) == len(inbound.ports):
            raise
        return build(replace(inbound, ports=tuple(good)), proxy, options)


# ---- sidecars -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Inbound:
    ports: tuple[InboundPort, ...]
    modes: selection.PeerModes
    origins: tuple[Origin, ...]


def _inbound(snapshot: MeshSnapshot, proxy: Proxy) -> _Inbound:
    """The workload's ports, from the services that it is behind; the first service that has a port gives its name."""
    labels = labels_of(snapshot, proxy)
    modes = selection.peer_modes(snapshot.peer_authentications, proxy.namespace, labels)
    origins = [origin_of(item) for item in modes.deciding]
    place = place_of(proxy)
    found: dict[int, InboundPort] = {}
    for host in snapshot.hosts_at.get(place, ()):
        service = snapshot.services[host]
        origins.append(service.origin)
        mine = next(
            item for item in snapshot.endpoints[host] if (item.namespace, item.address) == place
        )
        for port in service.ports:
            number = mine.ports.get(port.name, port.target)
            behind = InboundPort(
                number,
                port.protocol,
                host,
                service.origin.name,
                service.namespace,
                modes.of(number),
            )
            found.setdefault(number, behind)
    return _Inbound(tuple(found[number] for number in sorted(found)), modes, tuple(origins))


def _intercepted(inbound: _Inbound, proxy: Proxy, options: Options) -> list[Resource]:
    transparent = proxy.interception is Interception.TPROXY
    made = [
        _inbound_cluster(port, None, inbound.origins, transparent=transparent, ipv6=proxy.ipv6)
        for port in inbound.ports
    ]
    if transparent or proxy.ipv6:
        # In the place of the one that all of the scope have, which calls from an IPv4 address of its own.
        passing = cluster.inbound_passthrough(transparent=transparent, ipv6=proxy.ipv6)
        made.append(resource(xds.CLUSTER, passing.name, passing))
    message = listener.virtual_inbound(
        options.telemetry, inbound.ports, inbound.modes.default, transparent=transparent
    )
    if proxy.ipv6:
        listener.add_ipv6(message)
    return [*made, resource(xds.LISTENER, message.name, message, inbound.origins)]


def _direct(inbound: _Inbound, proxy: Proxy, options: Options) -> list[Resource]:
    made = [_http_proxy(proxy, options)]
    for port in inbound.ports:
        made.append(_inbound_cluster(port, proxy.app_address, inbound.origins))
        message = listener.direct_inbound(options.telemetry, proxy.address, port.port, port)
        made.append(resource(xds.LISTENER, message.name, message, inbound.origins))
    return made


def _inbound_cluster(
    port: InboundPort,
    application: str | None,
    origins: tuple[Origin, ...],
    *,
    transparent: bool = False,
    ipv6: bool = False,
) -> Resource:
    message = cluster.inbound(
        port.port, port.protocol, application, transparent=transparent, ipv6=ipv6
    )
    return resource(xds.CLUSTER, names.inbound(port.port), message, origins)


def _http_proxy(proxy: Proxy, options: Options) -> Resource:
    message = listener.http_proxy(options.telemetry, proxy.address)
    return resource(xds.LISTENER, message.name, message)
