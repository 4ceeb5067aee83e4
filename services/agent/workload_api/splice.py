"""Bytes from an attested connection to the server of its identity and back, with back-pressure in both directions.

    workload <──socket──> Side ══ Side <──private socket──> gRPC server of one identity

Before anything is passed on, the peer must still be who it was when it connected: a process may run another program.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

CONNECT_S = 5.0
LINGER_S = 1.0


class _Side(asyncio.Protocol):
    """One of the two ends."""

    def __init__(self, still: Callable[[], bool], ended: asyncio.Event) -> None:
        self._still = still
        self._ended = ended
        self.other: _Side | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.pause_reading()  # until there is somebody to pass it on to

    def data_received(self, data: bytes) -> None:
        to = self.other.transport if self.other else None
        if to is None or not self._still():
            self._ended.set()
            return
        to.write(data)

    def pause_writing(self) -> None:
        if self.other and self.other.transport:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other and self.other.transport:
            self.other.transport.resume_reading()

    def connection_lost(self, _: Exception | None) -> None:
        self._ended.set()


async def splice(
    connection: socket.socket, private: str, still: Callable[[], bool], ended: asyncio.Event
) -> None:
    """Until one end closes, ``ended`` is set, or ``still`` says no. Owns the connection. Raises OSError, TimeoutError."""
    loop = asyncio.get_running_loop()
    near, far = _Side(still, ended), _Side(still, ended)
    try:
        async with asyncio.timeout(CONNECT_S):
            await loop.create_unix_connection(lambda: far, private)
        near.other, far.other = far, near
        if still():
            await loop.connect_accepted_socket(lambda: near, connection)
            for side in (near, far):
                if side.transport is not None:
                    side.transport.resume_reading()
            await ended.wait()
    finally:
        for side in (near, far):
            if side.transport is not None:
                # What one end had sent before it closed still goes to the other; a peer in doubt gets nothing more.
                side.transport.close()
                if still():
                    loop.call_later(LINGER_S, side.transport.abort)
                else:
                    side.transport.abort()
        if near.transport is None:
            connection.close()
