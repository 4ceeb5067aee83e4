"""Envoy's bootstrap, as a pure function of who it is (Node), what is asked of it (ProxyConfig) and where it runs (Place).

Everything dynamic comes over one unix socket: xDS, passed on to Pilot, and secrets. The agent's own path for it is
relative to Envoy's working folder: a socket's path may have at most 107 bytes, and a checkout may lie deep.
Source: Envoy config/bootstrap/v3/bootstrap.proto; istio tools/packaging/common/envoy_bootstrap.json.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from services.agent.envoy import listeners
from services.agent.envoy.clusters import (
    TYPE,
    local,
    service_clusters,
    socket_cluster,
    tcp,
    xds_cluster,
)
from services.agent.envoy.node import BadEnvironment, Node
from services.agent.envoy.proxy_config import ProxyConfig
from services.agent.envoy.stats import build_sinks, build_stats
from services.agent.envoy.tracing import SAMPLING_FLAG, build_tracer, sampling

SOCKET = "envoy/xds.sock"
"""In a folder of its own, which only Envoy's user may enter."""
UNLIMITED = 2**31 - 1
CONNECTIONS_FLAG = "overload.global_downstream_max_connections"
CONNECTIONS_METADATA = "GLOBAL_DOWNSTREAM_MAX_CONNECTIONS"
FIPS = "fips-140-2"
RUNTIME: dict[str, Any] = {
    "re2.max_program_size.error_level": "32768",
    "envoy.reloadable_features.http_reject_path_with_fragment": False,
    "envoy.reloadable_features.fixed_heap_use_allocated": True,
    # https://github.com/envoyproxy/envoy/issues/45212
    "envoy.reloadable_features.coalesce_lb_rebuilds_on_batch_update": False,
    "envoy.deprecated_features:envoy.config.listener.v3.Listener.hidden_envoy_deprecated_use_original_dst": True,
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where Envoy runs: its addresses, ports (0: no such listener), sockets and files."""

    admin: tuple[str, int] = ("127.0.0.1", 15000)
    agent: tuple[str, int] = ("127.0.0.1", 15020)
    """The agent's status server, behind 15021."""
    listen_host: str = ""
    """Where 15021 and 15090 listen; empty: all addresses."""
    status_port: int = 15021
    prometheus_port: int = 15090
    secure_metrics_port: int = 0
    secure_merged_metrics_port: int = 0
    xds_socket: str = SOCKET
    sds_socket: str = SOCKET
    pilot_sans: tuple[str, ...] = ()
    outlier_log_path: str = "/dev/stdout"
    profile_path: str = "/dev/null"
    source_address: str = ""
    """Where calls leave from; empty: the kernel chooses."""
    dual_stack: bool = False
    compliance_policy: str = ""
    log_json: bool = False
    host_ip: str = ""


def bootstrap(node: Node, proxy: ProxyConfig, place: Place) -> dict[str, Any]:
    """Raises BadProxyConfig or BadEnvironment."""
    family = _family(node, place)
    tracer = build_tracer(proxy.tracing, service=node.cluster, family=family, host_ip=place.host_ip)
    made: dict[str, Any] = {
        "application_log_config": {"log_format": _log_format(json_lines=place.log_json)},
        "node": _node_message(node, place),
        "layered_runtime": {
            "layers": [
                {"name": "global config", "static_layer": _runtime(proxy, place)},
                {"name": "admin", "admin_layer": {}},
            ]
        },
        "bootstrap_extensions": [_internal_listeners()],
        **build_stats(node.annotations, proxy, node.instance_ips),
        "admin": _admin(place),
        "dynamic_resources": _dynamic(),
        "static_resources": {
            "clusters": [
                local("prometheus_stats", tcp(*place.admin)),
                local("agent", tcp(*place.agent)),
                socket_cluster("sds-grpc", place.sds_socket),
                xds_cluster(place.xds_socket),
                *([tracer.cluster] if tracer else []),
                *service_clusters(proxy, family, place.host_ip),
            ],
            "listeners": _listeners(node, proxy, place),
        },
        "overload_manager": _overload(node, proxy),
        "cluster_manager": _cluster_manager(node, place),
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
    }
    if tracer:
        made["tracing"] = {"http": tracer.provider}
    sinks = build_sinks(proxy)
    if sinks:
        made["stats_sinks"] = sinks
    return made


def bootstrap_text(node: Node, proxy: ProxyConfig, place: Place) -> str:
    return json.dumps(bootstrap(node, proxy, place), indent=1, sort_keys=True)


def _family(node: Node, place: Place) -> str:
    if place.dual_stack:
        return "ALL"
    return "V6_ONLY" if node.only_ipv6 else "V4_ONLY"


def _log_format(*, json_lines: bool) -> dict[str, Any]:
    if not json_lines:
        return {"text_format": "%Y-%m-%dT%T.%fZ\t%l\tenvoy %n %g:%#\t%v\tthread=%t"}
    return {
        "json_format": {
            "time": "%Y-%m-%dT%T.%fZ",
            "level": "%l",
            "scope": "envoy %n",
            "msg": "%j",
            "caller": "%g:%#",
            "thread": "%t",
        }
    }


def _node_message(node: Node, place: Place) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        **node.metadata,
        "METADATA_DISCOVERY": "false",
        "OUTLIER_LOG_PATH": place.outlier_log_path,
        "WORKLOAD_IDENTITY_SOCKET_FILE": place.sds_socket.rpartition("/")[2],
        "PILOT_SAN": list(place.pilot_sans),
    }
    ports = {
        "ENVOY_STATUS_PORT": place.status_port,
        "ENVOY_PROMETHEUS_PORT": place.prometheus_port,
        "ENVOY_SECURE_METRICS_PORT": place.secure_metrics_port,
        "ENVOY_SECURE_MERGED_METRICS_PORT": place.secure_merged_metrics_port,
    }
    metadata |= {name: port for name, port in ports.items() if port}
    return {
        "id": node.id,
        "cluster": node.cluster,
        "locality": dict(node.locality),
        "metadata": {name: metadata[name] for name in sorted(metadata) if metadata[name] != []},
    }


def _runtime(proxy: ProxyConfig, place: Place) -> dict[str, Any]:
    """Defaults, and over them what is configured; an empty value takes a default away."""
    flags = {**RUNTIME, SAMPLING_FLAG: sampling(proxy.tracing)}
    if place.compliance_policy == FIPS:
        flags["envoy.reloadable_features.google_grpc_disable_tls_13"] = True
    for name, value in sorted(proxy.runtime_values.items()):
        if value:
            flags[name] = {"true": True, "false": False}.get(value, value)
        else:
            flags.pop(name, None)
    return flags


def _internal_listeners() -> dict[str, Any]:
    return {
        "name": "envoy.bootstrap.internal_listener",
        "typed_config": {
            "@type": TYPE + "udpa.type.v1.TypedStruct",
            "type_url": TYPE + "envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
            "value": {"buffer_size_kb": 64},
        },
    }


def _admin(place: Place) -> dict[str, Any]:
    host, port = place.admin
    return {
        "access_log": [
            {
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": TYPE + "envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": "/dev/null",
                },
            }
        ],
        "profile_path": place.profile_path,
        "address": {"socket_address": {"address": host, "port_value": port}},
    }


def _dynamic() -> dict[str, Any]:
    # Without a timeout: a sidecar that waited long enough would serve without its configuration.
    from_ads = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
    return {
        "lds_config": from_ads,
        "cds_config": from_ads,
        "ads_config": {
            "api_type": "DELTA_GRPC",
            "set_node_on_first_message_only": True,
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
        },
    }


def _listeners(node: Node, proxy: ProxyConfig, place: Place) -> list[dict[str, Any]]:
    wildcards = ("::", "0.0.0.0") if node.only_ipv6 else ("0.0.0.0", "::")
    hosts = (
        (place.listen_host,)
        if place.listen_host
        else wildcards
        if place.dual_stack
        else wildcards[:1]
    )
    scrape = (("/stats/prometheus", "prometheus_stats"),)
    made = []
    if place.prometheus_port:
        compressed = proxy.stats_compression is not False
        made.append(
            listeners.plain(hosts, place.prometheus_port, "stats", scrape, compressed=compressed)
        )
    if place.secure_metrics_port:
        made.append(listeners.secured(hosts[0], place.secure_metrics_port, "secure_stats", scrape))
    if place.secure_merged_metrics_port:
        merged = (("/stats/prometheus", "agent"), ("/metrics", "agent"))
        made.append(
            listeners.secured(
                hosts[0], place.secure_merged_metrics_port, "secure_merged_stats", merged
            )
        )
    if place.status_port:
        made.append(
            listeners.plain(hosts, place.status_port, "agent", (("/healthz/ready", "agent"),))
        )
    return made


def _overload(node: Node, proxy: ProxyConfig) -> dict[str, Any]:
    """The limit of connections: ProxyConfig's own field, then the metadata, then the old runtime flag."""
    limit = UNLIMITED
    settings = proxy.connection_settings
    said = node.metadata.get(CONNECTIONS_METADATA) or proxy.runtime_values.get(CONNECTIONS_FLAG)
    if settings is not None and settings.global_downstream_connection_limit:
        limit = settings.global_downstream_connection_limit
    elif said:
        if not str(said).isdigit() or int(said) == 0:
            raise BadEnvironment(f"{CONNECTIONS_METADATA}: {said!r} is not a number of connections")
        limit = int(said)
    return {
        "resource_monitors": [
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": TYPE
                    + "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": limit,
                },
            }
        ]
    }


def _cluster_manager(node: Node, place: Place) -> dict[str, Any]:
    made: dict[str, Any] = {"enable_deferred_cluster_creation": True}
    if place.outlier_log_path:
        made["outlier_detection"] = {"event_log_path": place.outlier_log_path}
    reporting = node.metadata.get("LOAD_STATS_CONFIG_JSON")
    if reporting:
        try:
            made["load_stats_config"] = json.loads(reporting)
        except ValueError as error:
            raise BadEnvironment(f"LOAD_STATS_CONFIG_JSON: not JSON: {error}") from error
    if place.source_address:
        made["upstream_bind_config"] = {
            "source_address": {"address": place.source_address, "port_value": 0}
        }
    return made
