"""What a gateway listens on: a listener a port, plain HTTP or HTTPS, with route configurations and the secrets that it names.

    Gateways that select the proxy -> servers by port -> plain:  one chain, routes ``http.PORT``
                                                      -> secure: a chain a server by SNI, routes ``https.PORT.NAME.GATEWAY.NS``

The first server of a port says whether it is secure; a host of a secure port belongs to the first server that names it.
Source: istio pilot/pkg/networking/core/gateway.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

from services.pilot.credentials.accounts import is_gateway
from services.pilot.envoy import listener, selection, virtual_host
from services.pilot.envoy.common import Failed, passed_on, resource
from services.pilot.envoy.listener import SecureServer
from services.pilot.envoy.options import Options
from services.pilot.envoy.outbound import port_of
from services.pilot.envoy.server_tls import (
    Credentials,
    NoCredential,
    ServerTLS,
    credential_names,
    server_tls,
)
from services.pilot.envoy.virtual_host import Viewer
from services.pilot.model.proxy import Interception, Proxy
from services.pilot.model.service import labels_match
from services.pilot.registry.mesh import origin_of
from services.pilot.snapshot import MeshSnapshot
from windward.config.gateway import TLS_PROTOCOLS, Gateway, Server
from windward.config.object import ConfigObject
from windward.config.virtual_service import VirtualService
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
    rules: tuple[ConfigObject[VirtualService], ...]
    failed: Failed


def resources(
    snapshot: MeshSnapshot,
    proxy: Proxy,
    labels: Mapping[str, str],
    options: Options,
    failed: Failed = passed_on,
) -> Iterator[Resource]:
    """``labels``: the proxy's, its workload's registered ones among them."""
    edge = _Edge(
        snapshot,
        Viewer(proxy.namespace, labels),
        options,
        proxy.address if proxy.interception is Interception.NONE else "0.0.0.0",
        credentials_of(snapshot, proxy, options),
        tuple(
            item
            for item in snapshot.gateway_routes
            if selection.exported(item.spec.export_to, item.key.namespace, proxy.namespace)
        ),
        failed,
    )
    for number, servers in sorted(_servers(snapshot, dict(proxy.labels)).items()):
        secure = is_secure(servers[0][1])
        chosen = [pair for pair in servers if is_secure(pair[1]) is secure]
        try:
            made = list((_secure if secure else _plain)(edge, number, chosen))
        except Exception as error:
            # Without this port the others are what they should be.
            failed(_origins(chosen), error)
        else:
            yield from made


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


def _plain(edge: _Edge, number: int, servers: Servers) -> Iterator[Resource]:
    message = listener.gateway(edge.options.telemetry, edge.host, number)
    yield resource(xds.LISTENER, message.name, message, _origins(servers))
    yield _routes(edge, f"http.{number}", number, servers)


def _secure(edge: _Edge, number: int, servers: Servers) -> Iterator[Resource]:
    """A server whose credential is not there has no chain: its clients are refused, the port's others are not held up."""
    chains: list[SecureServer] = []
    taken: set[str] = set()
    for gateway, server in servers:
        hosts = tuple(host for host in server.hosts if _name(host) not in taken)
        made = _tls(edge, gateway, server) if hosts else None
        if made is None or server.port is None:
            continue
        names = {_name(host) for host in hosts}
        taken |= names
        routes = f"https.{number}.{server.port.name}.{gateway.key.name}.{gateway.key.namespace}"
        chains.append(
            SecureServer(routes, () if "*" in names else tuple(sorted(names)), made.socket)
        )
        yield _routes(
            edge, routes, number, [(gateway, msgspec.structs.replace(server, hosts=hosts))]
        )
        yield from made.secrets
    if chains:
        message = listener.secure_gateway(edge.options.telemetry, edge.host, number, chains)
        yield resource(xds.LISTENER, message.name, message, _origins(servers))


def _origins(servers: Servers) -> tuple[Origin, ...]:
    """Each Gateway once, however many servers it has on the port."""
    return tuple(dict.fromkeys(origin_of(gateway) for gateway, _ in servers))


def _tls(edge: _Edge, gateway: ConfigObject[Gateway], server: Server) -> ServerTLS | None:
    if server.tls is None:
        return None
    origins = (origin_of(gateway),)
    try:
        return server_tls(server.tls, edge.credentials, edge.options.trust_domain, origins)
    except NoCredential:
        return None


def _name(host: str) -> str:
    """A server's host without its namespace, as SNI has it."""
    return host.rpartition("/")[2].lower()


def _routes(edge: _Edge, name: str, number: int, servers: Servers) -> Resource:
    origins = (*_origins(servers), *map(origin_of, edge.rules))
    hosts = virtual_host.gateway_hosts(
        number,
        servers,
        edge.rules,
        edge.viewer,
        lambda host, wanted: port_of(edge.snapshot, host, wanted),
        edge.failed,
    )
    spliced = sorted(map(virtual_host.spliceable, hosts), key=lambda host: host.name)
    return virtual_host.route_configuration(name, spliced, None, origins=origins)
