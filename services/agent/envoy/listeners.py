"""The bootstrap's static listeners: scrapes (15090), readiness (15021), and scrapes over mTLS where asked for. Pure.

They ignore the limit of connections: a full proxy must still say that it is full.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from services.agent.envoy.clusters import TYPE, sds_secret

FILTERS = TYPE + "envoy.extensions.filters."
COMPRESSIONS = ("brotli", "zstd", "gzip")
COMPRESSED_TYPES = (
    "text/plain",
    "application/vnd.google.protobuf",
    "application/openmetrics-text",
    "application/openmetrics-protobuf",
)


def plain(
    hosts: tuple[str, ...],
    port: int,
    prefix: str,
    routes: Iterable[tuple[str, str]],
    *,
    compressed: bool = False,
) -> dict[str, Any]:
    """One HTTP listener; the first host names it, the others are further addresses of the same."""
    made = _listener(hosts[0], port, [{"filters": [_manager(prefix, routes, compressed)]}])
    if hosts[1:]:
        made["additional_addresses"] = [{"address": _address(host, port)} for host in hosts[1:]]
    return made


def secured(host: str, port: int, prefix: str, routes: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The same over mTLS with the workload's own certificate; who has none of the mesh's is not answered."""
    common = {
        "tls_certificate_sds_secret_configs": [sds_secret("default")],
        "combined_validation_context": {
            "default_validation_context": {},
            "validation_context_sds_secret_config": sds_secret("ROOTCA"),
        },
    }
    chain = {
        "filter_chain_match": {"transport_protocol": "tls"},
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": TYPE + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": True,
                "common_tls_context": common,
            },
        },
        "filters": [_manager(prefix, routes, compressed=False)],
    }
    inspector = {
        "name": "envoy.filters.listener.tls_inspector",
        "typed_config": {"@type": FILTERS + "listener.tls_inspector.v3.TlsInspector"},
    }
    return {**_listener(host, port, [chain]), "listener_filters": [inspector]}


def _listener(host: str, port: int, chains: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": f"{host}_{port}",
        "address": _address(host, port),
        "ignore_global_conn_limit": True,
        "bypass_overload_manager": True,
        "filter_chains": chains,
    }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"protocol": "TCP", "address": host, "port_value": port}}


def _manager(prefix: str, routes: Iterable[tuple[str, str]], compressed: bool) -> dict[str, Any]:
    filters = [_compressor(name) for name in COMPRESSIONS] if compressed else []
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": FILTERS + "http.router.v3.Router"},
    }
    host = {
        "name": "backend",
        "domains": ["*"],
        "routes": [
            {"match": {"prefix": path}, "route": {"cluster": cluster}} for path, cluster in routes
        ],
    }
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": FILTERS + "network.http_connection_manager.v3.HttpConnectionManager",
            "codec_type": "AUTO",
            "stat_prefix": prefix,
            "route_config": {"virtual_hosts": [host]},
            "http_filters": [*filters, router],
        },
    }


def _compressor(name: str) -> dict[str, Any]:
    kind = f"envoy.extensions.compression.{name}.compressor.v3.{name.capitalize()}"
    return {
        "name": f"envoy.filters.http.compressor.{name}",
        "typed_config": {
            "@type": FILTERS + "http.compressor.v3.Compressor",
            "compressor_library": {
                "name": f"stats_{name}",
                "typed_config": {"@type": TYPE + kind},
            },
            "response_direction_config": {
                "common_config": {"content_type": list(COMPRESSED_TYPES)}
            },
        },
    }
