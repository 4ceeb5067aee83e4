"""The mesh's default metrics, with Istio's names and labels, and Mixer's own.

Source: the prometheus handler and instances of Istio 1.4's mixer chart.
"""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from windward.telemetry.metrics import new_registry

REGISTRY = new_registry()

_SIDE = ("app", "principal", "workload", "workload_namespace", "version")
_COMMON = (
    "reporter",
    *(f"source_{name}" for name in _SIDE),
    *(f"destination_{name}" for name in _SIDE),
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
)
HTTP_LABELS = (
    *_COMMON,
    "request_protocol",
    "response_code",
    "response_flags",
    "permissive_response_code",
    "permissive_response_policyid",
    "connection_security_policy",
)
TCP_LABELS = (*_COMMON, "response_flags", "connection_security_policy")
SIZES = tuple(float(10**exponent) for exponent in range(9))

REQUESTS = Counter("istio_requests_total", "Requests", HTTP_LABELS, registry=REGISTRY)
DURATION = Histogram(
    "istio_request_duration_seconds",
    "Duration of requests",
    HTTP_LABELS,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
REQUEST_BYTES = Histogram(
    "istio_request_bytes", "Size of requests", HTTP_LABELS, buckets=SIZES, registry=REGISTRY
)
RESPONSE_BYTES = Histogram(
    "istio_response_bytes", "Size of responses", HTTP_LABELS, buckets=SIZES, registry=REGISTRY
)
TCP_SENT = Counter(
    "istio_tcp_sent_bytes_total", "Bytes sent to callers", TCP_LABELS, registry=REGISTRY
)
TCP_RECEIVED = Counter(
    "istio_tcp_received_bytes_total", "Bytes received from callers", TCP_LABELS, registry=REGISTRY
)
TCP_OPENED = Counter(
    "istio_tcp_connections_opened_total", "Connections opened", TCP_LABELS, registry=REGISTRY
)
TCP_CLOSED = Counter(
    "istio_tcp_connections_closed_total", "Connections closed", TCP_LABELS, registry=REGISTRY
)

CHECKS = Counter("mixer_checks_total", "Checks answered", ["verdict"], registry=REGISTRY)
CHECK_ERRORS = Counter(
    "mixer_check_errors_total", "Checks that could not be answered", registry=REGISTRY
)
RULE_PROBLEMS = Counter(
    "mixer_config_rule_config_errors_total",
    "Rules left out because they are broken",
    registry=REGISTRY,
)
