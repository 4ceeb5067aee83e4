"""Static configuration of two bare Envoys: what a mesh's data path is without a mesh. Pure.

caller  127.0.0.1:9080 -> mTLS -> callee's address:15006      callee  :15006, a certificate required -> 127.0.0.1:9080
The HTTP settings are those that Pilot's builders make: services/pilot/envoy/http.py, cluster.py, tls.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TYPE = "type.googleapis.com/envoy.extensions"
MTLS_PORT, APPLICATION_PORT = 15006, 9080
UNLIMITED = 4_294_967_295


def bare_config(name: str, callee: str, files: Sequence[str]) -> Mapping[str, Any]:
    """Of ``caller`` or ``callee``; files: certificate, key, roots in PEM."""
    called = name == "callee"
    common = _common_tls(files)
    if called:
        listener = _listener("0.0.0.0", MTLS_PORT)
        listener["filter_chains"][0]["transport_socket"] = _tls(
            "DownstreamTlsContext",
            {"common_tls_context": common, "require_client_certificate": True},
        )
        cluster = _cluster("127.0.0.1", APPLICATION_PORT)
    else:
        listener = _listener("127.0.0.1", APPLICATION_PORT)
        cluster = _cluster(callee, MTLS_PORT)
        cluster["transport_socket"] = _tls(
            "UpstreamTlsContext", {"common_tls_context": common, "sni": "callee"}
        )
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _common_tls(files: Sequence[str]) -> dict[str, Any]:
    certificate, key, roots = ({"filename": file} for file in files)
    return {
        "tls_certificates": [{"certificate_chain": certificate, "private_key": key}],
        "validation_context": {
            "trusted_ca": roots,
            "match_typed_subject_alt_names": [
                {"san_type": "URI", "matcher": {"prefix": "spiffe://"}}
            ],
        },
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_2",
            "tls_maximum_protocol_version": "TLSv1_3",
        },
    }


def _tls(context: str, fields: dict[str, Any]) -> dict[str, Any]:
    kind = f"{TYPE}.transport_sockets.tls.v3.{context}"
    return {"name": "envoy.transport_sockets.tls", "typed_config": {"@type": kind, **fields}}


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _listener(host: str, port: int) -> dict[str, Any]:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "next", "timeout": "0s"}}
    manager = {
        "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bare",
        "codec_type": "AUTO",
        "generate_request_id": True,
        "stream_idle_timeout": "0s",
        "normalize_path": True,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPE}.filters.http.router.v3.Router"},
            }
        ],
    }
    chain = {
        "filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        ]
    }
    return {"name": "bare", "address": _address(host, port), "filter_chains": [chain]}


def _cluster(host: str, port: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(host, port)}}
    limits = dict.fromkeys(
        ("max_connections", "max_pending_requests", "max_requests", "max_retries"), UNLIMITED
    )
    return {
        "name": "next",
        "type": "STATIC",
        "connect_timeout": "10s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": "next", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
