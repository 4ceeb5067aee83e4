"""Gateway: what an Envoy at the edge listens on. Source: networking/v1alpha3/gateway.proto, ValidateGateway."""

from __future__ import annotations

from enum import Enum

from windward.config.common import (
    check_port,
    check_port_name,
    check_protocol,
    check_selector,
    check_wildcard_host,
)
from windward.config.hosts import is_dns_label, is_ip
from windward.config.metadata import Metadata
from windward.config.report import Report
from windward.config.types import Spec, UInt32

TLS_PROTOCOLS = frozenset({"HTTPS", "TLS"})


class ServerTLSMode(Enum):
    PASSTHROUGH = "PASSTHROUGH"
    SIMPLE = "SIMPLE"
    MUTUAL = "MUTUAL"
    AUTO_PASSTHROUGH = "AUTO_PASSTHROUGH"
    ISTIO_MUTUAL = "ISTIO_MUTUAL"
    OPTIONAL_MUTUAL = "OPTIONAL_MUTUAL"


class TLSProtocol(Enum):
    TLS_AUTO = "TLS_AUTO"
    TLSV1_0 = "TLSV1_0"
    TLSV1_1 = "TLSV1_1"
    TLSV1_2 = "TLSV1_2"
    TLSV1_3 = "TLSV1_3"


class Port(Spec, frozen=True):
    number: UInt32 = 0
    protocol: str = ""
    name: str = ""
    target_port: UInt32 = 0


class TLSCertificate(Spec, frozen=True):
    server_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""


class ServerTLSSettings(Spec, frozen=True):
    https_redirect: bool = False
    mode: ServerTLSMode = ServerTLSMode.PASSTHROUGH
    server_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""
    ca_crl: str = ""
    credential_name: str = ""
    credential_names: tuple[str, ...] = ()
    ca_cert_credential_name: str = ""
    tls_certificates: tuple[TLSCertificate, ...] = ()
    subject_alt_names: tuple[str, ...] = ()
    verify_certificate_spki: tuple[str, ...] = ()
    verify_certificate_hash: tuple[str, ...] = ()
    min_protocol_version: TLSProtocol = TLSProtocol.TLS_AUTO
    max_protocol_version: TLSProtocol = TLSProtocol.TLS_AUTO
    cipher_suites: tuple[str, ...] = ()
    insecure_skip_verify: bool | None = None


class Server(Spec, frozen=True):
    port: Port | None = None
    bind: str = ""
    hosts: tuple[str, ...] = ()
    tls: ServerTLSSettings | None = None
    default_endpoint: str = ""
    name: str = ""


class Gateway(Spec, frozen=True):
    servers: tuple[Server, ...] = ()
    selector: dict[str, str] = {}


def validate(spec: Gateway, metadata: Metadata, report: Report) -> None:
    if "." in metadata.name:
        report.warn("invalid-value", "a gateway's name should have no dots")
    if not spec.servers:
        report.at("servers").error("required", "must have at least one server")
    check_selector(spec.selector, report.at("selector"))
    names: set[str] = set()
    for index, server in enumerate(spec.servers):
        entry = report.at("servers", index)
        check_server(server, entry)
        if server.port is not None and server.port.name:
            if server.port.name in names:
                entry.at("port", "name").error("duplicate", f"{server.port.name} stands twice")
            names.add(server.port.name)


def check_server(server: Server, report: Report) -> None:
    if server.bind and not is_ip(server.bind) and not server.bind.startswith("unix://"):
        report.at("bind").error(
            "invalid-value", f"must be an IP address or a socket, is {server.bind!r}"
        )
    if not server.hosts:
        report.at("hosts").error("required", "must name at least one host")
    for index, host in enumerate(server.hosts):
        _server_host(host, report.at("hosts", index))
    if server.port is None:
        report.at("port").error("required", "must be set")
        return
    _server_port(server, server.port, report.at("port"))
    if server.default_endpoint:
        report.at("defaultEndpoint").error("not-supported", "not supported yet")
    secure = server.port.protocol.upper() in TLS_PROTOCOLS
    if server.tls is None:
        if secure:
            report.at("tls").error("required", f"must be set for protocol {server.port.protocol}")
        return
    check_server_tls(server.tls, report.at("tls"))
    if secure and server.tls.https_redirect:
        report.at("tls", "httpsRedirect").warn(
            "unreachable", "only a plain HTTP port redirects to HTTPS"
        )
    if not secure and server.port.protocol.upper() == "HTTP" and not server.tls.https_redirect:
        if server.tls.mode is not ServerTLSMode.PASSTHROUGH or server.tls.credential_name:
            report.at("tls").error("conflict", "a plain HTTP port has no TLS but httpsRedirect")


def _server_port(server: Server, port: Port, report: Report) -> None:
    check_port_name(port.name, report.at("name"))
    check_protocol(port.protocol, report.at("protocol"))
    if port.protocol.upper() in {"TCP", "MONGO", "REDIS", "MYSQL", "UDP"}:
        report.at("protocol").error("not-supported", "not supported yet at a gateway", "use HTTP")
    if not (server.bind.startswith("unix://") and port.number == 0):
        check_port(port.number, report.at("number"))
    if port.target_port:
        report.at("targetPort").warn(
            "deprecated", "has no effect here: the gateway listens on the number itself"
        )


def _server_host(host: str, report: Report) -> None:
    """``host``, or ``namespace/host``; the namespace may be ``*`` or ``.``."""
    namespace, slash, name = host.rpartition("/")
    if slash:
        if "/" in namespace:
            report.error("invalid-host", "must be namespace/host")
        elif namespace not in {"*", "."} and not is_dns_label(namespace):
            report.error("invalid-host", f"{namespace!r} is not a namespace")
    if is_ip(name):
        report.error("invalid-host", "must be a host name, not an IP address")
        return
    check_wildcard_host(name, report)
    if name and "." not in name and name != "*":
        report.error(
            "invalid-host", "a short name means nothing at a gateway", "write the full name"
        )


def check_server_tls(tls: ServerTLSSettings, report: Report) -> None:
    mode, files = tls.mode, (tls.server_certificate, tls.private_key, tls.ca_certificates)
    named = tls.credential_name or tls.credential_names or tls.tls_certificates
    if tls.credential_name and tls.credential_names:
        report.error("conflict", "only one of credentialName and credentialNames may be set")
    if len(tls.credential_names) > 2 or len(tls.tls_certificates) > 2:
        report.warn("too-large", "at most two certificates are used")
    if tls.tls_certificates and (any(files[:2]) or tls.credential_name or tls.credential_names):
        report.error("conflict", "only one way of naming certificates may be used")
    if any("\n" in file for file in files):
        report.error("invalid-value", "must be paths of files, not their content")
    if mode is ServerTLSMode.ISTIO_MUTUAL:
        if any(files) or named:
            report.error(
                "conflict",
                "ISTIO_MUTUAL uses the mesh's own certificates: no files, no credentialName",
            )
        return
    if mode in {ServerTLSMode.PASSTHROUGH, ServerTLSMode.AUTO_PASSTHROUGH}:
        if any(files) or named:
            report.warn("unreachable", f"certificates have no effect with {mode.value}")
        return
    if not named:
        if not tls.server_certificate:
            report.at("serverCertificate").error(
                "required", f"must be set with {mode.value}, or a credentialName"
            )
        if not tls.private_key:
            report.at("privateKey").error(
                "required", f"must be set with {mode.value}, or a credentialName"
            )
        if (
            mode in {ServerTLSMode.MUTUAL, ServerTLSMode.OPTIONAL_MUTUAL}
            and not tls.ca_certificates
        ):
            report.at("caCertificates").error(
                "required", f"must be set with {mode.value}, or a credentialName"
            )
    order = list(TLSProtocol)
    if tls.max_protocol_version is not TLSProtocol.TLS_AUTO and order.index(
        tls.min_protocol_version
    ) > order.index(tls.max_protocol_version):
        report.at("minProtocolVersion").error(
            "out-of-range", "must not be above maxProtocolVersion"
        )
    for index, suite in enumerate(tls.cipher_suites):
        if suite in tls.cipher_suites[:index]:
            report.at("cipherSuites", index).warn("duplicate", f"{suite} stands twice")
