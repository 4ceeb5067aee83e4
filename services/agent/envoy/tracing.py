"""The tracer that PROXY_CONFIG names, with its collector's cluster. Pure.

    zipkin, datadog        Envoy's tracers of those names
    openTelemetry          OTLP over gRPC
    lightstep              OTLP over gRPC with Lightstep's access token: Envoy has had no Lightstep tracer since 1.31

Source: Envoy config/trace/v3; istio tools/packaging/common/envoy_bootstrap.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services.agent.envoy.clusters import TYPE, remote
from services.agent.envoy.proxy_config import Tracing
from services.agent.envoy.stats import socket_address

SAMPLING_FLAG = "tracing.random_sampling"
"""Envoy's runtime key, which goes before what a listener says."""


def sampling(tracing: Tracing | None) -> dict[str, Any]:
    """The share of requests, as a fraction that Envoy's runtime understands.

    Without a tracer none: what is marked as sampled here would be so for every proxy after this one.
    """
    percent = 0.0
    if tracing is not None and any(
        (tracing.zipkin, tracing.datadog, tracing.open_telemetry, tracing.lightstep)
    ):
        percent = 1.0 if tracing.sampling is None else tracing.sampling
    return {"numerator": round(percent * 10_000), "denominator": "MILLION"}


@dataclass(frozen=True, slots=True)
class Tracer:
    cluster: dict[str, Any]
    provider: dict[str, Any]
    """Goes to the bootstrap's ``tracing.http``."""


def build_tracer(
    tracing: Tracing | None, *, service: str, family: str, host_ip: str
) -> Tracer | None:
    if tracing is None:
        return None
    tls = tracing.tls_settings

    def address(text: str, field: str) -> dict[str, Any]:
        return socket_address(text, f"PROXY_CONFIG: tracing.{field}.address", host_ip)

    if tracing.zipkin is not None:
        cluster = remote("zipkin", address(tracing.zipkin.address, "zipkin"), family, tls=tls)
        return Tracer({**cluster, "dns_refresh_rate": "30s"}, _zipkin())
    if tracing.datadog is not None:
        cluster = remote(
            "datadog_agent", address(tracing.datadog.address, "datadog"), family, tls=tls
        )
        config = {"collector_cluster": "datadog_agent", "service_name": service}
        return Tracer(cluster, _provider("datadog", "DatadogConfig", config))
    if tracing.open_telemetry is not None:
        at = address(tracing.open_telemetry.address, "openTelemetry")
        cluster = remote("opentelemetry", at, family, grpc=True, tls=tls)
        return Tracer(cluster, _otlp("opentelemetry", service, {}))
    if tracing.lightstep is not None:
        at = address(tracing.lightstep.address, "lightstep")
        cluster = remote("lightstep", at, family, grpc=True, tls=tls)
        token = tracing.lightstep.access_token
        return Tracer(
            cluster, _otlp("lightstep", service, {"lightstep-access-token": token} if token else {})
        )
    return None


def _zipkin() -> dict[str, Any]:
    return _provider(
        "zipkin",
        "ZipkinConfig",
        {
            "collector_cluster": "zipkin",
            "collector_endpoint": "/api/v2/spans",
            "collector_endpoint_version": "HTTP_JSON",
            "trace_id_128bit": True,
            "shared_span_context": False,
        },
    )


def _otlp(cluster: str, service: str, headers: dict[str, str]) -> dict[str, Any]:
    call: dict[str, Any] = {"envoy_grpc": {"cluster_name": cluster}, "timeout": "0.250s"}
    if headers:
        call["initial_metadata"] = [
            {"key": key, "value": value} for key, value in sorted(headers.items())
        ]
    return _provider(
        "opentelemetry", "OpenTelemetryConfig", {"grpc_service": call, "service_name": service}
    )


def _provider(name: str, kind: str, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": f"envoy.tracers.{name}",
        "typed_config": {"@type": f"{TYPE}envoy.config.trace.v3.{kind}", **config},
    }
