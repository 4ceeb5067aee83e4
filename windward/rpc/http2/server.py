"""The server: ports, who may call what, how long calls and connections live.

    accept ─► Transport ─► Connection ─► Call ─► a task: behaviour, then the status of how it ended

A peer that is gone is noticed by pings (30 s + 10 s); a connection without a call is closed after five minutes; one that
says nothing at all after 20 s. Certificates are those in force at each handshake.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc

from windward.process import FatalError
from windward.rpc.credentials import TlsMaterial, TlsSource, server_context
from windward.rpc.errors import status_of
from windward.rpc.http2.call import Call
from windward.rpc.http2.connection import Connection, Limits
from windward.rpc.http2.context import Behaviour, behaviour_of
from windward.rpc.http2.frames import Code
from windward.rpc.http2.poller import LITTLE_S, SLICE_S, Poller
from windward.rpc.http2.transport import SocketTransport
from windward.rpc.server import check_local
from windward.slices import Work, in_slices
from windward.telemetry.logging import get_logger

log = get_logger()
BACKLOG: Final = 1024
ACCEPTS: Final = 8
"""Connections that are accepted before others get their turn."""
PAUSE_S: Final = 0.1
"""After an accept that failed, for want of file descriptors for example."""
SWEEP_S: Final = 1.0
BEGIN_S: Final = 20.0
QUIET_S: Final = 30.0
PONG_S: Final = 10.0
IDLE_S: Final = 300.0
CLOSE_S: Final = 10.0
UNIX: Final = "unix:"
LARGEST_PORT: Final = 65_535
Tls = Callable[[], ssl.SSLContext | None]
"""The context of the next handshake; None for a port without TLS."""


class Http2Server:
    """Use as grpc.aio's: add services, listen, start, stop. One owner; everything happens on its event loop."""

    def __init__(self, *, shared: bool = False, limits: Limits = Limits()) -> None:  # noqa: B008  frozen
        """``shared``: other processes serve the same ports."""
        self._loop = asyncio.get_running_loop()
        self._poller = Poller(self._loop)
        self._shared = shared
        self._limits = limits
        self._generic: list[Any] = []
        self._behaviours: dict[str, Behaviour] = {}
        self._listening: list[tuple[socket.socket, Tls]] = []
        self._transports: set[SocketTransport] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeping: asyncio.Task[None] | None = None
        self._stopping = False
        self._closed = asyncio.Event()

    @property
    def calls(self) -> int:
        """Calls whose behaviour has not ended."""
        return len(self._tasks)

    @property
    def connections(self) -> frozenset[SocketTransport]:
        """Those that are open, and those that are on the way."""
        return frozenset(self._transports)

    def read_little(self, little: bool) -> None:
        """While this is so, what comes in gets a fifth of the time that it gets otherwise: there is much to send."""
        self._poller.slice_s = LITTLE_S if little else SLICE_S

    # ---- what is served -----------------------------------------------------------------------------------------------

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """As generated code calls it."""
        self._generic += handlers

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """As generated code calls it."""
        for name, handler in handlers.items():
            self._behaviours[f"/{service}/{name}"] = behaviour_of(handler)

    def add_behaviours(self, behaviours: Mapping[str, Behaviour]) -> None:
        """Calls as they are, by ``/package.Service/Method``."""
        self._behaviours |= behaviours

    def _behaviour(self, call: Call) -> Behaviour | None:
        method = call.method
        if method not in self._behaviours:
            details = _Details(method, call.invocation_metadata())
            for generic in self._generic:
                if (handler := generic.service(details)) is not None:
                    self._behaviours[method] = behaviour_of(handler)
                    break
        return self._behaviours.get(method)

    # ---- ports --------------------------------------------------------------------------------------------------------

    def listen_mtls(self, address: str, source: TlsSource, *, setting: str) -> int:
        """Serve callers that prove themselves by a certificate under the source's roots. The port."""
        return self._listen(address, Certified(source, require_client=True), setting)

    def listen_tls(self, address: str, source: TlsSource, *, setting: str) -> int:
        """Serve with a server certificate, asking callers for none. The port."""
        return self._listen(address, Certified(source, require_client=False), setting)

    def listen_plaintext(self, address: str, *, setting: str) -> int:
        """Serve without TLS, on loopback and unix sockets only. The port; 0 for a unix socket."""
        check_local(address, setting)
        return self._listen(address, lambda: None, setting)

    def _listen(self, address: str, tls: Tls, setting: str) -> int:
        """Bind; what connects is accepted after ``start``. FatalError for an address that is taken, or not this machine's."""
        try:
            made = _bound(address, shared=self._shared)
        except (OSError, ValueError, UnicodeError) as error:
            raise FatalError(
                f"{setting} {address}: in use, or not an address of this machine; choose another one"
            ) from error
        self._listening.append((made, tls))
        return 0 if made.family == socket.AF_UNIX else int(made.getsockname()[1])

    async def start(self) -> None:
        for listening, tls in self._listening:
            listening.listen(BACKLOG)
            self._loop.add_reader(listening, self._accept, listening, tls)
        self._sweeping = self._loop.create_task(self._sweep_for_ever())

    def _accept(self, listening: socket.socket, tls: Tls) -> None:
        for _ in range(ACCEPTS):
            try:
                accepted, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("rpc.not_accepted", reason=str(error))
                self._loop.remove_reader(listening)
                self._loop.call_later(PAUSE_S, self._accept_again, listening, tls)
                return
            try:
                self._open(accepted, address, tls())
            except OSError:
                accepted.close()

    def _accept_again(self, listening: socket.socket, tls: Tls) -> None:
        if not self._stopping:
            self._loop.add_reader(listening, self._accept, listening, tls)

    def _open(self, accepted: socket.socket, address: Any, tls: ssl.SSLContext | None) -> None:
        accepted.setblocking(False)
        if accepted.family != socket.AF_UNIX:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            accepted = tls.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        peer = _peer(accepted.family, address)
        self._transports.add(
            SocketTransport(
                accepted, peer, self._poller, self._connection, self._lost, self._loop.time
            )
        )

    def _connection(self, transport: SocketTransport) -> Connection:
        return Connection(transport, self._call, self._loop.time, self._limits)

    def _lost(self, transport: SocketTransport) -> None:
        self._transports.discard(transport)
        if self._stopping and not self._transports:
            self._closed.set()

    # ---- calls --------------------------------------------------------------------------------------------------------

    def _call(self, call: Call) -> None:
        behaviour = self._behaviour(call)
        if behaviour is None:
            call.finish(grpc.StatusCode.UNIMPLEMENTED, f"{call.method[:200]} is not served here")
            return
        call.task = self._loop.create_task(self._run(call, behaviour))
        self._tasks.add(call.task)
        call.task.add_done_callback(partial(self._done, call))

    def _done(self, call: Call, task: asyncio.Task[None]) -> None:
        """Also of one that was cancelled before it ran: it and its call must not hold one another."""
        call.task = None
        self._tasks.discard(task)

    async def _run(self, call: Call, behaviour: Behaviour) -> None:
        timer = None
        if call.request.timeout_s is not None:
            timer = self._loop.call_later(call.request.timeout_s, _expire, call)
        try:
            await behaviour(call)
        except asyncio.CancelledError:
            if call.expired:
                call.finish(grpc.StatusCode.DEADLINE_EXCEEDED, "the call's time is up")
            else:
                call.finish(grpc.StatusCode.UNAVAILABLE, "the server is going away")
        except Exception as error:
            call.finish(*status_of(error, call.method))
        else:
            call.finish(grpc.StatusCode.OK)
        finally:
            if timer is not None:
                timer.cancel()

    # ---- time ---------------------------------------------------------------------------------------------------------

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            await in_slices(self._sweep())

    def _sweep(self) -> Work[None]:
        """Look at every connection."""
        for transport in list(self._transports):
            self._look_at(transport, self._loop.time())
            yield

    def _look_at(self, transport: SocketTransport, now: float) -> None:
        quiet_s, connection = now - transport.heard_at, transport.connection
        if transport.closing:
            if quiet_s > CLOSE_S:
                transport.abort()
        elif connection is None or not connection.begun:
            if quiet_s > BEGIN_S:
                transport.abort()
        elif not connection.calls and now - connection.called_at > IDLE_S:
            connection.end(Code.NO_ERROR, "idle")
        elif connection.pinged_at is not None:
            if quiet_s > PONG_S and now - connection.pinged_at > PONG_S:
                transport.abort()
        elif quiet_s > QUIET_S:
            connection.ping()

    async def stop(self, grace: float | None) -> None:
        """Take no more calls; those under way have ``grace`` seconds to end, then they are ended."""
        self._stopping = True
        for listening, _ in self._listening:
            self._loop.remove_reader(listening)
            listening.close()
        self._listening.clear()
        await in_slices(self._drain())
        if self._transports and grace:
            try:
                async with asyncio.timeout(grace):
                    await self._closed.wait()
            except TimeoutError:
                pass
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        for transport in list(self._transports):
            transport.abort()
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._poller.close()

    def _drain(self) -> Work[None]:
        for transport in list(self._transports):
            if transport.connection is not None:
                transport.connection.drain()
            else:
                transport.abort()
            yield


class _Details:
    """grpc.HandlerCallDetails, as generic handlers ask for it."""

    def __init__(self, method: str, metadata: Any) -> None:
        self.method = method
        self.invocation_metadata = metadata


def _expire(call: Call) -> None:
    if call.task is not None and not call.finished:
        call.expired = True
        call.task.cancel()


class Certified:
    """TLS contexts of a source's material: made once for each that is in force."""

    def __init__(self, source: TlsSource, *, require_client: bool) -> None:
        self._source = source
        self._require_client = require_client
        self._made: tuple[TlsMaterial, ssl.SSLContext] | None = None

    def __call__(self) -> ssl.SSLContext:
        material = self._source.current
        if self._made is None or self._made[0] is not material:
            verify = ssl.CERT_REQUIRED if self._require_client else ssl.CERT_NONE
            self._made = (material, server_context(material, verify, ("h2",)))
        return self._made[1]


def _bound(address: str, *, shared: bool) -> socket.socket:
    """A socket that is bound: ``host:port``, ``[v6]:port``, ``unix:path``. OSError, ValueError for what is none."""
    if address.startswith(UNIX):
        return _bound_unix(address.removeprefix(UNIX))
    host, _, port = address.rpartition(":")
    if not 0 <= int(port) <= LARGEST_PORT:
        raise ValueError(f"port {port}")
    found = socket.getaddrinfo(
        host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    if not host:
        found.sort(key=lambda item: item[0] != socket.AF_INET6)
    family, kind, protocol, _, where = found[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6 and not host.strip("[]"):
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(where)
    except BaseException:
        made.close()
        raise
    return made


def _bound_unix(path: str) -> socket.socket:
    """What an earlier process left is taken over; anything but a socket is not."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        if Path(path).is_socket():
            Path(path).unlink()
        made.bind(path)
    except BaseException:
        made.close()
        raise
    return made


def _peer(family: int, address: Any) -> str:
    """As gRPC writes it."""
    if family == socket.AF_INET:
        return f"ipv4:{address[0]}:{address[1]}"
    if family == socket.AF_INET6:
        return f"ipv6:[{address[0]}]:{address[1]}"
    return UNIX
