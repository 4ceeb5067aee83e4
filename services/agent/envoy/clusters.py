"""The bootstrap's static clusters: the agent's sockets, Envoy's own admin, collectors of spans, statistics and logs. Pure."""

from __future__ import annotations

from typing import Any

from services.agent.envoy.proxy_config import (
    BadProxyConfig,
    ProxyConfig,
    RemoteService,
    TcpKeepalive,
    TlsSettings,
    duration,
)
from services.agent.envoy.stats import socket_address

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
TYPE = "type.googleapis.com/"
MANY = 100_000


def http2() -> dict[str, Any]:
    return {
        HTTP_OPTIONS: {
            "@type": TYPE + HTTP_OPTIONS,
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }


def local(name: str, address: dict[str, Any]) -> dict[str, Any]:
    """A cluster on this machine. ``alt_stat_name`` ends where the tag cluster_name ends."""
    return {
        "name": name,
        "alt_stat_name": name + ";",
        "type": "STATIC",
        "connect_timeout": "0.250s",
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": _assignment(name, address),
    }


def tcp(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"protocol": "TCP", "address": host, "port_value": port}}


def socket_cluster(name: str, path: str) -> dict[str, Any]:
    """A gRPC service of the agent behind a unix socket."""
    return {
        **local(name, {"pipe": {"path": path}}),
        "connect_timeout": "1s",
        "typed_extension_protocol_options": http2(),
    }


def xds_cluster(path: str) -> dict[str, Any]:
    """The relay's cluster: one stream for a life long, so no limit may refuse it, and keep-alive notices its end."""
    many = {"max_connections": MANY, "max_pending_requests": MANY, "max_requests": MANY}
    return {
        **socket_cluster("xds-grpc", path),
        "circuit_breakers": {
            "thresholds": [{"priority": priority, **many} for priority in ("DEFAULT", "HIGH")]
        },
        "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 300}},
        "max_requests_per_connection": 1,
    }


def remote(
    name: str,
    address: dict[str, Any],
    family: str,
    *,
    grpc: bool = False,
    tls: TlsSettings | None = None,
    keepalive: TcpKeepalive | None = None,
) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": name,
        "alt_stat_name": name + ";",
        "type": "STRICT_DNS",
        "respect_dns_ttl": True,
        "dns_lookup_family": family,
        "connect_timeout": "1s",
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": _assignment(name, address),
    }
    if grpc:
        made["typed_extension_protocol_options"] = http2()
    socket = transport_socket(tls, grpc=grpc, name=name) if tls is not None else None
    if socket is not None:
        made["transport_socket"] = socket
    if keepalive is not None:
        made["upstream_connection_options"] = {"tcp_keepalive": _keepalive(keepalive, name)}
    return made


def service_clusters(proxy: ProxyConfig, family: str, host_ip: str) -> list[dict[str, Any]]:
    """Of the metrics and the access-log service, those that are configured."""
    named: tuple[tuple[str, str, RemoteService | None], ...] = (
        ("envoy_metrics_service", "envoyMetricsService", proxy.envoy_metrics_service),
        ("envoy_accesslog_service", "envoyAccessLogService", proxy.envoy_access_log_service),
    )
    return [
        remote(
            name,
            socket_address(service.address, f"PROXY_CONFIG: {field}.address", host_ip),
            family,
            grpc=True,
            tls=service.tls_settings,
            keepalive=service.tcp_keepalive,
        )
        for name, field, service in named
        if service is not None and service.address
    ]


def transport_socket(tls: TlsSettings, *, grpc: bool, name: str) -> dict[str, Any] | None:
    """Upstream TLS whose files and certificates all come by SDS; None for DISABLE."""
    if tls.mode == "DISABLE":
        return None
    own = tls.mode == "ISTIO_MUTUAL"
    if not own and not tls.ca_certificates:
        raise BadProxyConfig(f"PROXY_CONFIG: tlsSettings of {name}: caCertificates is missing")
    names = [{"exact": text} for text in tls.subject_alt_names]
    common: dict[str, Any] = {
        "combined_validation_context": {
            "default_validation_context": (
                {
                    "match_typed_subject_alt_names": [
                        {"san_type": kind, "matcher": matcher}
                        for matcher in names
                        for kind in ("DNS", "URI")
                    ]
                }
                if names
                else {}
            ),
            "validation_context_sds_secret_config": sds_secret(
                "ROOTCA" if own else f"file-root:{tls.ca_certificates}"
            ),
        }
    }
    if grpc:
        common["alpn_protocols"] = ["istio", "h2"] if own else ["h2"]
    if own:
        common["tls_certificate_sds_secret_configs"] = [sds_secret("default")]
    elif tls.mode == "MUTUAL":
        if not tls.client_certificate or not tls.private_key:
            raise BadProxyConfig(
                f"PROXY_CONFIG: tlsSettings of {name}: MUTUAL needs clientCertificate and privateKey"
            )
        common["tls_certificate_sds_secret_configs"] = [
            sds_secret(f"file-cert:{tls.client_certificate}~{tls.private_key}")
        ]
    context: dict[str, Any] = {
        "@type": TYPE + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": common,
    }
    sni = tls.sni or (name if own else "")
    if sni:
        context["sni"] = sni
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def sds_secret(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "sds_config": {
            "api_config_source": {
                "api_type": "GRPC",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}],
                "set_node_on_first_message_only": True,
                "transport_api_version": "V3",
            },
            "resource_api_version": "V3",
        },
    }


def _assignment(name: str, address: dict[str, Any]) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": address}}
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}


def _keepalive(keepalive: TcpKeepalive, name: str) -> dict[str, int]:
    where = f"PROXY_CONFIG: tcpKeepalive of {name}"
    found = {
        "keepalive_probes": keepalive.probes,
        "keepalive_time": int(duration(keepalive.time, where) or 0),
        "keepalive_interval": int(duration(keepalive.interval, where) or 0),
    }
    return {field: value for field, value in found.items() if value}
