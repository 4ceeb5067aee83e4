"""Clusters: one a service port and subset outbound, one a workload port inbound, and the three fixed ones.

Source: istio pilot/pkg/networking/core/cluster*.go; Envoy config/cluster/v3/cluster.proto.
"""

from __future__ import annotations

from collections.abc import Sequence

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import address_pb2, base_pb2, protocol_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import any_pb2, struct_pb2, wrappers_pb2

from services.pilot.envoy import names, tls
from services.pilot.envoy.common import UINT32_MAX, ads, duration, pack
from services.pilot.envoy.endpoint import load_assignment
from services.pilot.model.policy import EffectivePolicy
from services.pilot.model.service import Endpoint, Port, Protocol, Service
from windward.config.service_entry import Resolution
from windward.config.traffic_policy import ClientTLSMode, SimpleLB

CONNECT_TIMEOUT_S = 10.0
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
INBOUND_SOURCE = "127.0.0.6"
INBOUND_SOURCE_IPV6 = "::6"
"""Inbound connections to the application come from here, so that interception leaves them alone."""

TYPES = {
    Resolution.STATIC: cluster_pb2.Cluster.EDS,
    Resolution.DNS: cluster_pb2.Cluster.STRICT_DNS,
    Resolution.DNS_ROUND_ROBIN: cluster_pb2.Cluster.LOGICAL_DNS,
    Resolution.NONE: cluster_pb2.Cluster.ORIGINAL_DST,
}
LB = {
    SimpleLB.RANDOM: cluster_pb2.Cluster.RANDOM,
    SimpleLB.ROUND_ROBIN: cluster_pb2.Cluster.ROUND_ROBIN,
    SimpleLB.LEAST_REQUEST: cluster_pb2.Cluster.LEAST_REQUEST,
    SimpleLB.LEAST_CONN: cluster_pb2.Cluster.LEAST_REQUEST,
    SimpleLB.PASSTHROUGH: cluster_pb2.Cluster.CLUSTER_PROVIDED,
}


def outbound(
    service: Service,
    port: Port,
    subset: str,
    policy: EffectivePolicy,
    endpoints: Sequence[Endpoint],
    trust_domain: str,
) -> cluster_pb2.Cluster:
    """``outbound|PORT|SUBSET|HOST``. ``endpoints``: of this subset; they say whom to expect, and DNS names to resolve."""
    name = names.outbound(port.number, subset, service.host)
    kind = cluster_pb2.Cluster.ORIGINAL_DST if policy.passthrough else TYPES[service.resolution]
    cluster = cluster_pb2.Cluster(
        name=name,
        alt_stat_name=names.statistics(name),
        type=kind,
        connect_timeout=duration(policy.connect_timeout_s or CONNECT_TIMEOUT_S),
        lb_policy=cluster_pb2.Cluster.CLUSTER_PROVIDED
        if kind == cluster_pb2.Cluster.ORIGINAL_DST
        else LB.get(policy.load_balancer, cluster_pb2.Cluster.LEAST_REQUEST),
        circuit_breakers=_circuit_breakers(policy),
        common_lb_config=cluster_pb2.Cluster.CommonLbConfig(
            healthy_panic_threshold=percent_pb2.Percent(value=0)
        ),
        metadata=_metadata(service),
    )
    if kind == cluster_pb2.Cluster.EDS:
        cluster.eds_cluster_config.CopyFrom(
            cluster_pb2.Cluster.EdsClusterConfig(eds_config=ads(), service_name=name)
        )
    elif kind in {cluster_pb2.Cluster.STRICT_DNS, cluster_pb2.Cluster.LOGICAL_DNS}:
        cluster.load_assignment.CopyFrom(
            load_assignment(name, port, _dns_endpoints(service, port, subset, endpoints))
        )
        cluster.respect_dns_ttl = True
        cluster.dns_lookup_family = cluster_pb2.Cluster.V4_PREFERRED
    if policy.outlier is not None:
        cluster.outlier_detection.CopyFrom(_outlier(policy))
    _protocol(cluster, port, policy)
    _security(cluster, service, port, subset, policy, endpoints, trust_domain)
    return cluster


def accounts(endpoints: Sequence[Endpoint]) -> frozenset[tuple[str, str, bool]]:
    """(namespace, service account, mTLS): all that an EDS cluster says of its endpoints."""
    return frozenset((item.namespace, item.service_account, item.mtls) for item in endpoints)


def identities_of(endpoints: Sequence[Endpoint], trust_domain: str) -> list[str]:
    """Whom to expect behind a cluster, in order."""
    return sorted(
        {
            f"spiffe://{trust_domain}/ns/{endpoint.namespace}/sa/{endpoint.service_account}"
            for endpoint in endpoints
            if endpoint.service_account
        }
    )


def _dns_endpoints(
    service: Service, port: Port, subset: str, endpoints: Sequence[Endpoint]
) -> Sequence[Endpoint]:
    """Without endpoints the service's own host is what DNS resolves."""
    if endpoints or subset:
        return endpoints
    own = Endpoint(
        address=service.host,
        ports={port.name: port.target},
        labels={},
        service_account="",
        namespace="",
        workload="",
    )
    return (own,)


def _metadata(service: Service) -> base_pb2.Metadata:
    """Which object it comes from, for people who read a config dump."""
    origin = service.origin
    path = f"/apis/{origin.group}/namespaces/{origin.namespace}/{origin.kind}/{origin.name}"
    value = struct_pb2.Struct(fields={"config": struct_pb2.Value(string_value=path)})
    return base_pb2.Metadata(filter_metadata={"windward": value})


def _circuit_breakers(policy: EffectivePolicy) -> circuit_breaker_pb2.CircuitBreakers:
    """Istio's default is no limit, not Envoy's 1024."""
    number = wrappers_pb2.UInt32Value
    return circuit_breaker_pb2.CircuitBreakers(
        thresholds=[
            circuit_breaker_pb2.CircuitBreakers.Thresholds(
                max_connections=number(value=policy.max_connections or UINT32_MAX),
                max_pending_requests=number(value=policy.max_pending_requests or UINT32_MAX),
                max_requests=number(value=policy.max_requests or UINT32_MAX),
                max_retries=number(value=policy.max_retries or UINT32_MAX),
                track_remaining=True,
            )
        ]
    )


def _outlier(policy: EffectivePolicy) -> outlier_detection_pb2.OutlierDetection:
    outlier = policy.outlier
    assert outlier is not None
    number = wrappers_pb2.UInt32Value
    made = outlier_detection_pb2.OutlierDetection(enforcing_success_rate=number(value=0))
    if outlier.consecutive_5xx_errors is not None:
        made.consecutive_5xx.value = outlier.consecutive_5xx_errors
        made.enforcing_consecutive_5xx.value = 100 if outlier.consecutive_5xx_errors else 0
    if outlier.consecutive_gateway_errors is not None:
        made.consecutive_gateway_failure.value = outlier.consecutive_gateway_errors
        made.enforcing_consecutive_gateway_failure.value = (
            100 if outlier.consecutive_gateway_errors else 0
        )
    if outlier.interval is not None:
        made.interval.CopyFrom(duration(outlier.interval))
    if outlier.base_ejection_time is not None:
        made.base_ejection_time.CopyFrom(duration(outlier.base_ejection_time))
    if outlier.max_ejection_percent:
        made.max_ejection_percent.value = outlier.max_ejection_percent
    return made


def _protocol(cluster: cluster_pb2.Cluster, port: Port, policy: EffectivePolicy) -> None:
    """HTTP/2 where the port says so; a request limit a connection where the policy says so."""
    options = http_options(
        http2=port.protocol is Protocol.HTTP2, max_requests=policy.max_requests_per_connection
    )
    if options is not None:
        cluster.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(options)


def http_options(*, http2: bool, max_requests: int = 0) -> any_pb2.Any | None:
    """Upstream HTTP options; None when Envoy's defaults are what is wanted."""
    if not http2 and not max_requests:
        return None
    explicit = http_protocol_options_pb2.HttpProtocolOptions.ExplicitHttpConfig
    chosen = (
        explicit(http2_protocol_options=protocol_pb2.Http2ProtocolOptions())
        if http2
        else explicit(http_protocol_options=protocol_pb2.Http1ProtocolOptions())
    )
    options = http_protocol_options_pb2.HttpProtocolOptions(explicit_http_config=chosen)
    if max_requests:
        options.common_http_protocol_options.max_requests_per_connection.value = max_requests
    return pack(options)


def _security(
    cluster: cluster_pb2.Cluster,
    service: Service,
    port: Port,
    subset: str,
    policy: EffectivePolicy,
    endpoints: Sequence[Endpoint],
    trust_domain: str,
) -> None:
    """MTLS by rule, or by what each endpoint can (auto mTLS)."""
    if policy.tls is ClientTLSMode.DISABLE or service.resolution is Resolution.NONE:
        return
    identities = identities_of(endpoints, trust_domain)
    alpn = (
        ("istio-h2", "h2")
        if port.protocol is Protocol.HTTP2
        else ("istio-http/1.1", "http/1.1")
        if port.protocol.is_http
        else ("istio",)
    )
    socket = tls.upstream(names.sni(port.number, subset, service.host), identities, alpn)
    if policy.tls is ClientTLSMode.ISTIO_MUTUAL:
        cluster.transport_socket.CopyFrom(socket)
        return
    if service.external and not any(endpoint.mtls for endpoint in endpoints):
        return
    match = struct_pb2.Struct(fields={"tlsMode": struct_pb2.Value(string_value="istio")})
    cluster.transport_socket_matches.extend(
        [
            cluster_pb2.Cluster.TransportSocketMatch(
                name="tlsMode-istio", match=match, transport_socket=socket
            ),
            cluster_pb2.Cluster.TransportSocketMatch(
                name="tlsMode-disabled", match=struct_pb2.Struct(), transport_socket=tls.plaintext()
            ),
        ]
    )


def inbound(
    port: int,
    protocol: Protocol,
    application: str | None,
    *,
    transparent: bool = False,
    ipv6: bool = False,
) -> cluster_pb2.Cluster:
    """``inbound|PORT||``: to the application, at an address of its own or (intercepted) where the connection went.

    ``transparent``: it comes from the client's address, which the listener's original_src filter sets.
    """
    cluster = cluster_pb2.Cluster(
        name=names.inbound(port),
        alt_stat_name=names.statistics(names.inbound(port)),
        connect_timeout=duration(CONNECT_TIMEOUT_S),
        circuit_breakers=_circuit_breakers(EffectivePolicy()),
    )
    if application is None:
        _to_original(cluster, transparent=transparent, ipv6=ipv6)
    else:
        own = Endpoint(
            address=application,
            ports={"": port},
            labels={},
            service_account="",
            namespace="",
            workload="",
        )
        cluster.type = cluster_pb2.Cluster.STATIC
        cluster.load_assignment.CopyFrom(
            load_assignment(cluster.name, Port(port, "", protocol, port), (own,))
        )
        # The proxy's own address is what its upstream connections come from; the application is on another one.
        cluster.upstream_bind_config.source_address.CopyFrom(
            address_pb2.SocketAddress(address="127.0.0.1", port_value=0)
        )
    options = http_options(http2=protocol is Protocol.HTTP2)
    if options is not None:
        cluster.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(options)
    return cluster


def _to_original(cluster: cluster_pb2.Cluster, *, transparent: bool, ipv6: bool) -> None:
    cluster.type = cluster_pb2.Cluster.ORIGINAL_DST
    cluster.lb_policy = cluster_pb2.Cluster.CLUSTER_PROVIDED
    if transparent:
        return
    cluster.upstream_bind_config.source_address.CopyFrom(
        address_pb2.SocketAddress(address=INBOUND_SOURCE, port_value=0)
    )
    if ipv6:
        # Envoy takes the one of the destination's family.
        cluster.upstream_bind_config.extra_source_addresses.add().address.CopyFrom(
            address_pb2.SocketAddress(address=INBOUND_SOURCE_IPV6, port_value=0)
        )


def fixed(*, intercepted: bool) -> list[cluster_pb2.Cluster]:
    """The black hole, and where nothing else matches: as the application meant it."""
    black_hole = cluster_pb2.Cluster(
        name=names.BLACK_HOLE,
        alt_stat_name=names.statistics(names.BLACK_HOLE),
        type=cluster_pb2.Cluster.STATIC,
        connect_timeout=duration(CONNECT_TIMEOUT_S),
    )
    if not intercepted:
        return [black_hole]
    passthrough = cluster_pb2.Cluster(
        name=names.PASSTHROUGH,
        alt_stat_name=names.statistics(names.PASSTHROUGH),
        type=cluster_pb2.Cluster.ORIGINAL_DST,
        lb_policy=cluster_pb2.Cluster.CLUSTER_PROVIDED,
        connect_timeout=duration(CONNECT_TIMEOUT_S),
        circuit_breakers=_circuit_breakers(EffectivePolicy()),
    )
    return [black_hole, passthrough, inbound_passthrough(transparent=False)]


def inbound_passthrough(*, transparent: bool, ipv6: bool = False) -> cluster_pb2.Cluster:
    """To the application, on ports that no service names."""
    cluster = cluster_pb2.Cluster(
        name=names.INBOUND_PASSTHROUGH,
        alt_stat_name=names.statistics(names.INBOUND_PASSTHROUGH),
        connect_timeout=duration(CONNECT_TIMEOUT_S),
        circuit_breakers=_circuit_breakers(EffectivePolicy()),
    )
    _to_original(cluster, transparent=transparent, ipv6=ipv6)
    return cluster
