"""How a server of a gateway speaks TLS: the transport socket of its filter chain, and the secrets that it needs from Pilot.

Source: istio pilot/pkg/networking/core/gateway.go (buildGatewayListenerTLSContext); Envoy tls.proto, common.proto.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from envoy.config.core.v3 import base_pb2, config_source_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2

from services.pilot.credentials.credential import (
    ROOTS_SUFFIX,
    Credential,
    CredentialName,
    pair_name,
    pair_resource,
    roots_name,
    roots_resource,
)
from services.pilot.envoy.common import ads, pack, sds
from services.pilot.envoy.tls import TRANSPORT_SOCKET
from windward.config.gateway import CIPHER_SUITES, ServerTLSMode, ServerTLSSettings, TLSProtocol
from windward.xds.resource import Origin, Resource

MOST_CERTIFICATES = 2
ALPN = ("h2", "http/1.1")
Params = common_pb2.TlsParameters
SanMatcher = common_pb2.SubjectAltNameMatcher
KINDS_OF_NAMES = (SanMatcher.DNS, SanMatcher.URI, SanMatcher.EMAIL, SanMatcher.IP_ADDRESS)
PROTOCOLS = {
    TLSProtocol.TLS_AUTO: Params.TLS_AUTO,
    TLSProtocol.TLSV1_0: Params.TLSv1_0,
    TLSProtocol.TLSV1_1: Params.TLSv1_1,
    TLSProtocol.TLSV1_2: Params.TLSv1_2,
    TLSProtocol.TLSV1_3: Params.TLSv1_3,
}
MUTUAL = frozenset(
    {ServerTLSMode.MUTUAL, ServerTLSMode.OPTIONAL_MUTUAL, ServerTLSMode.ISTIO_MUTUAL}
)


class NoCredential(Exception):
    """A credential that the gateway's namespace does not have (yet); its name is the argument."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a server's secrets are made of, by name."""

    pairs: tuple[tuple[str, Credential], ...] = ()
    roots: tuple[str, Credential] | None = None


@dataclass(frozen=True, slots=True)
class Credentials:
    """Those of one gateway's namespace: what others may have is out of reach."""

    held: Mapping[CredentialName, Credential]
    namespace: str

    def pair(self, name: str) -> Credential:
        found = self.held.get((self.namespace, name))
        if found is None or not found.key_pem:
            raise NoCredential(name)
        return found

    def roots(self, name: str) -> Credential:
        """From the credential's own ca.crt, or that of ``NAME-cacert`` beside it."""
        for candidate in (name, name + ROOTS_SUFFIX):
            found = self.held.get((self.namespace, candidate))
            if found is not None and found.roots_pem:
                return found
        raise NoCredential(name)

    def of(self, settings: ServerTLSSettings) -> Held:
        """Those that a server needs. Raises NoCredential: Envoy would hold back the whole listener until the secret came."""
        names = credential_names(settings)
        pairs = tuple((name, self.pair(name)) for name in names[:MOST_CERTIFICATES])
        if settings.mode not in MUTUAL or _roots_file(settings):
            return Held(pairs)
        owner = settings.ca_cert_credential_name or names[0]
        return Held(pairs, (owner, self.roots(owner)))


@dataclass(frozen=True, slots=True)
class ServerTLS:
    socket: base_pb2.TransportSocket
    secrets: tuple[Resource, ...]


def server_tls(
    settings: ServerTLSSettings, held: Held, trust_domain: str, origins: tuple[Origin, ...]
) -> ServerTLS:
    secrets: list[Resource] = []
    common = tls_pb2.CommonTlsContext(alpn_protocols=ALPN, tls_params=_parameters(settings))
    for name, pair in held.pairs:
        secrets.append(pair_resource(name, pair, origins))
        common.tls_certificate_sds_secret_configs.append(_secret(pair_name(name), ads()))
    for name in _agents_pairs(settings)[:MOST_CERTIFICATES]:
        common.tls_certificate_sds_secret_configs.append(_secret(name, sds()))
    context = tls_pb2.DownstreamTlsContext()
    if settings.mode in MUTUAL:
        roots, source = _roots_file(settings), sds()
        if held.roots is not None:
            owner, credential = held.roots
            secrets.append(roots_resource(owner, credential, origins))
            roots, source = roots_name(owner), ads()
        combined = common.combined_validation_context
        combined.default_validation_context.CopyFrom(_clients(settings, trust_domain))
        combined.validation_context_sds_secret_config.CopyFrom(_secret(roots, source))
        context.require_client_certificate.value = (
            settings.mode is not ServerTLSMode.OPTIONAL_MUTUAL
        )
    context.common_tls_context.CopyFrom(common)
    made = base_pb2.TransportSocket(name=TRANSPORT_SOCKET, typed_config=pack(context))
    return ServerTLS(made, tuple(secrets))


def credential_names(settings: ServerTLSSettings) -> tuple[str, ...]:
    """Of certificates with their keys."""
    return settings.credential_names or tuple(filter(None, (settings.credential_name,)))


def _agents_pairs(settings: ServerTLSSettings) -> list[str]:
    """Names by which the gateway's own agent serves certificates: of files beside it, or the workload's own."""
    if settings.mode is ServerTLSMode.ISTIO_MUTUAL:
        return ["default"]
    files = [(pair.server_certificate, pair.private_key) for pair in settings.tls_certificates]
    if settings.server_certificate:
        files.append((settings.server_certificate, settings.private_key))
    return [f"file-cert:{chain}~{key}" for chain, key in files]


def _roots_file(settings: ServerTLSSettings) -> str:
    """The agent's name for the roots; empty: Pilot has them."""
    if settings.mode is ServerTLSMode.ISTIO_MUTUAL:
        return "ROOTCA"
    return f"file-root:{settings.ca_certificates}" if settings.ca_certificates else ""


def _secret(name: str, source: config_source_pb2.ConfigSource) -> secret_pb2.SdsSecretConfig:
    return secret_pb2.SdsSecretConfig(name=name, sds_config=source)


def _clients(
    settings: ServerTLSSettings, trust_domain: str
) -> common_pb2.CertificateValidationContext:
    """Whom to let in: by name of any kind, as users do not say of which; the mesh's own by trust domain at least."""
    matchers: list[common_pb2.SubjectAltNameMatcher] = []
    for name in settings.subject_alt_names:
        exact = string_pb2.StringMatcher(exact=name)
        matchers += [SanMatcher(san_type=kind, matcher=exact) for kind in KINDS_OF_NAMES]
    if settings.mode is ServerTLSMode.ISTIO_MUTUAL and not matchers:
        prefix = string_pb2.StringMatcher(prefix=f"spiffe://{trust_domain}/")
        matchers.append(SanMatcher(san_type=SanMatcher.URI, matcher=prefix))
    return common_pb2.CertificateValidationContext(
        match_typed_subject_alt_names=matchers,
        verify_certificate_spki=settings.verify_certificate_spki,
        verify_certificate_hash=settings.verify_certificate_hash,
    )


def _parameters(settings: ServerTLSSettings) -> common_pb2.TlsParameters:
    """TLS 1.2 and up unless told otherwise; suites that Envoy does not know were warned of, and would spoil the listener."""
    least, most = settings.min_protocol_version, settings.max_protocol_version
    return Params(
        tls_minimum_protocol_version=Params.TLSv1_2
        if least is TLSProtocol.TLS_AUTO
        else PROTOCOLS[least],
        tls_maximum_protocol_version=PROTOCOLS[most],
        cipher_suites=[suite for suite in settings.cipher_suites if suite in CIPHER_SUITES],
    )
