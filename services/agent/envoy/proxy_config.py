"""PROXY_CONFIG: the part of Istio's ProxyConfig that an agent acts on, typed and refused where it cannot be.

    '{"concurrency": 2, "tracing": {"zipkin": {"address": "zipkin:9411"}}}'  ->  ProxyConfig

JSON, or YAML where PyYAML is installed. A field that nothing here would act on is an error with its name.
Source: istio.io/api mesh/v1alpha1/proxy.proto.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from windward.settings import Seconds


class BadProxyConfig(ValueError):
    """One line: which field of PROXY_CONFIG, and what is wrong with it."""


class _Field(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    pass


class TlsSettings(_Field, frozen=True):
    """How a static cluster is called. Files are served by SDS, so that a renewed one is taken up."""

    mode: Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"] = "DISABLE"
    client_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""
    subject_alt_names: tuple[str, ...] = ()
    sni: str = ""


class TcpKeepalive(_Field, frozen=True):
    probes: Annotated[int, Meta(ge=0)] = 0
    time: str = ""
    interval: str = ""


class RemoteService(_Field, frozen=True):
    address: str = ""
    tls_settings: TlsSettings = TlsSettings()
    tcp_keepalive: TcpKeepalive | None = None


class Collector(_Field, frozen=True):
    """Where spans go: host:port."""

    address: str


class Lightstep(_Field, frozen=True):
    address: str
    access_token: str = ""


class Tracing(_Field, frozen=True):
    """At most one of the tracers. ``openTelemetry`` is Windward's own: OTLP over gRPC."""

    zipkin: Collector | None = None
    datadog: Collector | None = None
    lightstep: Lightstep | None = None
    open_telemetry: Collector | None = None
    tls_settings: TlsSettings | None = None
    sampling: Annotated[float, Meta(ge=0, le=100)] | None = None
    """Percent of the requests that nobody before has decided on; None: 1, as in Istio."""


class ProxyStatsMatcher(_Field, frozen=True):
    inclusion_prefixes: tuple[str, ...] = ()
    inclusion_suffixes: tuple[str, ...] = ()
    inclusion_regexps: tuple[str, ...] = ()


class ConnectionSettings(_Field, frozen=True):
    global_downstream_connection_limit: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0


class ProxyConfig(_Field, frozen=True):
    binary_path: str = ""
    config_path: str = ""
    service_cluster: str = ""
    discovery_address: str = ""
    drain_duration: str = ""
    termination_drain_duration: str = ""
    proxy_admin_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    status_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    concurrency: Annotated[int, Meta(ge=0, le=256)] | None = None
    interception_mode: Literal["REDIRECT", "TPROXY", "NONE"] | None = None
    file_flush_interval: str = ""
    control_plane_auth_policy: Literal["MUTUAL_TLS"] | None = None
    """Calls to the control plane are always mutual TLS."""
    stat_name_length: int = 0
    """Envoy's names have had no longest length since 1.10."""
    statsd_udp_address: str = ""
    envoy_metrics_service: RemoteService | None = None
    envoy_access_log_service: RemoteService | None = None
    tracing: Tracing | None = None
    stats_compression: bool | None = None
    extra_stat_tags: tuple[str, ...] = ()
    proxy_stats_matcher: ProxyStatsMatcher | None = None
    runtime_values: dict[str, str] = {}
    connection_settings: ConnectionSettings | None = None
    proxy_metadata: dict[str, str] = {}
    hold_application_until_proxy_starts: bool | None = None
    """Read where the sidecar is injected, as the next two are."""
    image: dict[str, str] | None = None
    readiness_probe: dict[str, Any] | None = None


def parse_proxy_config(text: str) -> tuple[ProxyConfig, dict[str, Any]]:
    """(typed, as written); the second goes to Pilot as metadata. Raises BadProxyConfig."""
    if not text.strip():
        return ProxyConfig(), {}
    raw = _mapping(text)
    try:
        config = msgspec.convert(raw, ProxyConfig)
    except msgspec.ValidationError as error:
        raise BadProxyConfig(f"PROXY_CONFIG: {error}") from error
    tracing = config.tracing or Tracing()
    tracers = (tracing.zipkin, tracing.datadog, tracing.lightstep, tracing.open_telemetry)
    if sum(tracer is not None for tracer in tracers) > 1:
        raise BadProxyConfig("PROXY_CONFIG: tracing: name one tracer")
    if tracing.sampling is not None and not any(tracers):
        raise BadProxyConfig("PROXY_CONFIG: tracing: sampling: no tracer is named")
    for field in ("drain_duration", "termination_drain_duration", "file_flush_interval"):
        duration(getattr(config, field), f"PROXY_CONFIG: {field}")
    return config, raw


def _mapping(text: str) -> dict[str, Any]:
    try:
        raw = msgspec.json.decode(text)
    except msgspec.DecodeError as not_json:
        try:
            import yaml

            raw = yaml.safe_load(text)
        except ImportError:
            raise BadProxyConfig(f"PROXY_CONFIG: not JSON: {not_json}") from None
        except Exception as error:
            raise BadProxyConfig(f"PROXY_CONFIG: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise BadProxyConfig("PROXY_CONFIG: must be a mapping")
    return raw


def duration(text: str, where: str) -> float | None:
    """Seconds of ``5s``, ``1m30s``; None for an empty text. Raises BadProxyConfig naming ``where``."""
    if not text:
        return None
    try:
        return float(Seconds.parse(text))
    except ValueError as error:
        raise BadProxyConfig(f"{where}: {error}") from error
