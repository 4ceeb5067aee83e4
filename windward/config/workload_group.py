"""WorkloadGroup: what the workloads that agents register have in common. Source: workload_group.proto."""

from __future__ import annotations

import re
from typing import Final

from windward.config.common import check_labels, check_port
from windward.config.metadata import Metadata
from windward.config.report import Report
from windward.config.types import Int32, Spec, UInt32
from windward.config.workload_entry import WorkloadEntry, check_address, check_fields

_HEADER_NAME: Final = re.compile(r"[-_A-Za-z0-9]+")


class GroupMetadata(Spec, frozen=True):
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class HTTPHeader(Spec, frozen=True):
    name: str = ""
    value: str = ""


class HTTPHealthCheckConfig(Spec, frozen=True):
    path: str = ""
    port: UInt32 = 0
    host: str = ""
    scheme: str = ""
    http_headers: tuple[HTTPHeader, ...] = ()


class TCPHealthCheckConfig(Spec, frozen=True):
    host: str = ""
    port: UInt32 = 0


class ExecHealthCheckConfig(Spec, frozen=True):
    command: tuple[str, ...] = ()


class GrpcHealthCheckConfig(Spec, frozen=True):
    port: UInt32 = 0
    service: str = ""


class ReadinessProbe(Spec, frozen=True):
    initial_delay_seconds: Int32 = 0
    timeout_seconds: Int32 = 0
    period_seconds: Int32 = 0
    success_threshold: Int32 = 0
    failure_threshold: Int32 = 0
    http_get: HTTPHealthCheckConfig | None = None
    tcp_socket: TCPHealthCheckConfig | None = None
    exec: ExecHealthCheckConfig | None = None
    grpc: GrpcHealthCheckConfig | None = None


class WorkloadGroup(Spec, frozen=True):
    metadata: GroupMetadata | None = None
    template: WorkloadEntry | None = None
    probe: ReadinessProbe | None = None


def validate(spec: WorkloadGroup, _: Metadata, report: Report) -> None:
    if spec.metadata is not None:
        check_labels(spec.metadata.labels, report.at("metadata", "labels"))
    if spec.template is None:
        report.at("template").error("required", "must be set")
    else:
        if spec.template.address:
            check_address(spec.template, report.at("template"))
        check_fields(spec.template, report.at("template"))
    if spec.probe is not None:
        _probe(spec.probe, report.at("probe"))


def _probe(probe: ReadinessProbe, report: Report) -> None:
    for name in ("initial_delay", "timeout", "period"):
        value = getattr(probe, f"{name}_seconds")
        if value < 0:
            report.at(name.replace("_d", "D") + "Seconds").error(
                "out-of-range", f"must not be negative, is {value}"
            )
    for name in ("success", "failure"):
        value = getattr(probe, f"{name}_threshold")
        if value < 0:
            report.at(f"{name}Threshold").error("out-of-range", f"must not be negative, is {value}")
    members = {
        "httpGet": probe.http_get,
        "tcpSocket": probe.tcp_socket,
        "exec": probe.exec,
        "grpc": probe.grpc,
    }
    report.one_of(members, required=True)
    if probe.http_get is not None:
        _http_probe(probe.http_get, report.at("httpGet"))
    if probe.tcp_socket is not None:
        check_port(probe.tcp_socket.port, report.at("tcpSocket", "port"))
    if probe.exec is not None and not probe.exec.command:
        report.at("exec", "command").error("required", "must be set")
    if probe.grpc is not None:
        check_port(probe.grpc.port, report.at("grpc", "port"))


def _http_probe(probe: HTTPHealthCheckConfig, report: Report) -> None:
    check_port(probe.port, report.at("port"))
    if probe.scheme not in {"", "http", "https", "HTTP", "HTTPS"}:
        report.at("scheme").error("invalid-value", f"must be http or https, is {probe.scheme}")
    if probe.path and not probe.path.startswith("/"):
        report.at("path").error("invalid-value", "must begin with /")
    for index, header in enumerate(probe.http_headers):
        if not _HEADER_NAME.fullmatch(header.name):
            report.at("httpHeaders", index, "name").error(
                "invalid-value", "must be letters, digits, '-' and '_'"
            )
