"""Which statistics Envoy keeps, how their names become labels, how often and where they are sent. Pure.

Source: istio tools/packaging/common/envoy_bootstrap.json and pkg/bootstrap/config.go (getStatsOptions); Envoy
config/metrics/v3/stats.proto.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from services.agent.envoy.proxy_config import BadProxyConfig, ProxyConfig, ProxyStatsMatcher
from windward.settings import Seconds
from windward.telemetry.logging import get_logger

log = get_logger()
ANNOTATION = "sidecar.istio.io/"
DEFAULT_FLUSH_S = 5.0
PREFIXES = ("cluster_manager", "listener_manager", "server", "cluster.xds-grpc", "wasm")
"""Readiness and the relay's health are read off these."""
OWN_PREFIXES = ("listener", "http", "cluster.inbound")
"""Draining counts listeners' connections, registration asks for inbound clusters, people for the rest.

Of the mesh's other clusters none, unless ``proxyStatsMatcher`` or an annotation asks for them, as in Istio: a thousand of them
are a hundred thousand statistics, and seven of the eight seconds that Envoy took to start.
"""
SUFFIXES = (
    "rbac.allowed",
    "rbac.denied",
    "shadow_allowed",
    "shadow_denied",
    "downstream_cx_active",
)
REGEXES = (r"vhost\..*\.route\..*",)
TAGS_BEFORE = (
    ("cluster_name", r"^cluster(\.(.+);)"),
    (
        "http_conn_manager_prefix",
        r"^http\.(((?:[_.[:digit:]\w]*|[_\[\]aAbBcCdDeEfF[:digit:]\w\:]*));\.)",
    ),
    ("thread_name", r"^server(\.(.+))\.watchdog"),
    ("tcp_prefix", r"^tcp\.((.*?)\.)\w+?$"),
    ("response_code", r"_rq(_(\d{3}))$"),
    ("response_code_class", r"_rq(_(\dxx))$"),
    (
        "http_conn_manager_listener_prefix",
        r"^listener(?=\.).*?\.http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)",
    ),
    (
        "listener_address",
        r"^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)",
    ),
    ("mongo_prefix", r"^mongo\.(.+?)\.(collection|cmd|cx_|op_|delays_|decoding_)(.*?)$"),
)
TAGS_AFTER = (
    ("cache", r"(cache\.(.+?)\.)"),
    ("component", r"(component\.(.+?)\.)"),
    ("tag", r"(tag\.(.+?);\.)"),
    ("wasm_filter", r"(wasm_filter\.(.+?)\.)"),
    ("authz_enforce_result", r"rbac(\.(allowed|denied))"),
    ("authz_dry_run_action", r"(\.istio_dry_run_(allow|deny)_)"),
    ("authz_dry_run_result", r"(\.shadow_(allowed|denied))"),
    # Not of Istio's, which keeps no such statistics: without these a metric's name would hold a port.
    ("http_conn_manager_of_listener", r"^listener\..*\.http\.((.+);\.)"),
    ("rds_route_config", r"^http\..*\.rds\.((.+)\.)\w+$"),
)


def build_stats(
    annotations: Mapping[str, str], proxy: ProxyConfig, instance_ips: Iterable[str]
) -> dict[str, Any]:
    """The bootstrap's fields stats_config, stats_flush_interval and stats_eviction_interval."""
    addresses = tuple(instance_ips)
    matcher = proxy.proxy_stats_matcher or ProxyStatsMatcher()

    def included(
        annotation: str, configured: tuple[str, ...], always: Iterable[str]
    ) -> tuple[str, ...]:
        """An annotation replaces what the mesh configures; what the agent itself needs is always there."""
        chosen = _words(annotations.get(ANNOTATION + annotation, "")) or configured
        return _with_addresses((*chosen, *always), addresses)

    prefixes = included(
        "statsInclusionPrefixes", matcher.inclusion_prefixes, (*PREFIXES, *OWN_PREFIXES)
    )
    suffixes = included("statsInclusionSuffixes", matcher.inclusion_suffixes, SUFFIXES)
    regexes = included("statsInclusionRegexps", matcher.inclusion_regexps, REGEXES)
    config: dict[str, Any] = {
        "use_all_default_tags": False,
        "stats_tags": _tags(annotations, proxy),
        "stats_matcher": {
            "inclusion_list": {
                "patterns": [
                    {"prefix": "reporter="},
                    *({"prefix": prefix} for prefix in prefixes),
                    *({"suffix": suffix} for suffix in suffixes),
                    *({"safe_regex": {"regex": regex}} for regex in regexes),
                    {"prefix": "component"},
                    {"prefix": "istio"},
                ]
            }
        },
    }
    buckets = _buckets(annotations.get(ANNOTATION + "statsHistogramBuckets", ""))
    if buckets:
        config["histogram_bucket_settings"] = buckets
    return {"stats_config": config, **_intervals(annotations)}


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def _with_addresses(patterns: Iterable[str], addresses: tuple[str, ...]) -> tuple[str, ...]:
    """``http.{pod_ip}_`` stands for one pattern an address."""
    found: list[str] = []
    for pattern in patterns:
        found += (
            [pattern.replace("{pod_ip}", address) for address in addresses]
            if "{pod_ip}" in pattern
            else [pattern]
        )
    return tuple(dict.fromkeys(found))


def _tags(annotations: Mapping[str, str], proxy: ProxyConfig) -> list[dict[str, str]]:
    extra = dict.fromkeys(
        (*proxy.extra_stat_tags, *_words(annotations.get(ANNOTATION + "extraStatTags", "")))
    )
    own = tuple((tag, rf"({tag}=\.=(.*?);\.;)") for tag in extra if tag)
    return [{"tag_name": name, "regex": regex} for name, regex in (*TAGS_BEFORE, *own, *TAGS_AFTER)]


def _buckets(text: str) -> list[dict[str, Any]]:
    """``{"prefix": [bounds]}`` -> Envoy's settings in prefix order. What cannot be read is said and left out."""
    if not text:
        return []
    try:
        read = json.loads(text)
        found = [
            {"match": {"prefix": str(prefix)}, "buckets": _bounds(bounds)}
            for prefix, bounds in sorted(read.items())
        ]
    except (ValueError, TypeError, AttributeError) as error:
        _left_out("statsHistogramBuckets", text, str(error))
        return []
    return found


def _bounds(bounds: list[float]) -> list[float]:
    """Envoy refuses bounds that do not rise."""
    numbers = [float(bound) for bound in bounds]
    rising = all(low < high for low, high in pairwise(numbers))
    if not numbers or not rising or numbers[0] <= 0 or not all(map(math.isfinite, numbers)):
        raise ValueError("bounds must be positive and rise")
    return [int(number) if number.is_integer() else number for number in numbers]


def _intervals(annotations: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    flush_s = _seconds(annotations, "statsFlushInterval")
    if flush_s:
        found["stats_flush_interval"] = f"{flush_s:g}s"
    eviction_s = _seconds(annotations, "statsEvictionInterval")
    if eviction_s:
        times = eviction_s / (flush_s or DEFAULT_FLUSH_S)
        if math.isclose(times, round(times)) and round(times) >= 1:
            found["stats_eviction_interval"] = f"{eviction_s:g}s"
        else:
            _left_out(
                "statsEvictionInterval", f"{eviction_s:g}s", "not a multiple of the flush interval"
            )
    return found


def _seconds(annotations: Mapping[str, str], name: str) -> float | None:
    """Envoy takes intervals from 1 ms to 5 minutes for the flush; an eviction may be longer."""
    text = annotations.get(ANNOTATION + name, "")
    if not text:
        return None
    try:
        seconds = float(Seconds.parse(text))
    except ValueError as error:
        _left_out(name, text, str(error))
        return None
    longest = 300.0 if name == "statsFlushInterval" else math.inf
    if not 0.001 <= seconds < longest:
        _left_out(name, text, "not between 1ms and 5m")
        return None
    return seconds


def _left_out(name: str, value: str, reason: str) -> None:
    """An annotation is the workload's owner's: a bad one costs the statistic, not the sidecar."""
    log.warning("bootstrap.annotation_ignored", name=ANNOTATION + name, value=value, reason=reason)


def build_sinks(proxy: ProxyConfig) -> list[dict[str, Any]]:
    """Where statistics are sent beside being scraped. Raises BadProxyConfig for an address without a port."""
    sinks: list[dict[str, Any]] = []
    if proxy.envoy_metrics_service is not None and proxy.envoy_metrics_service.address:
        sinks.append(
            {
                "name": "envoy.stat_sinks.metrics_service",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.config.metrics.v3.MetricsServiceConfig",
                    "transport_api_version": "V3",
                    "grpc_service": {"envoy_grpc": {"cluster_name": "envoy_metrics_service"}},
                },
            }
        )
    if proxy.statsd_udp_address:
        sinks.append(
            {
                "name": "envoy.stat_sinks.statsd",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.config.metrics.v3.StatsdSink",
                    "address": socket_address(
                        proxy.statsd_udp_address, "PROXY_CONFIG: statsdUdpAddress"
                    ),
                },
            }
        )
    return sinks


def socket_address(text: str, where: str, host_ip: str = "") -> dict[str, Any]:
    """``host:port`` as Envoy's address; ``$(HOST_IP)`` is the node's. Raises BadProxyConfig naming ``where``."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    if host == "$(HOST_IP)" and host_ip:
        host = host_ip
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise BadProxyConfig(f"{where}: {text!r} is not host:port")
    return {"socket_address": {"address": host, "port_value": int(port)}}
