"""TLS material that changes under way: certificates are renewed while servers and channels live on."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Sequence
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


def server_context(
    material: TlsMaterial, verify: ssl.VerifyMode, alpn: Sequence[str] = ()
) -> ssl.SSLContext:
    """TLS 1.2 and later; ``verify``: whether a client's certificate, which must chain to the roots, is asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.verify_mode = verify
    context.num_tickets = 0
    if alpn:
        context.set_alpn_protocols(list(alpn))
    context.load_verify_locations(cadata=material.roots_pem.decode("ascii"))
    # OpenSSL takes the key from a file only: one without a name, which nobody else can open.
    held = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        os.write(held, material.key_pem + b"\n" + material.chain_pem)
        context.load_cert_chain(f"/proc/self/fd/{held}")
    finally:
        os.close(held)
    return context
