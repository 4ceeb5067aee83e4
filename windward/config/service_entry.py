"""ServiceEntry: a service and what is behind it. Source: networking/v1alpha3/service_entry.proto, ValidateServiceEntry."""

from __future__ import annotations

from enum import Enum
from typing import Final

from windward.config.common import (
    WorkloadSelector,
    check_export_to,
    check_port,
    check_port_name,
    check_protocol,
    check_selector,
    check_wildcard_host,
)
from windward.config.hosts import fqdn_fault, is_cidr_or_ip, is_ip
from windward.config.metadata import Metadata
from windward.config.report import Report
from windward.config.types import Spec, UInt32
from windward.config.workload_entry import UNIX_PREFIX, WorkloadEntry, check_address, check_fields

MOST = 256
MOST_ENDPOINTS = 4096


class Location(Enum):
    MESH_EXTERNAL = "MESH_EXTERNAL"
    MESH_INTERNAL = "MESH_INTERNAL"


class Resolution(Enum):
    NONE = "NONE"
    STATIC = "STATIC"
    DNS = "DNS"
    DNS_ROUND_ROBIN = "DNS_ROUND_ROBIN"
    DYNAMIC_DNS = "DYNAMIC_DNS"


_TCP: Final = frozenset({"TCP", "MONGO", "REDIS", "MYSQL"})
DNS_RESOLUTIONS = frozenset({Resolution.DNS, Resolution.DNS_ROUND_ROBIN})


class ServicePort(Spec, frozen=True):
    number: UInt32 = 0
    protocol: str = ""
    name: str = ""
    target_port: UInt32 = 0


class ServiceEntry(Spec, frozen=True):
    hosts: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    ports: tuple[ServicePort, ...] = ()
    location: Location = Location.MESH_EXTERNAL
    resolution: Resolution = Resolution.NONE
    endpoints: tuple[WorkloadEntry, ...] = ()
    workload_selector: WorkloadSelector | None = None
    export_to: tuple[str, ...] = ()
    subject_alt_names: tuple[str, ...] = ()


WAYPOINT: Final = "istio.io/use-waypoint"


def validate(spec: ServiceEntry, metadata: Metadata, report: Report) -> None:
    _hosts(spec, metadata, report)
    _addresses(spec, report)
    _ports(spec, report)
    if spec.workload_selector is not None:
        if spec.endpoints:
            report.error("conflict", "only one of workloadSelector and endpoints may be set")
        if not spec.workload_selector.labels:
            report.at("workloadSelector").warn("unreachable", "selects nothing: it has no labels")
        if spec.resolution is Resolution.NONE:
            report.at("workloadSelector").warn(
                "unreachable", "has no effect with resolution NONE", "use STATIC"
            )
        check_selector(spec.workload_selector.labels, report.at("workloadSelector", "labels"))
    _endpoints(spec, report)
    check_export_to(spec.export_to, report.at("exportTo"), metadata.namespace)


def _hosts(spec: ServiceEntry, metadata: Metadata, report: Report) -> None:
    if not spec.hosts:
        report.at("hosts").error("required", "must name at least one host")
    for name, most, items in (
        ("hosts", MOST, spec.hosts),
        ("addresses", MOST, spec.addresses),
        ("ports", MOST, spec.ports),
        ("endpoints", MOST_ENDPOINTS, spec.endpoints),
    ):
        if len(items) > most:
            report.at(name).error("too-large", f"at most {most}, here {len(items)}")
    for index, host in enumerate(spec.hosts):
        entry = report.at("hosts", index)
        if host == "*":
            entry.error("invalid-host", "* alone is not allowed")
            continue
        if partial_wildcard(host):
            entry.warn(
                "invalid-host",
                "a partial wildcard matches less than it seems",
                "write *.example.com",
            )
            continue
        check_wildcard_host(host, entry)
        if host in spec.hosts[:index]:
            entry.error("duplicate", f"{host} stands twice")
    wildcard = any(host.startswith("*") for host in spec.hosts)
    if wildcard and spec.resolution is Resolution.DNS and not spec.endpoints:
        report.at("hosts").error(
            "conflict", "a wildcard host cannot be resolved by DNS without endpoints"
        )
    internal = spec.location is Location.MESH_INTERNAL
    waypoint = metadata.labels.get(WAYPOINT, "none") != "none"
    if spec.resolution is Resolution.DYNAMIC_DNS and internal and waypoint:
        report.at("location").error(
            "conflict", "MESH_INTERNAL with resolution DYNAMIC_DNS does not go with a waypoint"
        )
    if spec.resolution is Resolution.DYNAMIC_DNS and not all(
        host.startswith("*.") for host in spec.hosts
    ):
        report.at("hosts").error("conflict", "resolution DYNAMIC_DNS is for wildcard hosts")


def partial_wildcard(host: str) -> bool:
    """``*example.com``: a wildcard that is no whole label; taken, and rarely meant."""
    return (
        host.startswith("*")
        and not host.startswith("*.")
        and host != "*"
        and not fqdn_fault(host[1:])
    )


def _addresses(spec: ServiceEntry, report: Report) -> None:
    cidr = False
    for index, address in enumerate(spec.addresses):
        if not is_cidr_or_ip(address):
            report.at("addresses", index).error(
                "invalid-value", f"must be an IP address or CIDR, is {address!r}"
            )
        cidr = cidr or "/" in address
        if "/" in address and is_cidr_or_ip(address):
            report.at("addresses", index).error(
                "not-supported", "ranges are not supported yet", "list the addresses"
            )
    if cidr and spec.resolution in DNS_RESOLUTIONS | {Resolution.DYNAMIC_DNS}:
        report.at("addresses").error(
            "conflict", f"CIDR addresses do not go with resolution {spec.resolution.value}"
        )
    if spec.addresses and spec.resolution is Resolution.DYNAMIC_DNS:
        report.at("addresses").error("conflict", "no addresses with resolution DYNAMIC_DNS")
    if spec.resolution is Resolution.NONE and not spec.addresses:
        if any(port.protocol.upper() in _TCP for port in spec.ports):
            report.at("addresses").warn(
                "matches-everything",
                "a TCP port without an address takes all traffic to that port",
                "give addresses",
            )


def _ports(spec: ServiceEntry, report: Report) -> None:
    if not spec.ports:
        report.at("ports").warn("required", "a service without ports is never called")
    names: set[str] = set()
    numbers: set[int] = set()
    for index, port in enumerate(spec.ports):
        entry = report.at("ports", index)
        check_port_name(port.name, entry.at("name"))
        check_protocol(port.protocol, entry.at("protocol"))
        check_port(port.number, entry.at("number"))
        if port.target_port:
            check_port(port.target_port, entry.at("targetPort"))
            if spec.resolution is Resolution.NONE and port.target_port != port.number:
                entry.at("targetPort").warn("unreachable", "has no meaning with resolution NONE")
        if spec.resolution is Resolution.DYNAMIC_DNS and port.protocol.upper() in {*_TCP, "UDP"}:
            entry.at("protocol").error(
                "conflict", "resolution DYNAMIC_DNS goes by host name: HTTP or TLS only"
            )
        if port.name in names:
            entry.at("name").error("duplicate", f"{port.name} stands twice")
        if port.number in numbers:
            entry.at("number").error("duplicate", f"{port.number} stands twice")
        names.add(port.name)
        numbers.add(port.number)


def _endpoints(spec: ServiceEntry, report: Report) -> None:
    resolution = spec.resolution
    if resolution in {Resolution.NONE, Resolution.DYNAMIC_DNS} and spec.endpoints:
        report.at("endpoints").error("conflict", f"no endpoints with resolution {resolution.value}")
        return
    if resolution in DNS_RESOLUTIONS:
        _dns_endpoints(spec, report)
    for index, endpoint in enumerate(spec.endpoints):
        entry = report.at("endpoints", index)
        if not endpoint.address and not endpoint.network:
            entry.at("address").error("required", "must be set")
        elif not endpoint.address:
            entry.at("address").warn(
                "unreachable", "is empty: reached by the gateway of its network alone"
            )
        if resolution is Resolution.STATIC:
            _static_endpoint(spec, endpoint, entry)
        elif endpoint.address:
            _dns_endpoint(endpoint, entry)
        check_fields(endpoint, entry)
        known = {port.name for port in spec.ports}
        for name in endpoint.ports:
            if name not in known:
                entry.at("ports").key(name).error(
                    "invalid-value", "the service has no port of this name"
                )


def _dns_endpoints(spec: ServiceEntry, report: Report) -> None:
    if not spec.endpoints and spec.workload_selector is None:
        for index, host in enumerate(spec.hosts):
            if fqdn_fault(host):
                report.at("hosts", index).error(
                    "conflict", "without endpoints, DNS must be able to resolve the host"
                )
    if spec.resolution is Resolution.DNS_ROUND_ROBIN and len(spec.endpoints) > 1:
        report.at("endpoints").error(
            "conflict", "at most one endpoint with resolution DNS_ROUND_ROBIN"
        )


def _static_endpoint(spec: ServiceEntry, endpoint: WorkloadEntry, report: Report) -> None:
    address = endpoint.address
    if address.startswith(UNIX_PREFIX):
        check_address(endpoint, report)
        if len(spec.ports) != 1:
            report.at("address").error(
                "conflict", "a socket serves a service with exactly one port"
            )
    elif address and not is_ip(address):
        report.at("address").error(
            "invalid-value",
            f"must be an IP address or a socket, is {address!r}",
            "use resolution DNS",
        )


def _dns_endpoint(endpoint: WorkloadEntry, report: Report) -> None:
    if endpoint.address.startswith(UNIX_PREFIX):
        report.at("address").error("conflict", "a socket goes with resolution STATIC only")
    elif not is_ip(endpoint.address) and (problem := fqdn_fault(endpoint.address)):
        report.at("address").error("invalid-host", problem)
