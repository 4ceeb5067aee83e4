"""Signing: an authenticated identity and a request in, a chain out. Pure but for the serial number.

The request's own names are never believed: the caller's identity is what is signed. Lifetimes: nothing asked means the
default, more than the maximum is refused (never shortened in silence), and no certificate outlives its signer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from services.citadel.authority.root import BACKDATED, Root, new_serial
from windward.identity import certificate as certificates
from windward.identity.certificate import Validity
from windward.identity.csr import check_strictly, load_csr
from windward.identity.names import CONTROL_PLANE_DNS, ROOT_NAMESPACE
from windward.identity.spiffe_id import SpiffeId


class TtlError(ValueError):
    """A lifetime that is not granted."""


class ExpiredAuthorityError(Exception):
    """The signing certificate has expired: nothing can be issued."""


@dataclass(frozen=True, slots=True)
class Policy:
    default_ttl_s: float
    max_ttl_s: float
    strict: bool


@dataclass(frozen=True, slots=True)
class Issued:
    certificate: x509.Certificate
    chain: tuple[str, ...]
    """PEM, leaf first, the root last: ``cert_chain`` of the wire."""


def issue(
    root: Root, policy: Policy, identity: SpiffeId, csr_pem: bytes, asked_s: int, now: datetime
) -> Issued:
    """Raises CsrError, TtlError or ExpiredAuthorityError."""
    request = load_csr(csr_pem)
    if policy.strict:
        check_strictly(request, identity)
    lifetime_s = granted_lifetime_s(policy, asked_s)
    ends = root.issuer.certificate.not_valid_after_utc
    if ends <= now:
        raise ExpiredAuthorityError(f"the root expired at {ends}")
    validity = Validity(now - BACKDATED, min(now + timedelta(seconds=lifetime_s), ends))
    leaf = certificates.build_leaf(
        root.issuer, request.public_key(), identity, validity, new_serial(), dns_names(identity)
    )
    return Issued(leaf, (certificates.pem(leaf).decode(), root.pem.decode()))


def granted_lifetime_s(policy: Policy, asked_s: int) -> float:
    """Seconds; Python's integers do not wrap, so 2^62 is simply too long. Raises TtlError."""
    if asked_s <= 0:
        return policy.default_ttl_s
    if asked_s > policy.max_ttl_s:
        raise TtlError(
            f"the requested TTL of {asked_s} s is longer than the maximum of {policy.max_ttl_s:.0f} s"
        )
    return float(asked_s)


def dns_names(identity: SpiffeId) -> tuple[str, ...]:
    """The control plane's own services carry a DNS name, by which gRPC clients know them; nobody else does."""
    if identity.namespace != ROOT_NAMESPACE:
        return ()
    name = CONTROL_PLANE_DNS.get(identity.service_account)
    return (name,) if name else ()
