"""A WorkloadGroup's readiness probe as agents are told it. Pure."""

from __future__ import annotations

from windward.api.registry.v1 import registry_pb2
from windward.config.workload_group import ReadinessProbe


def readiness_probe(probe: ReadinessProbe) -> registry_pb2.ReadinessProbe:
    """Field by field; validation has seen to it that exactly one kind is set."""
    made = registry_pb2.ReadinessProbe(
        initial_delay_seconds=probe.initial_delay_seconds,
        timeout_seconds=probe.timeout_seconds,
        period_seconds=probe.period_seconds,
        success_threshold=probe.success_threshold,
        failure_threshold=probe.failure_threshold,
    )
    if probe.http_get is not None:
        got = probe.http_get
        made.http_get.host, made.http_get.port, made.http_get.path = got.host, got.port, got.path
        made.http_get.tls = got.scheme.lower() == "https"
        made.http_get.headers.extend(f"{item.name}: {item.value}" for item in got.http_headers)
    if probe.tcp_socket is not None:
        made.tcp_socket.host, made.tcp_socket.port = probe.tcp_socket.host, probe.tcp_socket.port
    if probe.exec is not None:
        made.exec.command.extend(probe.exec.command)
    if probe.grpc is not None:
        made.grpc.port, made.grpc.service = probe.grpc.port, probe.grpc.service
    return made
