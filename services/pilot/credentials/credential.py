"""A gateway's certificate with its key, and the roots of the clients that it lets in. Pure.

tls.crt, tls.key, ca.crt -> Credential, checked whole -> Secret resources

Names of secrets are Istio's (pilot/pkg/credentials): ``kubernetes://NAME`` the pair, ``kubernetes://NAME-cacert`` the roots.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates
from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2

from windward.identity.certificate import CertificateError, load_chain
from windward.xds.resource import SECRET, Origin, Resource

CredentialName = tuple[str, str]
"""(namespace, name)."""
CHAIN, KEY, ROOTS = "tls.crt", "tls.key", "ca.crt"
SCHEME: Final = "kubernetes://"
ROOTS_SUFFIX: Final = "-cacert"
SHORTEST_RSA_BITS: Final = 2048
CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")
"""What Envoy takes (source/common/tls/context_impl.cc); it refuses other keys together with all secrets of the response."""


class CredentialError(ValueError):
    """Files that make no credential; says which and why, never what is in them."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A pair, roots, or both."""

    chain_pem: bytes = b""
    key_pem: bytes = field(default=b"", repr=False)
    roots_pem: bytes = b""

    def __repr__(self) -> str:
        return "Credential([redacted])"


def credential(chain_pem: bytes, key_pem: bytes, roots_pem: bytes) -> Credential:
    """Of three files, an absent one empty. Raises CredentialError for a pair that is none, and for unreadable roots."""
    if not (chain_pem or key_pem or roots_pem):
        raise CredentialError(f"neither {CHAIN} with {KEY} nor {ROOTS} is there")
    if chain_pem or key_pem:
        _check_pair(chain_pem, key_pem)
    if roots_pem:
        try:
            load_pem_x509_certificates(roots_pem)
        except ValueError as error:
            raise CredentialError(f"{ROOTS}: not certificates in PEM") from error
    return Credential(chain_pem, key_pem, roots_pem)


def _check_pair(chain_pem: bytes, key_pem: bytes) -> None:
    for name, content in ((CHAIN, chain_pem), (KEY, key_pem)):
        if not content:
            raise CredentialError(f"{name} is missing or empty")
    try:
        certificate = load_chain(chain_pem)[0]
    except CertificateError as error:
        raise CredentialError(f"{CHAIN}: {error}") from error
    try:
        key = load_pem_private_key(key_pem, None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise CredentialError(f"{KEY}: not an unencrypted private key in PEM") from error
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < SHORTEST_RSA_BITS:
            raise CredentialError(f"{KEY}: an RSA key has at least {SHORTEST_RSA_BITS} bits")
    elif not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise CredentialError(f"{KEY}: Envoy takes RSA keys, and ECDSA keys on P-256, P-384, P-521")
    if key.public_key() != certificate.public_key():
        raise CredentialError(f"{KEY}: does not belong to the certificate in {CHAIN}")


def pair_name(name: str) -> str:
    return SCHEME + name


def roots_name(name: str) -> str:
    return SCHEME + name + ROOTS_SUFFIX


def pair_resource(name: str, held: Credential, origins: tuple[Origin, ...]) -> Resource:
    secret = secret_pb2.Secret(
        name=pair_name(name),
        tls_certificate=common_pb2.TlsCertificate(
            certificate_chain=base_pb2.DataSource(inline_bytes=held.chain_pem),
            private_key=base_pb2.DataSource(inline_bytes=held.key_pem),
        ),
    )
    return _resource(secret, origins)


def roots_resource(name: str, held: Credential, origins: tuple[Origin, ...]) -> Resource:
    secret = secret_pb2.Secret(
        name=roots_name(name),
        validation_context=common_pb2.CertificateValidationContext(
            trusted_ca=base_pb2.DataSource(inline_bytes=held.roots_pem)
        ),
    )
    return _resource(secret, origins)


def redacted(body: bytes) -> bytes:
    """A Secret as people may see it: the certificate stays, the key does not."""
    secret = secret_pb2.Secret.FromString(body)
    if secret.HasField("tls_certificate"):
        secret.tls_certificate.private_key.Clear()
        secret.tls_certificate.private_key.inline_string = "[redacted]"
    return secret.SerializeToString(deterministic=True)


def _resource(secret: secret_pb2.Secret, origins: tuple[Origin, ...]) -> Resource:
    return Resource(SECRET, secret.name, secret.SerializeToString(deterministic=True), origins)
