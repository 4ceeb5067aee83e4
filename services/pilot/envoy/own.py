"""What is one proxy's alone: a sidecar's inbound listeners and clusters, a gateway's listeners and routes. Pure.

(MeshSnapshot, Proxy, its labels, Options) -> resources
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

from services.pilot.envoy import cluster, gateway, listener, names, selection
from services.pilot.envoy.chains import ChainBytes, spliceable, spliced
from services.pilot.envoy.common import Failed, passed_on, resource
from services.pilot.envoy.listener import InboundPort
from services.pilot.envoy.memo import Memo
from services.pilot.envoy.options import Options
from services.pilot.envoy.outbound import Scope, Shape
from services.pilot.model.proxy import Interception, Proxy, ProxyType
from services.pilot.model.sidecar_scope import EVERYTHING
from services.pilot.registry.mesh import origin_of
from services.pilot.snapshot import Address, Delta, MeshSnapshot
from windward.config.peer_authentication import MutualTLSMode
from windward.slices import Work, at_once
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
        return mine or delta.gateways or not delta.services.isdisjoint(before.gateway_destinations)
    if delta.peers or place_of(proxy) in delta.addresses:
        return True
    return not delta.services.isdisjoint(before.hosts_at.get(place_of(proxy), ()))


def own_resources(
    snapshot: MeshSnapshot,
    proxy: Proxy,
    options: Options,
    failed: Failed = passed_on,
    memo: Memo | None = None,
) -> list[Resource]:
    """All of ``making`` at once."""
    return at_once(making(snapshot, proxy, options, failed, memo or Memo()))


def making(
    snapshot: MeshSnapshot, proxy: Proxy, options: Options, failed: Failed, memo: Memo
) -> Work[list[Resource]]:
    """A proxy's own resources. ``failed`` is told of parts that cannot be built: all others are there without them.

    ``memo``: parts of filter chains and routes, which other proxies and later snapshots have too. Yields where other work
    may go between: a gateway may have a thousand servers.
    """
    if proxy.proxyless:
        return []
    if proxy.type is ProxyType.ROUTER:
        labels = labels_of(snapshot, proxy)
        return (yield from gateway.making(snapshot, proxy, labels, options, failed, memo))
    inbound = _inbound(snapshot, proxy)
    make = _direct if proxy.interception is Interception.NONE else _intercepted
    build = partial(make, proxy=proxy, options=options, memo=memo)
    try:
        return build(inbound)
    except Exception:
        if failed is passed_on:
            raise
        good = []
        for port in inbound.ports:
            try:
                build(replace(inbound, ports=(port,)))
            except Exception as fault:
                failed((snapshot.services[port.service_host].origin,), fault)
            else:
                good.append(port)
        if len(good) == len(inbound.ports):
            raise
        return build(replace(inbound, ports=tuple(good)))


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


def _intercepted(inbound: _Inbound, proxy: Proxy, options: Options, memo: Memo) -> list[Resource]:
    transparent = proxy.interception is Interception.TPROXY
    made = [
        _inbound_cluster(port, None, inbound.origins, transparent=transparent, ipv6=proxy.ipv6)
        for port in inbound.ports
    ]
    if transparent or proxy.ipv6:
        # In the place of the one that all of the scope have, which calls from an IPv4 address of its own.
        passing = cluster.inbound_passthrough(transparent=transparent, ipv6=proxy.ipv6)
        made.append(resource(xds.CLUSTER, passing.name, passing))
    frame = listener.virtual_inbound(transparent=transparent)
    if proxy.ipv6:
        listener.add_ipv6(frame)
    chains = [
        *_common_chains(options, memo),
        *(item for port in inbound.ports for item in _chains(port, port.port, options, memo)),
        *_catch_all(inbound.modes.default, options, memo),
    ]
    return [*made, spliced(frame, chains, inbound.origins)]


def _direct(inbound: _Inbound, proxy: Proxy, options: Options, memo: Memo) -> list[Resource]:
    made = [_http_proxy(proxy, options)]
    for port in inbound.ports:
        made.append(_inbound_cluster(port, proxy.app_address, inbound.origins))
        frame = listener.direct_inbound(proxy.address, port.port)
        made.append(spliced(frame, _chains(port, None, options, memo), inbound.origins))
    return made


def _chains(
    port: InboundPort, destination: int | None, options: Options, memo: Memo
) -> tuple[ChainBytes, ...]:
    """The same for all workloads behind a service."""
    return memo.get(
        port.service_host,
        ("inbound", port.port, destination),
        (port, options.telemetry),
        lambda: _bytes(listener.inbound_chains(options.telemetry, port, destination)),
    )


def _common_chains(options: Options, memo: Memo) -> tuple[ChainBytes, ...]:
    return memo.get(
        "",
        "inbound loop",
        (options.telemetry,),
        lambda: _bytes([listener.inbound_loop(options.telemetry)]),
    )


def _catch_all(mode: MutualTLSMode, options: Options, memo: Memo) -> tuple[ChainBytes, ...]:
    return memo.get(
        "",
        ("inbound catch-all", mode),
        (options.telemetry,),
        lambda: _bytes(listener.inbound_catch_all(options.telemetry, mode)),
    )


def _bytes(chains: Iterable[listener.Chain]) -> tuple[ChainBytes, ...]:
    return tuple(map(spliceable, chains))


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
