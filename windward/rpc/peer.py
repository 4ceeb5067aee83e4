"""Who calls: the identity that the transport proved, never what the caller says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Protocol

from cryptography import x509

from windward.identity.spiffe_id import SpiffeId, SpiffeIdError


class Caller(Protocol):
    """What grpc.aio's contexts and the calls of ``windward.rpc.http2`` have in common."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]: ...

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


def peer_identity(context: Caller) -> SpiffeId | None:
    """The SPIFFE id of an mTLS peer: its certificate's only URI SAN. None for plaintext and server-side TLS."""
    names = list(context.auth_context().get("peer_spiffe_id", ()))
    if len(names) != 1:
        return None
    try:
        return SpiffeId.parse(names[0].decode())
    except (SpiffeIdError, UnicodeDecodeError):
        return None


def peer_expiry(context: Caller) -> datetime | None:
    """When the peer's certificate ends (aware UTC); None without one."""
    found = list(context.auth_context().get("x509_pem_cert", ()))
    if not found:
        return None
    return x509.load_pem_x509_certificate(found[0]).not_valid_after_utc


def bearer_token(context: Caller) -> str | None:
    """The token of ``authorization: Bearer ...``; None without exactly one."""
    values = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    if len(values) != 1 or not isinstance(values[0], str):
        return None
    scheme, _, token = values[0].partition(" ")
    return token if scheme.lower() == "bearer" and token else None
