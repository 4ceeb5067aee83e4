"""TLS material that changes under way: certificates are renewed while servers and channels live on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """PEM bytes: the own chain (leaf first), its key, and the roots that peers must chain to."""

    chain_pem: bytes
    key_pem: bytes
    roots_pem: bytes

    def __repr__(self) -> str:
        """Never the key."""
        return f"TlsMaterial({len(self.chain_pem)} bytes of chain, {len(self.roots_pem)} bytes of roots)"


class TlsSource:
    """Holds the material in force. One writer replaces it; servers and channels read it."""

    def __init__(self, material: TlsMaterial) -> None:
        self._material = material
        self._sequence = 1
        self._changed = asyncio.Event()

    @property
    def current(self) -> TlsMaterial:
        return self._material

    @property
    def sequence(self) -> int:
        """Rises with every replacement."""
        return self._sequence

    def replace(self, material: TlsMaterial) -> None:
        """Put new material in force; the same material changes nothing."""
        if material == self._material:
            return
        self._material = material
        self._sequence += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self, after_sequence: int) -> TlsMaterial:
        """Wait for material newer than a sequence number."""
        while self._sequence <= after_sequence:
            await self._changed.wait()
        return self._material
