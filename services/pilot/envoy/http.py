"""HTTP connection managers, TCP proxies and access logs: what filter chains are made of.

Source: istio pilot/pkg/networking/core/listener*.go; Envoy http_connection_manager.proto, tcp_proxy.proto, als.proto.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import config_source_pb2, grpc_service_pb2, protocol_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.access_loggers.grpc.v3 import als_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.type.tracing.v3 import custom_tag_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import wrappers_pb2

from services.pilot.envoy import names
from services.pilot.envoy.common import ads, duration, pack
from services.pilot.envoy.mixer import CHECK_FILTERS, CHECK_TYPE, CLUSTER_NAME
from services.pilot.envoy.route import FAULT_FILTER

ALS_FLUSH_S = 0.5
INBOUND_LOG = "windward.inbound"
OUTBOUND_LOG = "windward.outbound"
SAMPLED_PERCENT = 1.0
"""Istio's default, for proxies whose bootstrap says nothing."""
Manager = hcm_pb2.HttpConnectionManager


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Where access logs go; nowhere without Mixer."""

    mixer: bool
    trust_domain: str


def access_logs(
    telemetry: Telemetry, log_name: str, tags: Mapping[str, str], *, http: bool
) -> list[accesslog_pb2.AccessLog]:
    """The stream to Mixer, with literal tags that say what Mixer could not know."""
    if not telemetry.mixer:
        return []
    common = als_pb2.CommonGrpcAccessLogConfig(
        log_name=log_name,
        grpc_service=grpc_service_pb2.GrpcService(
            envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=CLUSTER_NAME)
        ),
        transport_api_version=config_source_pb2.ApiVersion.V3,
        buffer_flush_interval=duration(ALS_FLUSH_S),
        custom_tags=[
            custom_tag_pb2.CustomTag(tag=tag, literal=custom_tag_pb2.CustomTag.Literal(value=value))
            for tag, value in sorted(tags.items())
        ],
    )
    if http:
        config = pack(als_pb2.HttpGrpcAccessLogConfig(common_config=common))
        return [accesslog_pb2.AccessLog(name="envoy.access_loggers.http_grpc", typed_config=config)]
    config = pack(als_pb2.TcpGrpcAccessLogConfig(common_config=common))
    return [accesslog_pb2.AccessLog(name="envoy.access_loggers.tcp_grpc", typed_config=config)]


def outbound_manager(
    telemetry: Telemetry, route_name: str, stat_prefix: str, *, edge: bool
) -> Manager:
    """Towards services. At the edge the client's address and certificate headers are not believed."""
    manager = _manager(stat_prefix)
    manager.rds.CopyFrom(hcm_pb2.Rds(config_source=ads(), route_config_name=route_name))
    manager.http_filters.extend([_fault_filter(), _router()])
    manager.access_log.extend(access_logs(telemetry, OUTBOUND_LOG, {}, http=True))
    if edge:
        manager.use_remote_address.value = True
        manager.forward_client_cert_details = Manager.SANITIZE_SET
        manager.set_current_client_cert_details.uri = True
    else:
        manager.use_remote_address.value = False
        manager.forward_client_cert_details = Manager.SANITIZE
    return manager


def inbound_manager(
    telemetry: Telemetry, routes: route_pb2.RouteConfiguration, port: int, tags: Mapping[str, str]
) -> Manager:
    """Towards the application: asks Mixer where rules say so, and tells the application who called."""
    manager = _manager(f"inbound_0.0.0.0_{port}")
    manager.route_config.CopyFrom(routes)
    if telemetry.mixer:
        manager.http_filters.extend(_check_filter(name) for name in CHECK_FILTERS)
    manager.http_filters.append(_router())
    manager.access_log.extend(access_logs(telemetry, INBOUND_LOG, tags, http=True))
    manager.use_remote_address.value = False
    manager.forward_client_cert_details = Manager.SANITIZE_SET
    manager.set_current_client_cert_details.subject.value = True
    manager.set_current_client_cert_details.uri = True
    manager.set_current_client_cert_details.dns = True
    return manager


def _manager(stat_prefix: str) -> Manager:
    return Manager(
        stat_prefix=names.statistics(stat_prefix),
        codec_type=Manager.AUTO,
        generate_request_id=wrappers_pb2.BoolValue(value=True),
        preserve_external_request_id=True,
        stream_idle_timeout=duration(0),
        normalize_path=wrappers_pb2.BoolValue(value=True),
        path_with_escaped_slashes_action=Manager.KEEP_UNCHANGED,
        upgrade_configs=[Manager.UpgradeConfig(upgrade_type="websocket")],
        http_protocol_options=protocol_pb2.Http1ProtocolOptions(accept_http_10=True),
        delayed_close_timeout=duration(1),
        # To whichever tracer the proxy's own bootstrap names, with its share (services/agent/envoy/tracing.py); to none, none.
        tracing=Manager.Tracing(random_sampling=percent_pb2.Percent(value=SAMPLED_PERCENT)),
    )


def _router() -> hcm_pb2.HttpFilter:
    return hcm_pb2.HttpFilter(
        name="envoy.filters.http.router", typed_config=pack(router_pb2.Router())
    )


def _fault_filter() -> hcm_pb2.HttpFilter:
    return hcm_pb2.HttpFilter(name=FAULT_FILTER, typed_config=pack(fault_pb2.HTTPFault()))


def _check_filter(name: str) -> hcm_pb2.HttpFilter:
    """By ECDS: a policy change drains no listener and holds for open connections' next requests."""
    source = config_source_pb2.ExtensionConfigSource(config_source=ads(), type_urls=[CHECK_TYPE])
    return hcm_pb2.HttpFilter(name=name, config_discovery=source)


def manager_filter(manager: Manager) -> listener_components_pb2.Filter:
    return listener_components_pb2.Filter(
        name="envoy.filters.network.http_connection_manager", typed_config=pack(manager)
    )


def tcp_filter(
    telemetry: Telemetry,
    cluster: str,
    *,
    log_name: str = OUTBOUND_LOG,
    tags: Mapping[str, str] | None = None,
    weights: Mapping[str, int] | None = None,
) -> listener_components_pb2.Filter:
    """To one cluster, or to several by weight."""
    proxy = tcp_proxy_pb2.TcpProxy(stat_prefix=cluster)
    if weights is not None and len(weights) > 1:
        proxy.weighted_clusters.clusters.extend(
            tcp_proxy_pb2.TcpProxy.WeightedCluster.ClusterWeight(name=name, weight=weight)
            for name, weight in sorted(weights.items())
            if weight
        )
    else:
        proxy.cluster = cluster
    proxy.access_log.extend(access_logs(telemetry, log_name, tags or {}, http=False))
    return listener_components_pb2.Filter(
        name="envoy.filters.network.tcp_proxy", typed_config=pack(proxy)
    )
