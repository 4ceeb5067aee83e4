"""Gateway: what an Envoy at the edge listens on. Source: networking/v1alpha3/gateway.proto, ValidateGateway."""

from __future__ import annotations

from enum import Enum
from typing import Final

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
from windward.config.workload_entry import UNIX_PREFIX

TLS_PROTOCOLS = frozenset({"HTTPS", "TLS"})
PLAIN_HTTP = frozenset({"HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY"})
CIPHER_SUITES: Final = frozenset(
    {"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384",
     "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305",
     "ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES256-SHA",
     "AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA", "AES256-SHA", "DES-CBC3-SHA"}
)  # fmt: skip
"""Source: istio pkg/config/security."""


class ServerTLSMode(Enum):
    PASSTHROUGH = "PASSTHROUGH"
    SIMPLE = "SIMPLE"
    MUTUAL = "MUTUAL"
    AUTO_PASSTHROUGH = "AUTO_PASSTHROUGH"
    ISTIO_MUTUAL = "ISTIO_MUTUAL"
    OPTIONAL_MUTUAL = "OPTIONAL_MUTUAL"


PASSING = frozenset({ServerTLSMode.PASSTHROUGH, ServerTLSMode.AUTO_PASSTHROUGH})


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
    _bind(server, report.at("bind"))
    if not server.hosts:
        report.at("hosts").error("required", "must name at least one host")
    for index, host in enumerate(server.hosts):
        _server_host(host, report.at("hosts", index))
    if server.port is None:
        report.at("port").error("required", "must be set")
        return
    _server_port(server, server.port, report.at("port"))
    secure = server.port.protocol.upper() in TLS_PROTOCOLS
    if server.tls is None:
        if secure:
            report.at("tls").error("required", f"must be set for protocol {server.port.protocol}")
        return
    check_server_tls(server.tls, report.at("tls"))
    if secure and server.tls.mode in PASSING:
        report.at("tls").error(
            "not-supported",
            f"{server.tls.mode.value} is not supported yet",
            "let the gateway end TLS: SIMPLE, MUTUAL, OPTIONAL_MUTUAL or ISTIO_MUTUAL",
        )
    if secure and server.tls.https_redirect:
        report.at("tls", "httpsRedirect").warn(
            "unreachable", "only a plain HTTP port redirects to HTTPS"
        )
    if not secure:
        certificates = (
            server.tls.server_certificate,
            server.tls.private_key,
            server.tls.ca_certificates,
        )
        if server.port.protocol.upper() not in PLAIN_HTTP:
            report.at("tls").error(
                "conflict", f"{server.port.protocol} has no TLS settings", "use TLS"
            )
        elif server.tls.mode not in PASSING or any(certificates):
            report.at("tls").error("conflict", "a plain HTTP port has no TLS but httpsRedirect")


def _server_port(server: Server, port: Port, report: Report) -> None:
    check_port_name(port.name, report.at("name"))
    check_protocol(port.protocol, report.at("protocol"))
    if port.protocol.upper() in {"TCP", "MONGO", "REDIS", "MYSQL", "UDP"}:
        report.at("protocol").error("not-supported", "not supported yet at a gateway", "use HTTP")
    if port.protocol.upper() == "TLS":
        report.at("protocol").error("not-supported", "not supported yet at a gateway", "use HTTPS")
    if not server.bind.startswith(UNIX_PREFIX):
        check_port(port.number, report.at("number"))
    elif port.number:
        report.at("number").error("conflict", "must be 0: a socket has no port")
    if port.target_port:
        report.at("targetPort").warn(
            "deprecated", "has no effect here: the gateway listens on the number itself"
        )


def _bind(server: Server, report: Report) -> None:
    path = server.bind.removeprefix(UNIX_PREFIX)
    if path != server.bind:
        if len(path) < 2 or path[0] not in "/@" or path.endswith("/"):
            report.error("invalid-value", "a socket is written unix:///absolute/path")
    elif path and not is_ip(path):
        report.error("invalid-value", f"must be an IP address or a socket, is {path!r}")


def _server_host(host: str, report: Report) -> None:
    """``host``, or ``namespace/host``; the namespace may be ``*`` or ``.``."""
    namespace, slash, name = host.rpartition("/")
    if slash:
        if "/" in namespace:
            report.error("invalid-host", "must be namespace/host")
        elif namespace not in {"*", "."} and not is_dns_label(namespace):
            report.error("invalid-host", f"{namespace!r} is not a namespace")
    if is_ip(name):
        return
    check_wildcard_host(name, report)
    if name and "." not in name and name != "*":
        report.error(
            "invalid-host", "a short name means nothing at a gateway", "write the full name"
        )


def check_server_tls(tls: ServerTLSSettings, report: Report) -> None:
    mode, files = tls.mode, (tls.server_certificate, tls.private_key, tls.ca_certificates)
    named = tls.credential_name or tls.credential_names or tls.tls_certificates
    if any("\n" in file for file in files):
        report.error("invalid-value", "must be paths of files, not their content")
    if mode is ServerTLSMode.ISTIO_MUTUAL:
        if any(files) or named:
            report.error(
                "conflict",
                "ISTIO_MUTUAL uses the mesh's own certificates: no files, no credentialName",
            )
    elif mode in PASSING:
        if any(files) or named or tls.ca_crl:
            report.warn("unreachable", f"certificates have no effect with {mode.value}")
    else:
        _certificates(tls, report)
    order = list(TLSProtocol)
    if tls.max_protocol_version is not TLSProtocol.TLS_AUTO and order.index(
        tls.min_protocol_version
    ) > order.index(tls.max_protocol_version):
        report.at("minProtocolVersion").error(
            "out-of-range", "must not be above maxProtocolVersion"
        )
    for index, suite in enumerate(tls.cipher_suites):
        entry = report.at("cipherSuites", index)
        if suite in tls.cipher_suites[:index]:
            entry.warn("duplicate", f"{suite} stands twice")
        elif suite[:1].isalnum() and suite != "ALL" and suite not in CIPHER_SUITES:
            entry.warn("invalid-value", f"{suite} is no cipher suite that Envoy knows")


def _certificates(tls: ServerTLSSettings, report: Report) -> None:
    """Where a server that ends TLS has its certificates from: exactly one place, and whole."""
    mode, mutual = tls.mode.value, tls.mode is not ServerTLSMode.SIMPLE
    secret = bool(tls.credential_name or tls.credential_names)
    ways = (
        tls.credential_name,
        tls.credential_names,
        tls.server_certificate,
        tls.tls_certificates,
    )
    if sum(bool(way) for way in ways) > 1:
        report.error(
            "conflict",
            "only one of credentialName, credentialNames, serverCertificate and tlsCertificates may be set",
        )
    if len(tls.credential_names) > 2 or len(tls.tls_certificates) > 2:
        report.warn("too-large", "at most two certificates are used")
    pairs: list[tuple[Report, TLSCertificate | ServerTLSSettings]] = [
        (report.at("tlsCertificates", index), each)
        for index, each in enumerate(tls.tls_certificates)
    ]
    if not pairs and not secret:
        pairs = [(report, tls)]
    for entry, pair in pairs:
        for name, value in (
            ("serverCertificate", pair.server_certificate),
            ("privateKey", pair.private_key),
        ):
            if not value:
                entry.at(name).error("required", f"must be set with {mode}, or a credentialName")
    if mutual and not secret and not tls.ca_certificates and not tls.ca_cert_credential_name:
        report.at("caCertificates").error(
            "required", f"must be set with {mode}, or a credentialName"
        )
    if tls.ca_crl and not mutual and not secret:
        report.at("caCrl").error("conflict", "SIMPLE asks clients for no certificate")
