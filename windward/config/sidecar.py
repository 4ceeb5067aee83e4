"""Sidecar: what a workload's proxy listens on and which services it may see.

Source: networking/v1alpha3/sidecar.proto; istio pkg/config/validation/validation.go, ValidateSidecar.
"""

from __future__ import annotations

from enum import Enum

from windward.config.common import (
    WorkloadSelector,
    check_port,
    check_port_name,
    check_protocol,
    check_selector,
    check_wildcard_host,
)
from windward.config.destination_rule import check_connection_pool
from windward.config.gateway import (
    TLS_PROTOCOLS,
    ServerTLSMode,
    ServerTLSSettings,
    check_server_tls,
)
from windward.config.hosts import fqdn_fault, is_dns_label, is_ip
from windward.config.http_route import Destination
from windward.config.http_route_rules import check_destination
from windward.config.metadata import Metadata
from windward.config.report import Report
from windward.config.traffic_policy import ConnectionPoolSettings
from windward.config.types import Spec, UInt32
from windward.config.workload_entry import UNIX_PREFIX

LOOPBACKS = frozenset({"", "127.0.0.1", "0.0.0.0", "::1", "::"})
"""Hosts of a defaultEndpoint: the workload itself, by each of its names."""
HTTP_PROTOCOLS = frozenset({"HTTP", "HTTP2", "HTTP_PROXY", "GRPC", "GRPC-WEB"})


class CaptureMode(Enum):
    DEFAULT = "DEFAULT"
    IPTABLES = "IPTABLES"
    NONE = "NONE"


class OutboundMode(Enum):
    REGISTRY_ONLY = "REGISTRY_ONLY"
    ALLOW_ANY = "ALLOW_ANY"


class SidecarPort(Spec, frozen=True):
    number: UInt32 = 0
    protocol: str = ""
    name: str = ""
    target_port: UInt32 = 0


class IngressListener(Spec, frozen=True):
    port: SidecarPort | None = None
    bind: str = ""
    capture_mode: CaptureMode = CaptureMode.DEFAULT
    default_endpoint: str = ""
    tls: ServerTLSSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None


class EgressListener(Spec, frozen=True):
    port: SidecarPort | None = None
    bind: str = ""
    capture_mode: CaptureMode = CaptureMode.DEFAULT
    hosts: tuple[str, ...] = ()
    """``namespace/dnsName``; the namespace is a name, ``.`` (the workload's own), ``*`` (any), ``~`` (none), or
    ``~name`` for what is taken out again."""


class OutboundTrafficPolicy(Spec, frozen=True):
    mode: OutboundMode = OutboundMode.REGISTRY_ONLY
    egress_proxy: Destination | None = None


class Sidecar(Spec, frozen=True):
    workload_selector: WorkloadSelector | None = None
    ingress: tuple[IngressListener, ...] = ()
    egress: tuple[EgressListener, ...] = ()
    inbound_connection_pool: ConnectionPoolSettings | None = None
    outbound_traffic_policy: OutboundTrafficPolicy | None = None


def validate(spec: Sidecar, metadata: Metadata, report: Report) -> None:
    if spec.workload_selector is not None:
        entry = report.at("workloadSelector")
        check_selector(spec.workload_selector.labels, entry.at("labels"))
        if not spec.workload_selector.labels:
            entry.warn("unreachable", "has no labels: it applies to every workload here")
    if not (
        spec.egress
        or spec.ingress
        or spec.outbound_traffic_policy is not None
        or spec.inbound_connection_pool is not None
    ):
        report.error("required", "says nothing", "give egress hosts")
    _ingress(spec, report)
    if spec.inbound_connection_pool is not None:
        check_connection_pool(spec.inbound_connection_pool, report.at("inboundConnectionPool"))
    _egress(spec, metadata.namespace, report)
    if spec.outbound_traffic_policy is not None:
        _outbound(spec.outbound_traffic_policy, report.at("outboundTrafficPolicy"))


def _ingress(spec: Sidecar, report: Report) -> None:
    numbers: set[int] = set()
    for index, listener in enumerate(spec.ingress):
        entry = report.at("ingress", index)
        port = listener.port
        if port is None:
            entry.at("port").error("required", "must be set")
            continue
        _port_names(port, entry.at("port"))
        check_port(port.number, entry.at("port", "number"))
        _ip_bind(listener.bind, entry)
        if port.number in numbers:
            entry.at("port", "number").error("duplicate", f"{port.number} stands twice")
        numbers.add(port.number)
        if listener.default_endpoint:
            _default_endpoint(listener.default_endpoint, entry.at("defaultEndpoint"))
        if listener.tls is not None:
            _ingress_tls(listener.tls, port, entry.at("tls"))
        if listener.connection_pool is not None:
            pool = entry.at("connectionPool")
            check_connection_pool(listener.connection_pool, pool)
            if listener.connection_pool.http and port.protocol.upper() not in HTTP_PROTOCOLS:
                pool.at("http").warn("unreachable", "only an HTTP port has HTTP settings")


def _default_endpoint(text: str, report: Report) -> None:
    """``127.0.0.1:port``, ``0.0.0.0:port``, ``[::1]:port``, ``[::]:port``, ``:port`` or ``unix:///path``."""
    if text.startswith(UNIX_PREFIX):
        _socket(text, report)
        return
    host, colon, number = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or bare not in LOOPBACKS or (":" in bare) != (host != bare):
        report.error(
            "invalid-value",
            f"must be 127.0.0.1:port, 0.0.0.0:port, [::1]:port, [::]:port or unix:///path, is {text!r}",
        )
    if not number.isascii() or not number.isdigit() or len(number) > 5:
        report.error("invalid-value", f"must end in a port, is {text!r}")
    else:
        check_port(int(number), report)


def _ingress_tls(tls: ServerTLSSettings, port: SidecarPort, report: Report) -> None:
    for name, given in (
        ("subjectAltNames", tls.subject_alt_names),
        ("httpsRedirect", tls.https_redirect),
        ("credentialName", tls.credential_name),
        ("credentialNames", tls.credential_names),
        ("tlsCertificates", tls.tls_certificates),
    ):
        if given:
            report.at(name).error("invalid-value", "has no meaning at a sidecar")
    if tls.mode in {ServerTLSMode.ISTIO_MUTUAL, ServerTLSMode.AUTO_PASSTHROUGH}:
        report.at("mode").error("invalid-value", f"{tls.mode.value} has no meaning at a sidecar")
    if port.protocol.upper() not in TLS_PROTOCOLS:
        report.error("conflict", "only an HTTPS or TLS port has TLS settings")
    check_server_tls(tls, report)


def _egress(spec: Sidecar, namespace: str, report: Report) -> None:
    numbers: set[int] = set()
    sockets: set[str] = set()
    for index, listener in enumerate(spec.egress):
        entry = report.at("egress", index)
        if listener.port is None:
            if index != len(spec.egress) - 1:
                entry.at("port").error(
                    "required", "only the last listener may be without a port: it takes the rest"
                )
        else:
            _egress_port(listener, listener.port, entry)
            place = sockets if listener.port.number == 0 else numbers
            key = listener.bind if listener.port.number == 0 else listener.port.number
            if key in place:
                entry.at("port").error("duplicate", f"{key} stands twice")
            place.add(key)  # type: ignore[arg-type]
        _egress_hosts(listener.hosts, namespace, entry.at("hosts"))


def _egress_port(listener: EgressListener, port: SidecarPort, report: Report) -> None:
    _port_names(port, report.at("port"))
    if port.number:
        check_port(port.number, report.at("port", "number"))
        _ip_bind(listener.bind, report)
        return
    if not listener.bind.startswith(UNIX_PREFIX):
        report.at("port", "number").error("required", "must be set, or bind a socket: unix:///path")
    else:
        _socket(listener.bind, report.at("bind"))
    if listener.capture_mode is CaptureMode.IPTABLES:
        report.at("captureMode").error("conflict", "nothing is captured for a socket")


def _egress_hosts(hosts: tuple[str, ...], namespace: str, report: Report) -> None:
    if not hosts:
        report.error("required", "must name at least one host, e.g. ./*")
    seen: dict[str, set[str]] = {}
    for index, host in enumerate(hosts):
        entry = report.at(index)
        of, slash, name = host.partition("/")
        if not slash or not of or not name:
            entry.error(
                "invalid-host", f"must be namespace/dnsName, is {host!r}", "write ./* or */*"
            )
            continue
        if of not in {"*", ".", "~"} and not is_dns_label(of.removeprefix("~")):
            entry.error("invalid-host", f"{of!r} is neither a namespace nor ., *, ~ or ~namespace")
        _egress_name(name, entry)
        of = namespace if of == "." else of
        known = seen.setdefault(of, set())
        if name in known or "*" in known or (name == "*" and known):
            entry.warn("duplicate", f"{host} is covered twice")
        known.add(name)
    if "*" in seen.get("*", ()) and any(of != "*" and not of.startswith("~") for of in seen):
        report.warn("duplicate", "*/* has every host: the others add nothing")


def _egress_name(name: str, report: Report) -> None:
    if name == "*":
        return
    if "." not in name:
        report.error("invalid-host", f"{name!r} is a short name", "write the full name")
    elif name.startswith("*") and not name.startswith("*."):
        report.error(
            "invalid-host", "a wildcard stands for whole labels at the start: *.example.com"
        )
    else:
        check_wildcard_host(name, report)


def _outbound(policy: OutboundTrafficPolicy, report: Report) -> None:
    proxy = policy.egress_proxy
    if policy == OutboundTrafficPolicy():
        # Said here: an empty message is not "set", and yet it means REGISTRY_ONLY.
        report.error("not-supported", "not supported yet", "use Pilot's --outbound-traffic-policy")
    if proxy is None:
        return
    entry = report.at("egressProxy")
    if policy.mode is not OutboundMode.ALLOW_ANY:
        entry.error("conflict", "goes with mode ALLOW_ANY only")
    if problem := fqdn_fault(proxy.host):
        entry.at("host").error("invalid-host", problem)
        return
    if proxy.port is None:
        entry.at("port").error("required", "must be set")
    check_destination(proxy, entry)


def _port_names(port: SidecarPort, report: Report) -> None:
    """Names and protocols are optional here: without one, the protocol is found out."""
    if port.name:
        check_port_name(port.name, report.at("name"))
    if port.protocol:
        check_protocol(port.protocol, report.at("protocol"))
    if port.target_port:
        report.at("targetPort").error("invalid-value", "has no meaning at a sidecar")


def _ip_bind(bind: str, report: Report) -> None:
    if bind and not is_ip(bind):
        report.at("bind").error("invalid-value", f"must be an IP address, is {bind!r}")


def _socket(text: str, report: Report) -> None:
    path = text.removeprefix(UNIX_PREFIX)
    abstract = path.startswith("@") and len(path) > 1
    if not abstract and (not path.startswith("/") or path.endswith("/")):
        report.error("invalid-value", f"a socket is written unix:///absolute/path, is {text!r}")
