"""ALS v3: Envoy's access logs -> the mesh's default metrics.

A stream begins with who reports (its node) and the log's name, which says on which side of the call it stands; the other
side is joined by address, principal or cluster. Each entry counts once. Should a stream break, Envoy loses what it had
buffered and not sent: at most one flush interval. Source: envoy/service/accesslog/v3/als.proto.

    entry -> its kind (peer, service, code, flags ...) -> the series that entries of this kind count in, found once a stream
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from envoy.data.accesslog.v3 import accesslog_pb2
from envoy.service.accesslog.v3 import als_pb2, als_pb2_grpc
from google.protobuf import duration_pb2
from prometheus_client import Counter, Histogram

from services.mixer import metrics
from services.mixer.attributes.workloads import Workloads
from windward.registration import RegisteredWorkload

MOST_KINDS = 1000
"""Of requests that a stream has series at hand for; a caller chooses its flags and codes."""
_Kind = tuple[str, tuple[str, ...], str, int, bytes, bool]
"""The peer's address, the service, the peer's principal, code, flags, whether it is gRPC."""
UNKNOWN = "unknown"
INBOUND = "windward.inbound"
SPIFFE = "spiffe://"
FLAGS = (
    ("failed_local_healthcheck", "LH"), ("no_healthy_upstream", "UH"), ("upstream_request_timeout", "UT"),
    ("local_reset", "LR"), ("upstream_remote_reset", "UR"), ("upstream_connection_failure", "UF"),
    ("upstream_connection_termination", "UC"), ("upstream_overflow", "UO"), ("no_route_found", "NR"),
    ("delay_injected", "DI"), ("fault_injected", "FI"), ("rate_limited", "RL"),
    ("downstream_connection_termination", "DC"), ("stream_idle_timeout", "SI"),
    ("upstream_retry_limit_exceeded", "URX"), ("no_cluster_found", "NC"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who sends a stream."""

    inbound: bool
    name: str
    namespace: str
    service_account: str
    labels: Mapping[str, str]

    @classmethod
    def of(cls, identifier: als_pb2.StreamAccessLogsMessage.Identifier) -> Reporter:
        fields = identifier.node.metadata.fields
        labels = (
            {key: value.string_value for key, value in fields["LABELS"].struct_value.fields.items()}
            if "LABELS" in fields
            else {}
        )
        return cls(
            inbound=identifier.log_name == INBOUND,
            name=fields["WORKLOAD_NAME"].string_value if "WORKLOAD_NAME" in fields else "",
            namespace=fields["NAMESPACE"].string_value if "NAMESPACE" in fields else "",
            service_account=fields["SERVICE_ACCOUNT"].string_value
            if "SERVICE_ACCOUNT" in fields
            else "",
            labels=labels,
        )


@dataclass(frozen=True, slots=True)
class _Series:
    """Where the requests of one kind are counted."""

    requests: Counter
    duration: Histogram
    request_bytes: Histogram
    response_bytes: Histogram

    @classmethod
    def of(cls, labels: tuple[str, ...]) -> _Series:
        return cls(
            metrics.REQUESTS.labels(*labels),
            metrics.DURATION.labels(*labels),
            metrics.REQUEST_BYTES.labels(*labels),
            metrics.RESPONSE_BYTES.labels(*labels),
        )


class _Stream:
    """Who reports, and the series of the kinds of requests that it has reported: finding them is most of an entry's cost."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self.series: dict[_Kind, _Series] = {}
        self.version = -1
        """Of the workloads that the series' labels are of."""


class ReportService(als_pb2_grpc.AccessLogServiceServicer):
    def __init__(self, workloads: Workloads, trust_domain: str) -> None:
        self._workloads = workloads
        self._trust_domain = trust_domain

    async def StreamAccessLogs(  # noqa: N802  the wire's name
        self,
        requests: AsyncIterator[als_pb2.StreamAccessLogsMessage],
        _: grpc.aio.ServicerContext[Any, Any],
    ) -> als_pb2.StreamAccessLogsResponse:
        stream: _Stream | None = None
        async for message in requests:
            if message.HasField("identifier"):
                stream = _Stream(Reporter.of(message.identifier))
            if stream is None:
                continue
            if stream.version != self._workloads.version or len(stream.series) > MOST_KINDS:
                stream.series.clear()
                stream.version = self._workloads.version
            for entry in message.http_logs.log_entry:
                self._http(stream, entry)
            for connection in message.tcp_logs.log_entry:
                self._tcp(stream.reporter, connection)
        return als_pb2.StreamAccessLogsResponse()

    def _http(self, stream: _Stream, entry: accesslog_pb2.HTTPAccessLogEntry) -> None:
        request, response, common = entry.request, entry.response, entry.common_properties
        if request.user_agent.startswith(("kube-probe", "Prometheus")):
            return
        kind = _kind(stream.reporter, entry)
        series = stream.series.get(kind)
        if series is None:
            labels = self._http_labels(stream.reporter, entry)
            series = stream.series[kind] = _Series.of(labels)
        series.requests.inc()
        series.duration.observe(
            _seconds(common.duration) or _seconds(common.time_to_last_downstream_tx_byte)
        )
        series.request_bytes.observe(request.request_headers_bytes + request.request_body_bytes)
        series.response_bytes.observe(
            response.response_headers_bytes + response.response_body_bytes
        )

    def _http_labels(
        self, reporter: Reporter, entry: accesslog_pb2.HTTPAccessLogEntry
    ) -> tuple[str, ...]:
        common = entry.common_properties
        return (
            *self._labels(reporter, common),
            "grpc" if _is_grpc(entry) else "http",
            str(entry.response.response_code.value),
            _flags(common.response_flags),
            "none",
            "none",
            _security(reporter, common),
        )

    def _tcp(self, reporter: Reporter, entry: accesslog_pb2.TCPAccessLogEntry) -> None:
        common = entry.common_properties
        values = (
            *self._labels(reporter, common),
            _flags(common.response_flags),
            _security(reporter, common),
        )
        connection = entry.connection_properties
        metrics.TCP_OPENED.labels(*values).inc()
        metrics.TCP_CLOSED.labels(*values).inc()
        metrics.TCP_SENT.labels(*values).inc(connection.sent_bytes)
        metrics.TCP_RECEIVED.labels(*values).inc(connection.received_bytes)

    def _labels(self, reporter: Reporter, common: accesslog_pb2.AccessLogCommon) -> tuple[str, ...]:
        """reporter, five of the source, five of the destination, three of its service."""
        own = self._known(reporter)
        if reporter.inbound:
            principal = _peer_principal(common)
            source = self._workloads.at(common.downstream_remote_address.socket_address.address)
            host = common.custom_tags.get("destination_service", "")
            name = common.custom_tags.get("destination_service_name", "")
            namespace = common.custom_tags.get("destination_service_namespace", "")
            return (
                "destination",
                *_workload_labels(source, principal),
                *_workload_labels(own, self._principal(own, reporter)),
                *_service(host, name, namespace),
            )
        destination = self._workloads.at(common.upstream_remote_address.socket_address.address)
        host = (
            common.upstream_cluster.split("|")[3] if common.upstream_cluster.count("|") == 3 else ""
        )
        return (
            "source",
            *_workload_labels(own, self._principal(own, reporter)),
            *_workload_labels(destination, self._principal(destination, None)),
            *_service(host, "", ""),
        )

    def _known(self, reporter: Reporter) -> RegisteredWorkload:
        """The reporter's registration; what its node says of itself where it has none (gateways)."""
        found = self._workloads.named(reporter.namespace, reporter.name)
        return found or RegisteredWorkload(
            namespace=reporter.namespace,
            name=reporter.name,
            address="",
            workload_group="",
            service_account=reporter.service_account,
            labels=dict(reporter.labels),
        )

    def _principal(self, workload: RegisteredWorkload | None, reporter: Reporter | None) -> str:
        account = (
            reporter.service_account if reporter else workload.service_account if workload else ""
        )
        namespace = reporter.namespace if reporter else workload.namespace if workload else ""
        return f"{SPIFFE}{self._trust_domain}/ns/{namespace}/sa/{account}" if account else UNKNOWN


def _workload_labels(
    workload: RegisteredWorkload | None, principal: str
) -> tuple[str, str, str, str, str]:
    """app, principal, workload, workload namespace, version."""
    if workload is None:
        return (UNKNOWN, principal or UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)
    return (
        workload.labels.get("app", UNKNOWN),
        principal or UNKNOWN,
        workload.name,
        workload.namespace,
        workload.labels.get("version", UNKNOWN),
    )


def _service(host: str, name: str, namespace: str) -> tuple[str, str, str]:
    parts = host.split(".")
    in_mesh = len(parts) > 2 and parts[2] == "svc"
    return (
        host or UNKNOWN,
        name or (parts[0] if in_mesh else host) or UNKNOWN,
        namespace or (parts[1] if in_mesh else "") or UNKNOWN,
    )


def _peer_principal(common: accesslog_pb2.AccessLogCommon) -> str:
    for name in common.tls_properties.peer_certificate_properties.subject_alt_name:
        if name.uri:
            return str(name.uri)
    return UNKNOWN


def _security(reporter: Reporter, common: accesslog_pb2.AccessLogCommon) -> str:
    if not reporter.inbound:
        return UNKNOWN
    return "mutual_tls" if _peer_principal(common) != UNKNOWN else "none"


def _flags(flags: Any) -> str:
    found = [short for name, short in FLAGS if getattr(flags, name)]
    return ",".join(found) or "-"


def _kind(reporter: Reporter, entry: accesslog_pb2.HTTPAccessLogEntry) -> _Kind:
    """All of an entry that its labels are made from; of flags that are set, which."""
    common = entry.common_properties
    service: tuple[str, ...]
    if reporter.inbound:
        peer = common.downstream_remote_address.socket_address.address
        tags = common.custom_tags
        service = (
            tags.get("destination_service", ""),
            tags.get("destination_service_name", ""),
            tags.get("destination_service_namespace", ""),
        )
        principal = _peer_principal(common)
    else:
        peer = common.upstream_remote_address.socket_address.address
        service, principal = (common.upstream_cluster,), ""
    flags = common.response_flags.SerializeToString(deterministic=True)
    return (peer, service, principal, entry.response.response_code.value, flags, _is_grpc(entry))


def _is_grpc(entry: accesslog_pb2.HTTPAccessLogEntry) -> bool:
    content_type = entry.request.request_headers.get("content-type", "")
    return bool(content_type.startswith("application/grpc"))


def _seconds(duration: duration_pb2.Duration) -> float:
    return float(duration.seconds + duration.nanos / 1e9)
