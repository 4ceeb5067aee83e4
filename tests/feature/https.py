"""Requests by HTTPS of which the server's certificate matters."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_der_x509_certificate

from tests.unit.rpc.pki import Authority
from windward.rpc.credentials import TlsMaterial

WEB = Authority()
"""Who signs what gateways show to the world."""


def trusting(client: TlsMaterial | None = None, folder: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=WEB.roots_pem.decode())
    if client is not None and folder is not None:
        path = folder / "client.pem"
        path.write_bytes(client.chain_pem + client.key_pem)
        context.load_cert_chain(path)
    return context


async def asked(
    context: ssl.SSLContext, host: str, port: int, name: str, path: str = "/"
) -> tuple[str, bytes]:
    """One request on a connection of its own: the status, and the fingerprint of the server's certificate."""
    reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=name)
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.write(f"GET {path} HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n".encode())
        line = (await reader.readline()).decode()
    finally:
        writer.close()
    words = line.split()
    status = words[1] if len(words) > 1 else line
    return status, load_der_x509_certificate(der).fingerprint(SHA256())
