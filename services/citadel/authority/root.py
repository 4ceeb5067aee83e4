"""The root: made once for a mesh, however many replicas start at once, and kept sealed in the store.

get -> present: unseal, check
    -> absent: make, create if still absent; whoever loses that race takes the winner's
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from services.citadel.authority.sealing import seal, unseal
from windward.identity import certificate as certificates
from windward.identity.certificate import Issuer, Validity
from windward.identity.keys import key_pem, load_key, new_key
from windward.identity.spiffe_id import SpiffeId
from windward.store.errors import Conflict
from windward.store.keys import CA
from windward.store.protocol import Store, Transaction, Unchanged, Write

ROOT_KEY = CA + "root"
BACKDATED = timedelta(minutes=2)
"""Clocks differ: certificates are valid from a little before they were made."""


class RootRecord(msgspec.Struct, frozen=True, kw_only=True):
    """As it lies in the store."""

    certificate_pem: bytes
    sealed_key: bytes
    schema: int = 1


@dataclass(frozen=True, slots=True)
class Root:
    issuer: Issuer
    revision: int

    @property
    def pem(self) -> bytes:
        return certificates.pem(self.issuer.certificate)


async def load_or_create(
    store: Store,
    encryption_key: bytes,
    trust_domain: str,
    ttl_s: float,
    now: Callable[[], datetime],
) -> Root:
    """The mesh's root. Raises SealingError for a wrong key, CertificateError for a root of another trust domain."""
    while True:
        entry = await store.get(ROOT_KEY)
        if entry is not None:
            return _open(entry.value, entry.mod_revision, encryption_key, trust_domain)
        key = new_key()
        validity = Validity(now() - BACKDATED, now() + timedelta(seconds=ttl_s))
        domain = SpiffeId.parse(f"spiffe://{trust_domain}")
        certificate = certificates.build_root(key, domain, validity, new_serial())
        record = RootRecord(
            certificate_pem=certificates.pem(certificate),
            sealed_key=seal(encryption_key, key_pem(key), ROOT_KEY),
        )
        write = Write(ROOT_KEY, msgspec.json.encode(record))
        try:
            await store.commit(Transaction((write,), (Unchanged(ROOT_KEY, 0),)))
        except Conflict:
            continue  # another replica was first: take its root


def _open(value: bytes, revision: int, encryption_key: bytes, trust_domain: str) -> Root:
    record = msgspec.json.decode(value, type=RootRecord)
    key = load_key(unseal(encryption_key, record.sealed_key, ROOT_KEY))
    certificate = certificates.load_chain(record.certificate_pem)[0]
    identity = certificates.identity_of(certificate)
    if identity.trust_domain != trust_domain:
        raise certificates.CertificateError(
            f"the root in the store belongs to trust domain {identity.trust_domain}, not {trust_domain}"
        )
    return Root(Issuer(certificate, key), revision)


def new_serial() -> int:
    """A random 128-bit serial number, never 0 (RFC 5280, 4.1.2.2)."""
    return secrets.randbits(127) | 1
