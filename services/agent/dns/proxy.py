"""The DNS proxy: queries in over UDP and TCP, answered from the table or by the machine's resolvers.

    UDP, TCP -> parse -> table: own names at once, within the read callback
                      -> upstream: a bounded number at a time, everything else SERVFAIL

Nothing that arrives can stop it or make it grow: malformed queries are refused or dropped, connections, questions
under way and sizes have limits. Sources: RFC 7766 (DNS over TCP), Istio's pkg/dns/client/dns.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from services.agent.dns import message
from services.agent.dns.message import Query, Unusable
from services.agent.dns.metrics import DnsMetrics
from services.agent.dns.table import NameTable
from services.agent.dns.upstream import Upstream
from windward.process import FatalError
from windward.telemetry.logging import get_logger

log = get_logger()
MOST_CONNECTIONS = 128
MOST_PER_CONNECTION = 16
"""Questions of one connection that may wait for a resolver at a time; reading waits then."""
IDLE_S = 10.0
"""A connection without a question, or a client that does not take its answers, is ended after this."""
UNSENT_BYTES = 1 << 20
"""What the kernel does not take is dropped beyond this, as datagrams may be."""

Address = tuple[str, int]


class DnsProxy:
    def __init__(
        self,
        table: NameTable,
        upstream: Upstream,
        shuffle: message.Shuffle,
        clock: Callable[[], float],
        metrics: DnsMetrics,
    ) -> None:
        """``shuffle``: mixes a host's addresses in place. ``clock``: in seconds, for durations."""
        self._table = table
        self._upstream = upstream
        self._shuffle = shuffle
        self._clock = clock
        self.metrics = metrics

    def respond(
        self, data: bytes, peer: Address, *, stream: bool
    ) -> bytes | Awaitable[bytes] | None:
        """The answer at once, or one to wait for, or None for silence. Never raises."""
        began = self._clock()
        try:
            query = message.parse(data)
        except Unusable as problem:
            self.metrics.refused.inc()
            return problem.response
        found = self._table.lookup(query.name) if query.in_class else None
        tails = found.entry.tails(query.type) if found else None
        if found is not None and tails is not None:
            limit = message.MOST_BYTES if stream else query.limit
            made = message.answer(
                query, tails, limit=limit, shuffle=self._shuffle, canonical=found.canonical
            )
            self.metrics.own.inc()
            self.metrics.own_s.observe(self._clock() - began)
            return made
        if self._upstream.sent(peer):
            self.metrics.loops.inc()
            return message.failure(query, message.REFUSED)
        if self._upstream.full or (found is None and self._table.may_come(query.name)):
            self.metrics.refused.inc()
            return message.failure(query, message.SERVFAIL)
        return self._passed_on(data, query, began, stream=stream, ours=found is not None)

    async def _passed_on(
        self, data: bytes, query: Query, began: float, *, stream: bool, ours: bool
    ) -> bytes:
        """The resolvers' answer. A name of ours, asked for another type, exists whatever they say."""
        answer = await self._upstream.ask(data, query, whole=stream)
        self.metrics.upstream.inc()
        self.metrics.upstream_s.observe(self._clock() - began)
        if answer is None:
            self.metrics.upstream_failures.inc()
            return message.failure(query, message.NOERROR if ours else message.SERVFAIL)
        if ours:
            answer = message.without_nxdomain(answer)
        return answer if stream or len(answer) <= query.limit else message.truncated(query)

    @asynccontextmanager
    async def listening(self, address: str, *, setting: str) -> AsyncIterator[int]:
        """Serve ``host:port`` over UDP and TCP while the block lasts; gives the port.

        ``localhost`` is 127.0.0.1, and ::1 where the machine has IPv6. Raises FatalError naming the setting.
        """
        host, _, text = address.rpartition(":")
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            group = await stack.enter_async_context(_ending_tasks())
            try:
                port = int(text)
                for place in ("127.0.0.1", "::1") if host == "localhost" else (host.strip("[]"),):
                    try:
                        port = await self._open(loop, stack, group, place, port)
                    except OSError:
                        if place != "::1" or host != "localhost":
                            raise
            except (OSError, ValueError, OverflowError) as error:
                raise FatalError(f"{setting} {address}: {error}") from error
            log.info("dns.listening", address=host, port=port)
            yield port

    async def _open(
        self,
        loop: asyncio.AbstractEventLoop,
        stack: AsyncExitStack,
        group: set[asyncio.Task[None]],
        place: str,
        port: int,
    ) -> int:
        """TCP first: with port 0 it chooses one, which UDP then takes too."""
        streams = _Streams(self, group)
        server = await asyncio.start_server(streams.connection, place, port)
        stack.callback(server.close)
        port = server.sockets[0].getsockname()[1]
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self, group), local_addr=(place, port)
        )
        stack.callback(transport.close)
        return port


@asynccontextmanager
async def _ending_tasks() -> AsyncIterator[set[asyncio.Task[None]]]:
    """Tasks that answer questions: they end with the block, and a failure of one is its own."""
    tasks: set[asyncio.Task[None]] = set()
    try:
        yield tasks
    finally:
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, proxy: DnsProxy, tasks: set[asyncio.Task[None]]) -> None:
        self._proxy = proxy
        self._tasks = tasks
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, peer: Any) -> None:
        answer = self._proxy.respond(data, peer[:2], stream=False)
        if isinstance(answer, bytes):
            self._send(answer, peer)
        elif answer is not None:
            task = asyncio.ensure_future(self._later(answer, peer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _later(self, answer: Awaitable[bytes], peer: Any) -> None:
        self._send(await answer, peer)

    def _send(self, answer: bytes, peer: Any) -> None:
        if (
            not self._transport.is_closing()
            and self._transport.get_write_buffer_size() < UNSENT_BYTES
        ):
            self._transport.sendto(answer, peer)


class _Streams:
    """Connections that carry any number of questions, answered as the answers come."""

    def __init__(self, proxy: DnsProxy, tasks: set[asyncio.Task[None]]) -> None:
        self._proxy = proxy
        self._tasks = tasks
        self._open = 0

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= MOST_CONNECTIONS:
            self._proxy.metrics.refused.inc()
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._open += 1
        self._tasks.add(task)
        waiting: set[asyncio.Task[None]] = set()
        try:
            await self._questions(reader, writer, waiting)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            for item in waiting:
                item.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            self._open -= 1
            self._tasks.discard(task)
            writer.close()

    async def _questions(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        waiting: set[asyncio.Task[None]],
    ) -> None:
        peer = writer.get_extra_info("peername")[:2]
        while True:
            data = await self._next(reader, waiting)
            if data is None:
                return
            answer = self._proxy.respond(data, peer, stream=True)
            if isinstance(answer, bytes):
                writer.write(len(answer).to_bytes(2, "big") + answer)
            elif answer is not None:
                later = asyncio.ensure_future(_later(answer, writer))
                waiting.add(later)
                later.add_done_callback(waiting.discard)
            async with asyncio.timeout(IDLE_S):
                await writer.drain()
            if len(waiting) >= MOST_PER_CONNECTION:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)

    async def _next(
        self, reader: asyncio.StreamReader, waiting: set[asyncio.Task[None]]
    ) -> bytes | None:
        """The next question; None when the client has ended its side and has all its answers."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(IDLE_S):
                    head = await reader.read(1)
                break
            if not waiting:
                return None
        if not head:
            if waiting:
                await asyncio.wait(waiting)
            return None
        async with asyncio.timeout(IDLE_S):
            size = int.from_bytes(head + await reader.readexactly(1), "big")
            return await reader.readexactly(size)


async def _later(answer: Awaitable[bytes], writer: asyncio.StreamWriter) -> None:
    made = await answer
    writer.write(len(made).to_bytes(2, "big") + made)
