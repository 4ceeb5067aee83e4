"""Asking the machine's resolvers: what is not the mesh's name goes there as it came, under an id and port of its own.

    query -> try 1 (server 1) --- a share of the time ---> try 2 (server 2) --> ... -> first good answer, or None

A later try does not end the earlier ones: whichever answers first wins. A resolver that refuses or fails is passed
over at once; its answer counts only when nobody has a better one. Only a response with this try's random id and the
very question is one, from the server's address (the socket is connected) to this try's random port: RFC 5452.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from services.agent.dns import message
from services.agent.dns.message import Query
from services.agent.dns.resolv import Server

PASSED_OVER = frozenset({message.SERVFAIL, message.NOTIMP, message.REFUSED, message.FORMERR})


@dataclass(frozen=True, slots=True)
class Asking:
    """How to ask. ``timeout_s`` is for all tries together."""

    timeout_s: float = 5.0
    attempts: int = 2
    parallel: bool = False
    most_at_once: int = 512


class Upstream:
    def __init__(
        self,
        servers: Callable[[], Sequence[Server]],
        random_id: Callable[[], int],
        asking: Asking,
    ) -> None:
        """``random_id``: 0 to 65535, not to be guessed."""
        self._servers = servers
        self._random_id = random_id
        self._asking = asking
        self._under_way = 0
        self._sources: set[tuple[str, int]] = set()

    @property
    def full(self) -> bool:
        """Whether no further query can be taken now."""
        return self._under_way >= self._asking.most_at_once

    def sent(self, peer: tuple[str, int]) -> bool:
        """Whether a query from this address is one of our own that came back."""
        return peer in self._sources

    async def ask(self, data: bytes, query: Query, *, whole: bool) -> bytes | None:
        """The response, with the query's own id; None when nobody has one in time, or too many queries are under way.

        ``whole``: a truncated response is fetched over TCP, because the caller can take all of it.
        """
        servers = self._servers()
        if self.full or not servers:
            return None
        self._under_way += 1
        try:
            answer = await self._ask_all(servers, data, query, whole=whole)
        finally:
            self._under_way -= 1
        return message.with_id(answer, query.id) if answer is not None else None

    async def _ask_all(
        self, servers: Sequence[Server], data: bytes, query: Query, *, whole: bool
    ) -> bytes | None:
        """Start the tries one after the other, each as soon as the one before it has failed or had its share."""
        loop = asyncio.get_running_loop()
        rounds = [list(servers)] if self._asking.parallel else [[server] for server in servers]
        waves = rounds * self._asking.attempts
        share_s = self._asking.timeout_s / len(waves)
        deadline = loop.time() + self._asking.timeout_s
        tries: set[asyncio.Task[bytes | None]] = set()
        second_best: bytes | None = None
        try:
            while waves or tries:
                if waves:
                    tries |= {
                        asyncio.ensure_future(self._one_try(server, data, query, whole=whole))
                        for server in waves.pop(0)
                    }
                until = loop.time() + share_s if waves else deadline
                while tries and (left_s := min(until, deadline) - loop.time()) > 0:
                    done, tries = await asyncio.wait(
                        tries, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
                    )
                    for answer in filter(None, (task.result() for task in done)):
                        if message.rcode_of(answer) not in PASSED_OVER:
                            return answer
                        second_best = answer
                if loop.time() >= deadline:
                    break
            return second_best
        finally:
            for task in tries:
                task.cancel()
            await asyncio.gather(*tries, return_exceptions=True)

    async def _one_try(
        self, server: Server, data: bytes, query: Query, *, whole: bool
    ) -> bytes | None:
        """One server, one time; None when it cannot be reached or breaks off."""
        id_ = (self._random_id() & 0xFFFF).to_bytes(2, "big")
        asked = message.with_id(data, id_)
        with suppress(OSError, asyncio.IncompleteReadError):
            answer = await self._datagram(server, asked, query)
            if whole and message.is_truncated(answer):
                answer = await self._stream(server, asked, query) or answer
            return answer
        return None

    async def _datagram(self, server: Server, asked: bytes, query: Query) -> bytes:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[bytes] = loop.create_future()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _OneAnswer(asked[:2], query.question, answered), remote_addr=server
        )
        source = transport.get_extra_info("sockname")[:2]
        self._sources.add(source)
        try:
            transport.sendto(asked)
            return await answered
        finally:
            self._sources.discard(source)
            transport.close()

    async def _stream(self, server: Server, asked: bytes, query: Query) -> bytes | None:
        reader, writer = await asyncio.open_connection(*server)
        source = writer.get_extra_info("sockname")[:2]
        self._sources.add(source)
        try:
            writer.write(len(asked).to_bytes(2, "big") + asked)
            size = int.from_bytes(await reader.readexactly(2), "big")
            answer = await reader.readexactly(size)
        finally:
            self._sources.discard(source)
            writer.close()
        return answer if message.answers_question(answer, asked[:2], query.question) else None


class _OneAnswer(asyncio.DatagramProtocol):
    """Waits for the response to one question; everything else that arrives is not seen."""

    def __init__(self, id_: bytes, question: bytes, answered: asyncio.Future[bytes]) -> None:
        self._id = id_
        self._question = question
        self._answered = answered

    def datagram_received(self, data: bytes, _: object) -> None:
        if not self._answered.done() and message.answers_question(data, self._id, self._question):
            self._answered.set_result(data)

    def error_received(self, error: Exception) -> None:
        """The server's machine says that nobody listens there."""
        if not self._answered.done():
            self._answered.set_exception(error)
