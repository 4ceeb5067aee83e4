"""What a gateway listens on: a listener a port, plain HTTP or HTTPS, with route configurations and the secrets that it names.

    Gateways that select the proxy -> servers by port -> plain:  one chain, routes ``http.PORT``
                                                      -> secure: a chain a server by SNI, routes ``https.PORT.NAME.GATEWAY.NS``

The first server of a port says whether it is secure; a host of a secure port belongs to the first server that names it.
Source: istio pilot/pkg/networking/core/gateway.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import msgspec

from services.pilot.credentials.accounts import is_gateway
from services.pilot.envoy import listener, selection, virtual_host
from services.pilot.envoy.chains import ChainBytes, spliceable, spliced
from services.pilot.envoy.common import Failed, resource
from services.pilot.envoy.gateway_routes import (
    GATEWAYS,
    Bound,
    HostsOfPort,
    bound,
    claims,
    redirected,
)
from services.pilot.envoy.memo import Memo
from services.pilot.envoy.options import Options
from services.pilot.envoy.outbound import port_of
from services.pilot.envoy.server_tls import (
    Credentials,
    Held,
    NoCredential,
    credential_names,
    server_tls,
)
from services.pilot.envoy.virtual_host import HostRoutes, Viewer
from services.pilot.model.proxy import Interception, Proxy
from services.pilot.model.service import labels_match
from services.pilot.registry.mesh import origin_of
from services.pilot.snapshot import MeshSnapshot
from windward.config.gateway import TLS_PROTOCOLS, Gateway, Server, ServerTLSSettings
from windward.config.hosts import matches
from windward.config.object import ConfigObject
from windward.slices import Work
from windward.xds import resource as xds
from windward.xds.resource import Origin, Resource

Servers = list[tuple[ConfigObject[Gateway], Server]]


@dataclass(frozen=True, slots=True)
class _Edge:
    """One gateway proxy at one moment."""

    snapshot: MeshSnapshot
    viewer: Viewer
    options: Options
    host: str
    """What it listens on."""
    credentials: Credentials
    rules: Mapping[str, Bound]
    failed: Failed
    memo: Memo


def making(
    snapshot: MeshSnapshot,
    proxy: Proxy,
    labels: Mapping[str, str],
    options: Options,
    failed: Failed,
    memo: Memo,
) -> Work[list[Resource]]:
    """``labels``: the proxy's, its workload's registered ones among them. See services.pilot.envoy.own.making."""
    rules = tuple(
        item
        for item in snapshot.gateway_routes
        if selection.exported(item.spec.export_to, item.key.namespace, proxy.namespace)
    )
    edge = _Edge(
        snapshot,
        Viewer(proxy.namespace, labels),
        options,
        proxy.address if proxy.interception is Interception.NONE else "0.0.0.0",
        credentials_of(snapshot, proxy, options),
        memo.get(GATEWAYS, ("rules", proxy.namespace), (rules,), lambda: bound(rules)),
        failed,
        memo,
    )
    made: list[Resource] = []
    for number, servers in sorted(_servers(snapshot, dict(proxy.labels)).items()):
        secure = is_secure(servers[0][1])
        chosen = [pair for pair in servers if is_secure(pair[1]) is secure]
        of_port: list[Resource] = []
        try:
            for item in (_secure if secure else _plain)(edge, number, chosen):
                if item is not None:
                    of_port.append(item)
                yield
        except Exception as error:
            # Without this port the others are what they should be.
            failed(_origins(chosen), error)
        else:
            made += of_port
    return made


def credentials_of(snapshot: MeshSnapshot, proxy: Proxy, options: Options) -> Credentials:
    """Those of the namespace that the proxy's certificate proves, if it proves an account of a gateway too; else none."""
    may = is_gateway(proxy, options.trust_domain, options.gateway_accounts)
    return Credentials(snapshot.credentials if may else {}, proxy.namespace)


def refused(snapshot: MeshSnapshot, proxy: Proxy, options: Options) -> dict[str, str]:
    """What a proxy claims by its type and labels, is there, and is not for it: credential -> a Gateway (namespace/name)."""
    if not snapshot.credentials or is_gateway(
        proxy, options.trust_domain, options.gateway_accounts
    ):
        return {}
    found: dict[str, str] = {}
    for servers in _servers(snapshot, dict(proxy.labels)).values():
        for item, server in servers:
            tls = server.tls
            named = (*credential_names(tls), tls.ca_cert_credential_name) if tls else ()
            for name in named:
                if (proxy.namespace, name) in snapshot.credentials:
                    found.setdefault(name, f"{item.key.namespace}/{item.key.name}")
    return found


def is_secure(server: Server) -> bool:
    return server.port is not None and server.port.protocol.upper() in TLS_PROTOCOLS


def _servers(snapshot: MeshSnapshot, labels: Mapping[str, str]) -> dict[int, Servers]:
    """The servers of the Gateways that select this proxy, by port."""
    by_port: dict[int, Servers] = {}
    for item in snapshot.gateways:
        if not labels_match(tuple(item.spec.selector.items()), dict(labels)):
            continue
        for server in item.spec.servers:
            if server.port is not None:
                by_port.setdefault(server.port.number, []).append((item, server))
    return by_port


def _plain(edge: _Edge, number: int, servers: Servers) -> Iterator[Resource | None]:
    """None where other work may go between."""
    message = listener.gateway(edge.options.telemetry, edge.host, number)
    yield resource(xds.LISTENER, message.name, message, _origins(servers))
    yield from _routes(edge, f"http.{number}", number, servers)


def _secure(edge: _Edge, number: int, servers: Servers) -> Iterator[Resource | None]:
    """A server whose credential is not there has no chain: its clients are refused, the port's others are not held up."""
    chains: list[ChainBytes] = []
    taken: set[str] = set()
    for gateway, server in servers:
        hosts = tuple(host for host in server.hosts if _name(host) not in taken)
        if not hosts or server.tls is None or server.port is None:
            continue
        try:
            held = edge.credentials.of(server.tls)
        except NoCredential:
            continue
        names = {_name(host) for host in hosts}
        taken |= names
        routes = f"https.{number}.{server.port.name}.{gateway.key.name}.{gateway.key.namespace}"
        sni = () if "*" in names else tuple(sorted(names))
        chain, secrets = _chain(edge, number, routes, sni, gateway, server.tls, held)
        chains.append(chain)
        mine = msgspec.structs.replace(server, hosts=hosts) if hosts != server.hosts else server
        yield from _routes(edge, routes, number, [(gateway, mine)])
        yield from secrets
    if chains:
        yield spliced(listener.secure_gateway(edge.host, number), chains, _origins(servers))


def _chain(
    edge: _Edge,
    number: int,
    routes: str,
    sni: tuple[str, ...],
    gateway: ConfigObject[Gateway],
    settings: ServerTLSSettings,
    held: Held,
) -> tuple[ChainBytes, tuple[Resource, ...]]:
    """A server's filter chain and its secrets: of what this very gateway may have, which is among the inputs."""
    telemetry, origins = edge.options.telemetry, (origin_of(gateway),)

    def build() -> tuple[ChainBytes, tuple[Resource, ...]]:
        made = server_tls(settings, held, edge.options.trust_domain, origins)
        chain = listener.secure_server(telemetry, edge.host, number, routes, sni, made.socket)
        return spliceable(chain), made.secrets

    return edge.memo.get(
        GATEWAYS,
        ("chain", edge.host, routes),
        (sni, settings, held, origins, telemetry, edge.options.trust_domain),
        build,
    )


def _origins(servers: Servers) -> tuple[Origin, ...]:
    """Each Gateway once, however many servers it has on the port."""
    return tuple(dict.fromkeys(origin_of(gateway) for gateway, _ in servers))


def _name(host: str) -> str:
    """A server's host without its namespace, as SNI has it."""
    return host.rpartition("/")[2].lower()


def _routes(edge: _Edge, name: str, number: int, servers: Servers) -> Iterator[Resource | None]:
    """A host of a server with ``httpsRedirect`` needs no VirtualService: all that comes without TLS is redirected."""
    make = HostsOfPort(number, edge.viewer, partial(port_of, edge.snapshot), edge.memo)
    to_https = redirected(servers)
    claimed = dict.fromkeys(sorted(to_https), ()) | claims(servers, edge.rules)
    hosts: list[HostRoutes] = []
    told: set[tuple[Origin, ...]] = set()
    for host in sorted(claimed, key=lambda host: f"{host}:{number}"):
        redirect = any(matches(pattern, host) for pattern in to_https)
        made, failures = make.host(host, claimed[host], redirect=redirect)
        if made.origins or host in to_https:
            hosts.append(made)
        for origins, error in failures:
            if origins not in told:
                told.add(origins)
                edge.failed(origins, error)
        yield None
    yield virtual_host.route_configuration(name, hosts, None, origins=_origins(servers))
