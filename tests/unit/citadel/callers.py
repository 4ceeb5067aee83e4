"""Callers as the transport would show them to Citadel."""

from __future__ import annotations

from typing import Any

from windward.identity.spiffe_id import SpiffeId

PEER = "ipv4:127.0.0.1:50000"


class Caller:
    """A servicer context: who calls by certificate, and with what metadata."""

    def __init__(self, *names: SpiffeId | bytes, metadata: Any = ()) -> None:
        self._names = [name if isinstance(name, bytes) else str(name).encode() for name in names]
        self._metadata = metadata

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"peer_spiffe_id": self._names} if self._names else {}

    def invocation_metadata(self) -> Any:
        return self._metadata

    def peer(self) -> str:
        return PEER


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)
