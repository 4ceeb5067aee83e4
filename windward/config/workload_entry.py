"""WorkloadEntry: one address behind a service (a VM, a process). Source: networking/v1alpha3/workload_entry.proto."""

from __future__ import annotations

from windward.config.common import check_labels, check_port
from windward.config.hosts import fqdn_fault, is_dns_label, is_ip
from windward.config.metadata import Metadata
from windward.config.report import Report
from windward.config.types import Spec, UInt32

UNIX_PREFIX = "unix://"
LONGEST_ADDRESS = 256


class WorkloadEntry(Spec, frozen=True):
    address: str = ""
    ports: dict[str, UInt32] = {}
    labels: dict[str, str] = {}
    network: str = ""
    locality: str = ""
    weight: UInt32 = 0
    service_account: str = ""


def validate(spec: WorkloadEntry, _: Metadata, report: Report) -> None:
    if not spec.address and not spec.network:
        report.at("address").error("required", "must be set")
    check_address(spec, report)
    check_fields(spec, report)


def check_address(spec: WorkloadEntry, report: Report) -> None:
    """An IP address, a host name, or a socket as ``unix:///path``."""
    address = spec.address
    if not address:
        return
    if len(address) > LONGEST_ADDRESS:
        report.at("address").error("too-large", f"must have at most {LONGEST_ADDRESS} characters")
        return
    if address.startswith(UNIX_PREFIX):
        path = address.removeprefix(UNIX_PREFIX)
        if not path.startswith(("/", "@")) or len(path) < 2 or path.endswith("/"):
            report.at("address").error("invalid-value", "a socket is written unix:///absolute/path")
        if spec.ports:
            report.at("ports").error("conflict", "a socket has no ports")
    elif not is_ip(address) and (problem := fqdn_fault(address)):
        report.at("address").error(
            "invalid-value", f"neither an IP address nor a host name: {problem}"
        )


def check_fields(spec: WorkloadEntry, report: Report) -> None:
    check_labels(spec.labels, report.at("labels"))
    for name, number in spec.ports.items():
        if not is_dns_label(name):
            report.at("ports").key(name).error("invalid-value", "a port's name must be a DNS label")
        check_port(number, report.at("ports").key(name))
    if len(spec.service_account) > 253:
        report.at("serviceAccount").error("too-large", "must have at most 253 characters")
