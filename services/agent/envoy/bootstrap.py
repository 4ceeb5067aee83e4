"""Envoy's bootstrap, as a pure function of the agent's settings.

Everything comes over one unix socket in Envoy's working folder: xDS (passed on to Pilot) and secrets. The path is
relative, because a socket's path may have at most 107 bytes and a checkout may lie deep.
Source: Envoy config/bootstrap/v3/bootstrap.proto; istio tools/packaging/common/envoy_bootstrap.json.
"""

from __future__ import annotations

import json
from typing import Any

from services.agent.settings import Settings
from windward import __version__

SOCKET = "xds.sock"
STATS_PREFIXES = (
    "cluster_manager",
    "listener_manager",
    "server",
    "cluster.xds-grpc",
    "listener",
    "http",
    "cluster",
)


def node_id(settings: Settings) -> str:
    namespace = settings.namespace
    return f"{settings.proxy_type}~{settings.address}~{settings.workload_name}.{namespace}~{namespace}.svc.cluster.local"


def node(settings: Settings, labels: dict[str, str]) -> dict[str, Any]:
    """How Envoy presents itself to Pilot and Mixer."""
    metadata: dict[str, Any] = {
        "NAME": settings.workload_name,
        "NAMESPACE": settings.namespace,
        "LABELS": labels,
        "WORKLOAD_NAME": settings.workload_name,
        "SERVICE_ACCOUNT": settings.service_account,
        "INSTANCE_IPS": settings.address,
        "INTERCEPTION_MODE": "NONE" if settings.interception == "none" else "REDIRECT",
        "APP_ADDRESS": settings.app_address,
        "WINDWARD_VERSION": __version__,
    }
    return {
        "id": node_id(settings),
        "cluster": f"{settings.labels.get('app', settings.workload_name)}.{settings.namespace}",
        "metadata": metadata,
    }


def bootstrap(settings: Settings, labels: dict[str, str]) -> dict[str, Any]:
    host, _, port = settings.admin_address.rpartition(":")
    made: dict[str, Any] = {
        "node": node(settings, labels),
        "admin": {"address": _address(host, int(port)), "profile_path": "/dev/null"},
        "dynamic_resources": {
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
        },
        "static_resources": {
            "clusters": [_socket_cluster("xds-grpc"), _socket_cluster("sds-grpc")]
        },
        "stats_config": {
            "use_all_default_tags": False,
            "stats_matcher": {
                "inclusion_list": {"patterns": [{"prefix": prefix} for prefix in STATS_PREFIXES]}
            },
        },
        "layered_runtime": {
            "layers": [
                {
                    "name": "static",
                    "static_layer": {
                        "re2.max_program_size.error_level": 32768,
                    },
                },
                {"name": "admin", "admin_layer": {}},
            ]
        },
    }
    if settings.interception == "none":
        # So that peers, which all live on this host, see who called.
        made["cluster_manager"] = {
            "upstream_bind_config": {
                "source_address": {"address": settings.address, "port_value": 0}
            }
        }
    return made


def bootstrap_text(settings: Settings, labels: dict[str, str]) -> str:
    return json.dumps(bootstrap(settings, labels), indent=1, sort_keys=True)


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _socket_cluster(name: str) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": {"pipe": {"path": SOCKET}}}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 300}},
    }
