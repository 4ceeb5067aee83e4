"""Who calls: the identity that the transport proved, never what the caller says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, Protocol

from cryptography import x509

from windward.identity.spiffe_id import SpiffeId, SpiffeIdError

EXPIRY: Final = "windward_not_after"
"""Where a transport of ours, which has read the peer's certificate, says when it ends: ISO 8601. gRPC's gives the certificate."""


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
    auth = context.auth_context()
    if read := list(auth.get(EXPIRY, ())):
        return datetime.fromisoformat(read[0].decode())
    found = list(auth.get("x509_pem_cert", ()))
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
