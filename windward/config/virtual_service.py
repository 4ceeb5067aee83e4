"""VirtualService: how requests for a host are routed. Source: networking/v1alpha3/virtual_service.proto."""

from __future__ import annotations

from collections.abc import Sequence

from windward.config.common import check_export_to, check_labels, check_port, check_wildcard_host
from windward.config.hosts import is_cidr_or_ip, is_dns_label, is_ip, matches
from windward.config.http_route import (
    HTTPRoute,
    L4MatchAttributes,
    TCPRoute,
    TLSMatchAttributes,
    TLSRoute,
)
from windward.config.http_route_rules import (
    check_gateway_name,
    check_http_route,
    check_tcp_destinations,
)
from windward.config.metadata import Metadata
from windward.config.report import Report
from windward.config.types import Spec

MESH = "mesh"


class VirtualService(Spec, frozen=True):
    hosts: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    http: tuple[HTTPRoute, ...] = ()
    tls: tuple[TLSRoute, ...] = ()
    tcp: tuple[TCPRoute, ...] = ()
    export_to: tuple[str, ...] = ()


def validate(spec: VirtualService, metadata: Metadata, report: Report) -> None:
    gateway = any(name != MESH for name in spec.gateways)
    on_mesh = not spec.gateways or MESH in spec.gateways
    delegate = not spec.hosts
    _hosts(spec, report, on_mesh=on_mesh, gateway=gateway, delegate=delegate)
    for index, name in enumerate(spec.gateways):
        if delegate:
            report.at("gateways").error("conflict", "a delegate (no hosts) is bound to no gateway")
            break
        check_gateway_name(name, report.at("gateways", index))
    if not spec.http and not spec.tls and not spec.tcp:
        report.error("required", "must have http, tls or tcp routes")
    if delegate and (spec.tls or spec.tcp):
        report.error("conflict", "a delegate has http routes only")
    for index, route in enumerate(spec.http):
        check_http_route(route, report.at("http", index), delegate=delegate, gateway=gateway)
    for index, tls in enumerate(spec.tls):
        _tls(tls, spec, report.at("tls", index), gateway=gateway)
    for index, tcp in enumerate(spec.tcp):
        for position, match in enumerate(tcp.match):
            _l4_match(match, report.at("tcp", index, "match", position))
        check_tcp_destinations(tcp.route, report.at("tcp", index, "route"), gateway=gateway)
    _unreachable(spec, report)
    check_export_to(spec.export_to, report.at("exportTo"), metadata.namespace)


def _hosts(
    spec: VirtualService, report: Report, *, on_mesh: bool, gateway: bool, delegate: bool
) -> None:
    if delegate and spec.export_to and len(spec.export_to) > 1:
        report.at("exportTo").warn("unreachable", "a delegate is found by whoever names it")
    for index, host in enumerate(spec.hosts):
        entry = report.at("hosts", index)
        covered = [
            other for other in spec.hosts[:index] if matches(other, host) or matches(host, other)
        ]
        if covered:
            entry.error("duplicate", f"overlaps with {covered[0]}")
        if is_ip(host):
            continue
        check_wildcard_host(host, entry)
        if host == "*" and on_mesh:
            entry.error("invalid-host", "* is for gateways only", "name a gateway other than mesh")
        if gateway and "." not in host and host != "*":
            entry.error(
                "invalid-host", "a short name cannot be used at a gateway", "write the full name"
            )


def _tls(tls: TLSRoute, spec: VirtualService, report: Report, *, gateway: bool) -> None:
    if not tls.match:
        report.at("match").error("required", "must have at least one match")
    for index, match in enumerate(tls.match):
        _sni_match(match, spec.hosts, report.at("match", index))
    check_tcp_destinations(tls.route, report.at("route"), gateway=gateway)


def _sni_match(match: TLSMatchAttributes, hosts: Sequence[str], report: Report) -> None:
    if not match.sni_hosts:
        report.at("sniHosts").error("required", "must name at least one host")
    for index, sni in enumerate(match.sni_hosts):
        entry = report.at("sniHosts", index)
        if is_ip(sni):
            entry.warn("invalid-host", "an IP address is no server name: most clients send none")
            continue
        check_wildcard_host(sni, entry)
        if not any(matches(host, sni) for host in hosts):
            entry.error("conflict", f"{sni} is not covered by the object's hosts")
    _l4(match, report)


def _l4_match(match: L4MatchAttributes, report: Report) -> None:
    _l4(match, report)
    if match.source_subnet and not is_cidr_or_ip(match.source_subnet):
        report.at("sourceSubnet").error("invalid-value", "must be an IP address or CIDR")


def _l4(match: L4MatchAttributes | TLSMatchAttributes, report: Report) -> None:
    for index, subnet in enumerate(match.destination_subnets):
        if not is_cidr_or_ip(subnet):
            report.at("destinationSubnets", index).error(
                "invalid-value", "must be an IP address or CIDR"
            )
    if match.port:
        check_port(match.port, report.at("port"))
    check_labels(match.source_labels, report.at("sourceLabels"))
    for index, name in enumerate(match.gateways):
        check_gateway_name(name, report.at("gateways", index))
    if match.source_namespace and not is_dns_label(match.source_namespace):
        report.at("sourceNamespace").error("invalid-value", "is not a namespace")


def _unreachable(spec: VirtualService, report: Report) -> None:
    """A route that matches everything ends the list; a match that stands twice is never asked again."""
    ended = -1
    seen: list[object] = []
    for index, route in enumerate(spec.http):
        if ended >= 0:
            report.at("http", index).warn(
                "unreachable", f"is never reached: http[{ended}] matches everything"
            )
            continue
        if not route.match:
            ended = index
            continue
        duplicates = [match for match in route.match if match in seen]
        if len(duplicates) == len(route.match):
            report.at("http", index).warn(
                "unreachable", "is never reached: an earlier route has the same matches"
            )
        seen += list(route.match)
