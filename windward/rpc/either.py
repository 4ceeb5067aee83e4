"""Plain and TLS on one port: a TLS client's first byte is 0x16, which begins no HTTP request.

    accept -> look at the first byte, without taking it -> streams, through TLS or not -> handler

Client certificates are asked for and not required: what a caller without one may see is the handler's to say.
Source: RFC 8446 section 5.1 (ContentType handshake = 22).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Self

from cryptography import x509

from windward.identity.certificate import CertificateError, identity_of
from windward.identity.spiffe_id import SpiffeId
from windward.rpc.credentials import TlsMaterial, server_context

HANDSHAKE = 0x16
FIRST_BYTE_S = 5.0
HANDSHAKE_S = 5.0
BACKLOG = 128
MOST_CONNECTIONS = 256
"""Beyond it new ones are closed at once: this is no port for crowds."""
PAUSE_S = 0.1
"""After an accept that failed, for want of file descriptors for example."""

TlsNow = Callable[[], TlsMaterial | None]
"""The material in force; None while there is none: TLS clients are turned away then."""
Connection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class EitherServer:
    """Owns its listening socket, the task that accepts, and one task a connection, until ``close``."""

    def __init__(
        self, listening: socket.socket, connection: Connection, tls: TlsNow, limit: int
    ) -> None:
        self.sockets = (listening,)
        self._connection = connection
        self._tls = tls
        self._limit = limit
        self._context: tuple[TlsMaterial, ssl.SSLContext] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept(listening))
        self._accepting.add_done_callback(lambda _: listening.close())

    @classmethod
    async def start(
        cls,
        connection: Connection,
        host: str,
        port: int,
        tls: TlsNow,
        *,
        limit: int,
        shared: bool = False,
    ) -> Self:
        """Raises OSError when the port is taken, or the host is not this machine's."""
        found = await asyncio.get_running_loop().getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listening.setblocking(False)
            listening.bind(address)
            listening.listen(BACKLOG)
        except BaseException:
            listening.close()
            raise
        return cls(listening, connection, tls, limit)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take no more connections, and end those that there are."""
        self._accepting.cancel()
        for task in self._tasks:
            task.cancel()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
            except OSError:
                await asyncio.sleep(PAUSE_S)
                continue
            if len(self._tasks) >= MOST_CONNECTIONS:
                accepted.close()
                continue
            task = asyncio.create_task(self._serve(accepted))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, accepted: socket.socket) -> None:
        """One connection, to its end; whatever is wrong with it ends it without a word."""
        writer = None
        try:
            with suppress(OSError, TimeoutError, ssl.SSLError):
                reader, writer = await self._open(accepted)
                await self._connection(reader, writer)
        finally:
            if writer is None:
                accepted.close()
            else:
                writer.close()

    async def _open(
        self, accepted: socket.socket
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(FIRST_BYTE_S):
            first = await _peek(accepted)
        context = None
        if first and first[0] == HANDSHAKE:
            context = self._tls_context()
            if context is None:
                raise ConnectionAbortedError("no certificate yet")
        reader = asyncio.StreamReader(self._limit)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol,
            accepted,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_S if context else None,
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    def _tls_context(self) -> ssl.SSLContext | None:
        """Of the material in force; made anew when that was replaced."""
        material = self._tls()
        if material is None:
            return None
        if self._context is None or self._context[0] is not material:
            self._context = (material, server_context(material, ssl.CERT_OPTIONAL))
        return self._context[1]


async def _peek(accepted: socket.socket) -> bytes:
    """The first byte, left where it is; nothing when the client is gone already."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(accepted, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(accepted)
    return accepted.recv(1, socket.MSG_PEEK)


def caller_of(writer: asyncio.StreamWriter) -> SpiffeId | None:
    """The SPIFFE id of the certificate that the caller proved to have the key of."""
    session = writer.get_extra_info("ssl_object")
    proved = session.getpeercert(binary_form=True) if session is not None else None
    if not proved:
        return None
    try:
        return identity_of(x509.load_der_x509_certificate(proved))
    except (CertificateError, ValueError):
        return None
