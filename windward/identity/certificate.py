"""X.509-SVIDs: building them, reading them, and whether a chain and a key belong together.

Source: X509-SVID standard sections 2-5 (exactly one URI SAN, leaf without CA bit, keyUsage); RFC 5280.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from windward.identity.keys import load_key
from windward.identity.spiffe_id import SpiffeId, SpiffeIdError


class CertificateError(ValueError):
    """A certificate, chain or bundle that is not usable; says why."""


@dataclass(frozen=True, slots=True)
class Validity:
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Issuer:
    """A certificate authority's certificate and key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def load_chain(text: bytes) -> list[x509.Certificate]:
    """Every certificate of a PEM text, in order. Raises CertificateError for none."""
    try:
        return x509.load_pem_x509_certificates(text)
    except ValueError as error:
        raise CertificateError("no readable certificate in the PEM text") from error


def build_root(
    key: ec.EllipticCurvePrivateKey, trust_domain: SpiffeId, validity: Validity, serial: int
) -> x509.Certificate:
    """A self-signed root. Its URI SAN is the trust domain's id; a CA's id has no path."""
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain.trust_domain)])
    public = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    builder = _begin(name, name, public, validity, serial)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(_usage(ca=True), critical=True)
    builder = builder.add_extension(_names(trust_domain, ()), critical=False)
    builder = builder.add_extension(identifier, critical=False)
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    return builder.add_extension(authority, critical=False).sign(key, hashes.SHA256())


def build_leaf(
    issuer: Issuer,
    public_key: CertificatePublicKeyTypes,
    identity: SpiffeId,
    validity: Validity,
    serial: int,
    dns_names: Sequence[str] = (),
) -> x509.Certificate:
    """A workload's certificate: empty subject, critical SAN with the identity, both extended usages."""
    builder = _begin(x509.Name([]), issuer.certificate.subject, public_key, validity, serial)
    builder = builder.add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True
    )
    builder = builder.add_extension(_usage(ca=False), critical=True)
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    builder = builder.add_extension(_names(identity, dns_names), critical=True)
    own = x509.SubjectKeyIdentifier.from_public_key(public_key)
    builder = builder.add_extension(own, critical=False)
    found = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found)
    return builder.add_extension(authority, critical=False).sign(issuer.key, hashes.SHA256())


def identity_of(certificate: x509.Certificate) -> SpiffeId:
    """The certificate's SPIFFE id. Raises CertificateError unless it has exactly one URI SAN, and that is one."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        if len(uris) != 1:
            raise CertificateError(f"the certificate has {len(uris)} URI names, not one")
        return SpiffeId.parse(uris[0])
    except (x509.ExtensionNotFound, x509.DuplicateExtension, SpiffeIdError, ValueError) as error:
        if isinstance(error, CertificateError):
            raise
        raise CertificateError(f"the certificate names no SPIFFE id: {error}") from error


def check_svid(
    chain_pem: bytes, key_pem: bytes, roots_pem: bytes, identity: SpiffeId, now: datetime
) -> x509.Certificate:
    """The leaf of a chain, if everything about it holds. Raises CertificateError.

    It must name the identity, be valid now, belong to the key, and chain to one of the roots.
    """
    chain = load_chain(chain_pem)
    leaf = chain[0]
    if identity_of(leaf) != identity:
        raise CertificateError(f"the certificate is {identity_of(leaf)}'s, not {identity}'s")
    try:
        public = load_key(key_pem).public_key()
    except ValueError as error:
        raise CertificateError(str(error)) from error
    if public != leaf.public_key():
        raise CertificateError("the key does not belong to the certificate")
    check_chain(chain, load_chain(roots_pem), now)
    return leaf


def check_chain(
    chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], now: datetime
) -> None:
    """Each certificate signed by the next, the last by a root, all valid now. Raises CertificateError."""
    for certificate in chain:
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise CertificateError(
                f"the certificate is valid from {certificate.not_valid_before_utc} "
                f"to {certificate.not_valid_after_utc}, not now"
            )
    for issued, issuer in pairwise(chain):
        if not _signed_by(issued, issuer):
            raise CertificateError("the chain is broken")
    anchored = chain[-1] in roots or any(_signed_by(chain[-1], root) for root in roots)
    if not anchored:
        raise CertificateError("the chain does not end at a trusted root")


def _signed_by(issued: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        issued.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _begin(
    subject: x509.Name,
    issuer: x509.Name,
    key: CertificatePublicKeyTypes,
    validity: Validity,
    serial: int,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.not_valid_before(validity.not_before).not_valid_after(validity.not_after)
    return builder.serial_number(serial)


def _names(identity: SpiffeId, dns_names: Sequence[str]) -> x509.SubjectAlternativeName:
    uri = x509.UniformResourceIdentifier(str(identity))
    return x509.SubjectAlternativeName([uri, *(x509.DNSName(name) for name in dns_names)])


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=not ca,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
