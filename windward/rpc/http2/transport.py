"""One accepted socket, with TLS or without, as a Connection's transport. Non-blocking, straight from OpenSSL to the kernel.

shake hands (TLS) ─► Connection.receive(bytes) ... write(bytes) ─► the kernel, or in memory until it takes them
"""

from __future__ import annotations

import socket
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from cryptography import x509

from windward.identity.certificate import CertificateError, identity_of
from windward.rpc.http2.connection import Connection
from windward.rpc.http2.poller import READ, WRITE, Poller
from windward.rpc.peer import EXPIRY

RECORD: Final = 16_384
"""The most that a TLS record holds."""
READS: Final = 4
"""Records of one socket before others get their turn."""
BURST: Final = 128 * 1024
"""Bytes that one socket gets before others get their turn: a client that reads as fast as it is written to takes megabytes."""
FULL: Final = 64 * 1024
"""Bytes that may wait in memory before responses are better made later."""
Make = Callable[["SocketTransport"], Connection]


class SocketTransport:
    __slots__ = (
        "_auth",
        "_burst",
        "_closing",
        "_connection",
        "_descriptor",
        "_events",
        "_lost",
        "_make",
        "_poller",
        "_shaking",
        "_size",
        "_socket",
        "_tls",
        "_unsent",
        "full",
        "heard_at",
        "now",
        "peer",
    )

    def __init__(
        self,
        accepted: socket.socket,
        peer: str,
        poller: Poller,
        make: Make,
        lost: Callable[[SocketTransport], None],
        now: Callable[[], float],
    ) -> None:
        """``make``: the connection, once hands are shaken. ``lost`` is told when the socket is closed."""
        self._socket = accepted
        self._tls = isinstance(accepted, ssl.SSLSocket)
        self._descriptor = accepted.fileno()
        self._poller = poller
        self._make = make
        self._lost = lost
        self._connection: Connection | None = None
        self._shaking = self._tls
        self._closing = False
        self._unsent: deque[memoryview] = deque()
        self._size = 0
        self._burst = 0
        self._events = READ
        self._auth: dict[str, list[bytes]] | None = None
        self.full = False
        self.peer = peer
        self.now = now
        self.heard_at = now()
        """When the peer was heard last; seconds, monotonic."""
        poller.register(self._descriptor, self._ready)
        if not self._tls:
            self._connection = make(self)

    @property
    def connection(self) -> Connection | None:
        """None while hands are being shaken."""
        return self._connection

    @property
    def closing(self) -> bool:
        """Only what was written is still to go."""
        return self._closing

    def auth_context(self) -> dict[str, list[bytes]]:
        """What the peer's certificate says, read once: its SPIFFE id, only where it has one URI and that is one, and its end."""
        if self._auth is None:
            self._auth = _auth_of(self._socket) if isinstance(self._socket, ssl.SSLSocket) else {}
        return self._auth

    # ---- the kernel's side ------------------------------------------------------------------------------------------

    def _ready(self, events: int) -> None:
        self._burst = 0
        if self._shaking:
            self._shake()
            return
        if events & WRITE:
            self._flush()
        if events & ~WRITE and self._descriptor >= 0:
            if self._closing:
                self._read_away()
            else:
                self._read()

    def _shake(self) -> None:
        assert isinstance(self._socket, ssl.SSLSocket)
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(READ)
            return
        except ssl.SSLWantWriteError:
            self._watch(WRITE)
            return
        except OSError:
            self.abort()
            return
        if self._socket.selected_alpn_protocol() != "h2":
            self.abort()
            return
        self._shaking = False
        self._watch(READ)
        self._connection = self._make(self)
        self._read()

    def _read(self) -> None:
        connection, sock = self._connection, self._socket
        assert connection is not None
        self.heard_at = self.now()
        for _ in range(READS):
            try:
                data = sock.recv(RECORD)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                return
            except OSError:
                data = b""
            if not data:
                self.abort()
                return
            connection.receive(data)
            if self._descriptor < 0 or self._closing:
                return
            if not isinstance(sock, ssl.SSLSocket) or not sock.pending():
                return
        self._poller.again(self._descriptor)

    def _read_away(self) -> None:
        """Nothing more is wanted of a peer that is being left; its own end is."""
        try:
            if self._socket.recv(RECORD):
                return
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            return
        except OSError:
            pass
        self.abort()

    # ---- the connection's side --------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._descriptor < 0:
            return
        if self._unsent:
            self._keep(memoryview(data))
            return
        rest = self._send(memoryview(data) if len(data) > RECORD else data)
        if rest is not None:
            self._keep(rest)
            self._watch(READ | WRITE)

    def _send(self, data: bytes | memoryview) -> memoryview | None:
        """What the kernel did not take, or has to wait for the poller's next turn; None for nothing.

        Of a broken socket all is taken: reading tells that it is.
        """
        while data:
            if self._burst >= BURST:
                return memoryview(data)
            try:
                sent = self._socket.send(data[:RECORD] if len(data) > RECORD else data)
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError, BlockingIOError):
                return memoryview(data)
            except OSError:
                return None
            self._burst += sent
            if sent == len(data):
                return None
            data = memoryview(data)[sent:]
        return None

    def _keep(self, rest: memoryview) -> None:
        self._unsent.append(rest)
        self._size += len(rest)
        self.full = self._size >= FULL

    def _flush(self) -> None:
        unsent = self._unsent
        while unsent:
            first = unsent[0]
            rest = self._send(first)
            self._size -= len(first) - (len(rest) if rest is not None else 0)
            if rest is not None:
                unsent[0] = rest
                break
            unsent.popleft()
        was_full, self.full = self.full, self._size >= FULL
        if not unsent:
            self._watch(READ)
            if self._closing:
                self.abort()
                return
        if was_full and not self.full and self._connection is not None:
            self._connection.drained()

    def _watch(self, events: int) -> None:
        if events != self._events and self._descriptor >= 0:
            self._events = events
            self._poller.modify(self._descriptor, events)

    def close(self) -> None:
        """After what was written has gone."""
        self._closing = True
        self.heard_at = self.now()
        if not self._unsent:
            self.abort()

    def abort(self) -> None:
        """Now."""
        if self._descriptor < 0:
            return
        self._poller.unregister(self._descriptor)
        self._descriptor = -1
        self._unsent.clear()
        self._socket.close()
        connection = self._connection
        if connection is not None:
            if not connection.closed:
                connection.lost()
            connection.let_go()
        self._lost(self)


def _auth_of(session: ssl.SSLSocket) -> dict[str, list[bytes]]:
    auth = {"transport_security_type": [b"ssl"]}
    proved = session.getpeercert(binary_form=True)
    if proved:
        certificate = x509.load_der_x509_certificate(proved)
        auth[EXPIRY] = [certificate.not_valid_after_utc.isoformat().encode()]
        with suppress(CertificateError):
            auth["peer_spiffe_id"] = [str(identity_of(certificate)).encode()]
    return auth
