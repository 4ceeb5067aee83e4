"""Secrets as Envoy takes them: a certificate with its key, or trusted roots. Pure.

Written field by field, so that the agent needs no protobuf for its two messages. Source:
envoy/extensions/transport_sockets/tls/v3/{secret,common}.proto, envoy/config/core/v3/base.proto (DataSource).
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from services.agent.xds_proxy.wire import bytes_field
from windward.rpc.credentials import TlsMaterial
from windward.xds.envelope import text_field
from windward.xds.resource import SECRET

DEFAULT = "default"
ROOTCA = "ROOTCA"


@dataclass(frozen=True, slots=True)
class Secret:
    name: str
    version: str
    """16 hex digits over the content: an equal secret is not sent again."""
    any: bytes
    """The Secret in its Any, serialised."""

    def __repr__(self) -> str:
        """Never the key."""
        return f"Secret({self.name!r}, {self.version!r})"

    @property
    def entry(self) -> bytes:
        """A ``Resource`` message of incremental xDS: version = 1, resource = 2, name = 3."""
        return text_field(1, self.version) + bytes_field(2, self.any) + text_field(3, self.name)


def pair_secret(name: str, chain_pem: bytes, key_pem: bytes) -> Secret:
    """TlsCertificate = 2: certificate_chain = 1, private_key = 2."""
    certificate = bytes_field(1, _inline(chain_pem)) + bytes_field(2, _inline(key_pem))
    return _secret(name, bytes_field(2, certificate))


def roots_secret(name: str, roots_pem: bytes) -> Secret:
    """CertificateValidationContext = 4: trusted_ca = 1."""
    return _secret(name, bytes_field(4, bytes_field(1, _inline(roots_pem))))


def own_secrets(material: TlsMaterial) -> dict[str, Secret]:
    """The workload's own: ``default`` and ``ROOTCA``."""
    return {
        DEFAULT: pair_secret(DEFAULT, material.chain_pem, material.key_pem),
        ROOTCA: roots_secret(ROOTCA, material.roots_pem),
    }


def _secret(name: str, content: bytes) -> Secret:
    message = text_field(1, name) + content
    version = blake2b(message, digest_size=8).hexdigest()
    return Secret(name, version, text_field(1, SECRET) + bytes_field(2, message))


def _inline(data: bytes) -> bytes:
    """DataSource: inline_bytes = 2."""
    return bytes_field(2, data)
