"""Listeners of sidecars and gateways.

Source: istio pilot/pkg/networking/core/{listener,listener_inbound,gateway}.go; Envoy listener_components.proto. How
Envoy chooses a chain: by destination port first, and a port that has chains of its own never falls back to the others,
so the chains that take any port match none (and are no default chain).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_components_pb2 as parts
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2
from envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.filters.listener.original_src.v3 import original_src_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from google.protobuf import wrappers_pb2

from services.pilot.envoy import names, tls
from services.pilot.envoy.common import address, duration, pack
from services.pilot.envoy.http import (
    INBOUND_LOG,
    Telemetry,
    inbound_manager,
    manager_filter,
    outbound_manager,
    tcp_filter,
)
from services.pilot.envoy.mixer import CHECK_FILTERS
from services.pilot.model.service import Protocol
from windward.config.peer_authentication import MutualTLSMode

Chain = parts.FilterChain
Match = parts.FilterChainMatch
TPROXY_MARK = 1337
"""That of the agent's interception rules."""
HTTP_ALPN = ("http/1.0", "http/1.1", "h2c")


@dataclass(frozen=True, slots=True)
class InboundPort:
    """A port of a workload, and the service that it is behind."""

    port: int
    protocol: Protocol
    service_host: str
    service_name: str
    service_namespace: str
    mtls: MutualTLSMode

    @property
    def tags(self) -> Mapping[str, str]:
        """What access logs say of the destination."""
        return {
            "destination_service": self.service_host,
            "destination_service_name": self.service_name,
            "destination_service_namespace": self.service_namespace,
        }


def _original_dst() -> parts.ListenerFilter:
    return parts.ListenerFilter(
        name="envoy.filters.listener.original_dst",
        typed_config=pack(original_dst_pb2.OriginalDst()),
    )


def _original_src() -> parts.ListenerFilter:
    return parts.ListenerFilter(
        name="envoy.filters.listener.original_src",
        typed_config=pack(original_src_pb2.OriginalSrc(mark=TPROXY_MARK)),
    )


def _tls_inspector() -> parts.ListenerFilter:
    return parts.ListenerFilter(
        name="envoy.filters.listener.tls_inspector",
        typed_config=pack(tls_inspector_pb2.TlsInspector()),
    )


def _http_inspector() -> parts.ListenerFilter:
    return parts.ListenerFilter(
        name="envoy.filters.listener.http_inspector",
        typed_config=pack(http_inspector_pb2.HttpInspector()),
    )


def virtual_outbound(telemetry: Telemetry, *, allow_any: bool) -> listener_pb2.Listener:
    """15001: hands connections to the listener of their original destination; the rest passes, or does not."""
    elsewhere = names.PASSTHROUGH if allow_any else names.BLACK_HOLE
    loop = Chain(
        name="virtualOutbound-blackhole",
        filter_chain_match=Match(
            destination_port=wrappers_pb2.UInt32Value(value=names.OUTBOUND_PORT)
        ),
        filters=[tcp_filter(telemetry, names.BLACK_HOLE)],
    )
    rest = Chain(name="virtualOutbound-catchall-tcp", filters=[tcp_filter(telemetry, elsewhere)])
    return listener_pb2.Listener(
        name=names.VIRTUAL_OUTBOUND,
        address=address("0.0.0.0", names.OUTBOUND_PORT),
        use_original_dst=wrappers_pb2.BoolValue(value=True),
        filter_chains=[loop, rest],
        traffic_direction=base_pb2.OUTBOUND,
    )


def add_ipv6(made: listener_pb2.Listener) -> None:
    """A listener on 0.0.0.0 takes what comes to IPv6 addresses too."""
    port = made.address.socket_address.port_value
    made.additional_addresses.add().address.CopyFrom(address("::", port))


def outbound_http(telemetry: Telemetry, port: int, *, allow_any: bool) -> listener_pb2.Listener:
    """``0.0.0.0_PORT``: HTTP by route configuration PORT; what is no HTTP passes, or does not."""
    elsewhere = names.PASSTHROUGH if allow_any else names.BLACK_HOLE
    name = f"0.0.0.0_{port}"
    manager = outbound_manager(telemetry, str(port), f"outbound_{name}", edge=False)
    return listener_pb2.Listener(
        name=name,
        address=address("0.0.0.0", port),
        bind_to_port=wrappers_pb2.BoolValue(value=False),
        listener_filters=[_tls_inspector(), _http_inspector()],
        listener_filters_timeout=duration(5),
        continue_on_listener_filters_timeout=True,
        filter_chains=[
            Chain(
                filter_chain_match=Match(application_protocols=HTTP_ALPN),
                filters=[manager_filter(manager)],
            )
        ],
        default_filter_chain=Chain(
            name="PassthroughFilterChain", filters=[tcp_filter(telemetry, elsewhere)]
        ),
        traffic_direction=base_pb2.OUTBOUND,
    )


def outbound_tcp(
    telemetry: Telemetry, host: str, port: int, weights: Mapping[str, int]
) -> listener_pb2.Listener:
    """``ADDRESS_PORT``: a TCP service, to its cluster or clusters."""
    first = next(iter(weights))
    return listener_pb2.Listener(
        name=f"{host}_{port}",
        address=address(host, port),
        bind_to_port=wrappers_pb2.BoolValue(value=False),
        filter_chains=[Chain(filters=[tcp_filter(telemetry, first, weights=weights)])],
        traffic_direction=base_pb2.OUTBOUND,
    )


def http_proxy(telemetry: Telemetry, host: str) -> listener_pb2.Listener:
    """Loopback mode: applications name this listener in ``http_proxy``."""
    manager = outbound_manager(telemetry, names.HTTP_PROXY, "http_proxy", edge=False)
    return listener_pb2.Listener(
        name=f"{host}_{names.HTTP_PROXY_PORT}",
        address=address(host, names.HTTP_PROXY_PORT),
        filter_chains=[Chain(filters=[manager_filter(manager)])],
        traffic_direction=base_pb2.OUTBOUND,
    )


def gateway(telemetry: Telemetry, host: str, port: int) -> listener_pb2.Listener:
    """``0.0.0.0_PORT`` (or ``ADDRESS_PORT``) of a gateway: plain HTTP by route configuration http.PORT."""
    manager = outbound_manager(telemetry, f"http.{port}", f"outbound_{host}_{port}", edge=True)
    return listener_pb2.Listener(
        name=f"{host}_{port}",
        address=address(host, port),
        filter_chains=[Chain(filters=[manager_filter(manager)])],
        traffic_direction=base_pb2.OUTBOUND,
    )


def secure_gateway(host: str, port: int) -> listener_pb2.Listener:
    """``0.0.0.0_PORT`` of a gateway, with TLS; without its chains, of which SNI chooses one."""
    return listener_pb2.Listener(
        name=f"{host}_{port}",
        address=address(host, port),
        listener_filters=[_tls_inspector()],
        listener_filters_timeout=duration(5),
        traffic_direction=base_pb2.OUTBOUND,
    )


def secure_server(
    telemetry: Telemetry,
    host: str,
    port: int,
    routes: str,
    server_names: Sequence[str],
    socket: base_pb2.TransportSocket,
) -> Chain:
    """A server of a gateway that ends TLS. ``server_names``: SNI; empty: any, or none."""
    manager = outbound_manager(telemetry, routes, f"outbound_{host}_{port}", edge=True)
    return Chain(
        name=routes,
        filter_chain_match=Match(server_names=server_names),
        filters=[manager_filter(manager)],
        transport_socket=socket,
    )


def virtual_inbound(*, transparent: bool = False) -> listener_pb2.Listener:
    """15006: everything that comes to an intercepted workload; without its chains.

    ``transparent`` (TPROXY): the application sees the client's own address; marked, so that answers find their way back.
    """
    source = [_original_src()] if transparent else []
    return listener_pb2.Listener(
        name=names.VIRTUAL_INBOUND,
        address=address("0.0.0.0", names.INBOUND_PORT),
        transparent=wrappers_pb2.BoolValue(value=True) if transparent else None,
        listener_filters=[_original_dst(), *source, _tls_inspector(), _http_inspector()],
        listener_filters_timeout=duration(5),
        continue_on_listener_filters_timeout=True,
        traffic_direction=base_pb2.INBOUND,
    )


def inbound_loop(telemetry: Telemetry) -> Chain:
    """What is sent to 15006 itself goes nowhere."""
    return Chain(
        name="virtualInbound-blackhole",
        filter_chain_match=Match(
            destination_port=wrappers_pb2.UInt32Value(value=names.INBOUND_PORT)
        ),
        filters=[tcp_filter(telemetry, names.BLACK_HOLE, log_name=INBOUND_LOG)],
    )


def direct_inbound(host: str, service_port: int) -> listener_pb2.Listener:
    """``ADDRESS_PORT``: one port of a workload in loopback mode, bound by its Envoy; without its chains."""
    return listener_pb2.Listener(
        name=f"{host}_{service_port}",
        address=address(host, service_port),
        listener_filters=[_tls_inspector()],
        listener_filters_timeout=duration(5),
        continue_on_listener_filters_timeout=True,
        traffic_direction=base_pb2.INBOUND,
    )


def inbound_chains(telemetry: Telemetry, port: InboundPort, destination: int | None) -> list[Chain]:
    """The chains of one port: mTLS unless disabled, plaintext unless strict, the application's own TLS passed on."""
    filters = [_application(telemetry, port)]
    chains = []
    if port.mtls is not MutualTLSMode.DISABLE:
        chains.append(_mtls(telemetry, filters, destination, f"inbound_{port.port}_mtls"))
    if port.mtls is not MutualTLSMode.STRICT:
        raw = _match(destination, transport="raw_buffer")
        chains.append(
            Chain(name=f"inbound_{port.port}_plaintext", filter_chain_match=raw, filters=filters)
        )
        own = _match(destination, transport="tls")
        passed = tcp_filter(
            telemetry, names.inbound(port.port), log_name=INBOUND_LOG, tags=port.tags
        )
        chains.append(
            Chain(name=f"inbound_{port.port}_tls", filter_chain_match=own, filters=[passed])
        )
    return chains


def _mtls(
    telemetry: Telemetry, filters: list[parts.Filter], destination: int | None, name: str
) -> Chain:
    return Chain(
        name=name,
        filter_chain_match=_match(destination, transport="tls", alpn=tls.MESH_ALPN),
        filters=filters,
        transport_socket=tls.downstream(telemetry.trust_domain),
    )


def _match(destination: int | None, *, transport: str, alpn: Sequence[str] = ()) -> Match:
    match = Match(transport_protocol=transport, application_protocols=list(alpn))
    if destination is not None:
        match.destination_port.value = destination
    return match


def _application(telemetry: Telemetry, port: InboundPort) -> parts.Filter:
    if not port.protocol.is_http:
        return tcp_filter(telemetry, names.inbound(port.port), log_name=INBOUND_LOG, tags=port.tags)
    return manager_filter(
        inbound_manager(telemetry, inbound_routes(telemetry, port), port.port, port.tags)
    )


def inbound_routes(telemetry: Telemetry, port: InboundPort) -> route_pb2.RouteConfiguration:
    """Everything goes to the application; Mixer is told which service that is."""
    host = route_components_pb2.VirtualHost(
        name=f"inbound|http|{port.port}",
        domains=["*"],
        routes=[
            route_components_pb2.Route(
                name="default",
                match=route_components_pb2.RouteMatch(prefix="/"),
                route=route_components_pb2.RouteAction(
                    cluster=names.inbound(port.port),
                    timeout=duration(0),
                    retry_policy=route_components_pb2.RetryPolicy(
                        retry_on="reset-before-request",
                        num_retries=wrappers_pb2.UInt32Value(value=2),
                    ),
                ),
            )
        ],
    )
    if telemetry.mixer:
        context = ext_authz_pb2.ExtAuthzPerRoute(
            check_settings=ext_authz_pb2.CheckSettings(
                context_extensions={
                    "destination.service.host": port.service_host,
                    "destination.service.name": port.service_name,
                    "destination.service.namespace": port.service_namespace,
                }
            )
        )
        for name in CHECK_FILTERS:
            host.typed_per_filter_config[name].CopyFrom(pack(context))
    return route_pb2.RouteConfiguration(
        name=names.inbound(port.port),
        virtual_hosts=[host],
        validate_clusters=wrappers_pb2.BoolValue(value=False),
    )


def inbound_catch_all(telemetry: Telemetry, mode: MutualTLSMode) -> list[Chain]:
    """Ports that no service names: passed on, under the same mTLS mode."""
    passed = [tcp_filter(telemetry, names.INBOUND_PASSTHROUGH, log_name=INBOUND_LOG)]
    chains = []
    if mode is not MutualTLSMode.DISABLE:
        chains.append(_mtls(telemetry, passed, None, "virtualInbound-mtls"))
    if mode is not MutualTLSMode.STRICT:
        raw = Match(transport_protocol="raw_buffer")
        chains.append(Chain(name="virtualInbound", filter_chain_match=raw, filters=passed))
        own = Match(transport_protocol="tls")
        chains.append(Chain(name="virtualInbound-tls", filter_chain_match=own, filters=passed))
    return chains
