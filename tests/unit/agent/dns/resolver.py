"""A real DNS server on loopback whose answers, and misbehaviour, a test decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from dnslib import AAAA, QTYPE, RR, A, DNSHeader, DNSQuestion, DNSRecord

Answering = Callable[[DNSRecord, str], Iterable[bytes]]
"""(query, "udp" or "tcp") -> the messages to send, none for silence."""


class Resolver(asyncio.DatagramProtocol):
    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.asked: list[tuple[DNSRecord, str, int]] = []
        """Query, transport and the port it came from."""
        self.address = ("", 0)

    def connection_made(self, transport):
        self._transport = transport

    def datagram_received(self, data, peer):
        for answer in self.take(data, "udp", peer):
            self._transport.sendto(answer, peer)

    async def stream(self, reader, writer):
        with_size = await reader.readexactly(2)
        data = await reader.readexactly(int.from_bytes(with_size, "big"))
        for answer in self.take(data, "tcp", writer.get_extra_info("peername")):
            writer.write(len(answer).to_bytes(2, "big") + answer)
        await writer.drain()
        writer.close()

    def take(self, data, transport, peer):
        query = DNSRecord.parse(data)
        self.asked.append((query, transport, peer[1]))
        return self.answering(query, transport)


@asynccontextmanager
async def resolver(
    answering: Answering, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Resolver]:
    made = Resolver(answering)
    server = await asyncio.start_server(made.stream, host, port)
    made.address = server.sockets[0].getsockname()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: made, local_addr=made.address)
    try:
        yield made
    finally:
        transport.close()
        server.close()


def addresses(*texts: str) -> Answering:
    """Answers every question with these addresses."""

    def answering(query: DNSRecord, _: str) -> list[bytes]:
        reply = query.reply()
        for text in texts:
            kind, data = (QTYPE.AAAA, AAAA(text)) if ":" in text else (QTYPE.A, A(text))
            if query.q.qtype == kind:
                reply.add_answer(RR(query.q.qname, kind, rdata=data, ttl=60))
        return [reply.pack()]

    return answering


def failing(rcode: int) -> Answering:
    def answering(query: DNSRecord, _: str) -> list[bytes]:
        reply = query.reply()
        reply.header.rcode = rcode
        return [reply.pack()]

    return answering


def silent(_: DNSRecord, __: str) -> list[bytes]:
    return []


def question(name: str, kind: str = "A", *, id_: int = 4711) -> bytes:
    record = DNSRecord(DNSHeader(id=id_, rd=1), q=DNSQuestion(name, getattr(QTYPE, kind)))
    packed: bytes = record.pack()
    return packed
