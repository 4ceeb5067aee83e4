"""ALS v3: Envoy's access logs -> the mesh's default metrics.

A stream begins with who reports (its node) and the log's name, which says on which side of the call it stands; the other
side is joined by address, principal or cluster. Each entry counts once. Should a stream break, Envoy loses what it had
buffered and not sent: at most one flush interval. Source: envoy/service/accesslog/v3/als.proto.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from envoy.data.accesslog.v3 import accesslog_pb2
from envoy.service.accesslog.v3 import als_pb2, als_pb2_grpc

from services.mixer import metrics
from services.mixer.attributes.workloads import Workloads
from windward.registration import RegisteredWorkload

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


class ReportService(als_pb2_grpc.AccessLogServiceServicer):
    def __init__(self, workloads: Workloads, trust_domain: str) -> None:
        self._workloads = workloads
        self._trust_domain = trust_domain

    async def StreamAccessLogs(  # noqa: N802  the wire's name
        self,
        requests: AsyncIterator[als_pb2.StreamAccessLogsMessage],
        _: grpc.aio.ServicerContext[Any, Any],
    ) -> als_pb2.StreamAccessLogsResponse:
        reporter: Reporter | None = None
        async for message in requests:
            if message.HasField("identifier"):
                reporter = Reporter.of(message.identifier)
            if reporter is None:
                continue
            for entry in message.http_logs.log_entry:
                self._http(reporter, entry)
            for connection in message.tcp_logs.log_entry:
                self._tcp(reporter, connection)
        return als_pb2.StreamAccessLogsResponse()

    def _http(self, reporter: Reporter, entry: accesslog_pb2.HTTPAccessLogEntry) -> None:
        agent = entry.request.user_agent
        if agent.startswith(("kube-probe", "Prometheus")):
            return
        common = entry.common_properties
        labels = self._labels(reporter, common)
        grpc_request = entry.request.request_headers.get("content-type", "").startswith(
            "application/grpc"
        )
        values = (
            *labels,
            "grpc" if grpc_request else "http",
            str(entry.response.response_code.value),
            _flags(common.response_flags),
            "none",
            "none",
            _security(reporter, common),
        )
        metrics.REQUESTS.labels(*values).inc()
        metrics.DURATION.labels(*values).observe(
            common.duration.ToTimedelta().total_seconds() or _last_byte_s(common)
        )
        request, response = entry.request, entry.response
        metrics.REQUEST_BYTES.labels(*values).observe(
            request.request_headers_bytes + request.request_body_bytes
        )
        metrics.RESPONSE_BYTES.labels(*values).observe(
            response.response_headers_bytes + response.response_body_bytes
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


def _last_byte_s(common: accesslog_pb2.AccessLogCommon) -> float:
    return float(common.time_to_last_downstream_tx_byte.ToTimedelta().total_seconds())
