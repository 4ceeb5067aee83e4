"""A small DNS server on loopback, UDP and TCP on one port, that says what a test tells it to."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Self

from dnslib import AAAA, CNAME, QTYPE, RCODE, RR, SOA, SRV, A, DNSRecord

MAKERS: dict[str, Any] = {"A": A, "AAAA": AAAA, "CNAME": CNAME}
LARGEST_DATAGRAM = 512


@dataclass
class FakeDns:
    """``zone``: (name, type) -> [(data, ttl)]; SRV's data is (priority, weight, port, target)."""

    zone: dict[tuple[str, str], list[tuple[Any, int]]] = field(default_factory=dict)
    fails: set[str] = field(default_factory=set)
    """Types that are answered with SERVFAIL."""
    silent: bool = False
    noise: list[bytes] = field(default_factory=list)
    """Sent before each answer, with the question's id if they begin with two zero bytes."""
    negative_ttl: int = 7
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """(udp or tcp, name, type)."""
    port: int = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._stream, "127.0.0.1", 0)
        self.port = self._tcp.sockets[0].getsockname()[1]
        self._udp, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=("127.0.0.1", self.port)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._udp.close()
        self._tcp.close()
        await self._tcp.wait_closed()

    @property
    def server(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    def put(self, name: str, kind: str, *data: Any, ttl: int = 60) -> None:
        self.zone[name, kind] = [(item, ttl) for item in data]

    def answer(self, data: bytes, transport: str) -> bytes | None:
        question = DNSRecord.parse(data)
        name, kind = str(question.q.qname).rstrip("."), QTYPE[question.q.qtype]
        self.asked.append((transport, name, kind))
        if self.silent:
            return None
        reply = question.reply()
        if kind in self.fails:
            reply.header.rcode = RCODE.SERVFAIL
            return bytes(reply.pack())
        self._fill(reply, name, kind)
        if not any(known == name for known, _ in self.zone):
            reply.header.rcode = RCODE.NXDOMAIN
        if not reply.rr:
            times = (1, 1, 1, 1, self.negative_ttl)
            soa = SOA("ns.example.com", "root.example.com", times)
            reply.add_auth(RR("example.com", QTYPE.SOA, rdata=soa, ttl=3600))
        packed: bytes = reply.pack()
        if transport == "udp" and len(packed) > LARGEST_DATAGRAM:
            short = question.reply()
            short.header.tc = 1
            packed = short.pack()
        return packed

    def _fill(self, reply: Any, name: str, kind: str) -> None:
        for target, ttl in self.zone.get((name, "CNAME"), ()):
            reply.add_answer(RR(name, QTYPE.CNAME, rdata=CNAME(target), ttl=ttl))
            self._fill(reply, target, kind)
        for data, ttl in self.zone.get((name, kind), ()):
            rdata = SRV(*data) if kind == "SRV" else MAKERS[kind](data)
            reply.add_answer(RR(name, getattr(QTYPE, kind), rdata=rdata, ttl=ttl))

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        answer = self.answer(await reader.readexactly(size), "tcp")
        if answer is not None:
            writer.write(len(answer).to_bytes(2, "big") + answer)
            await writer.drain()
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: FakeDns) -> None:
        self._server = server

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        answer = self._server.answer(data, "udp")
        for noise in self._server.noise:
            self._transport.sendto(data[:2] + noise[2:] if noise[:2] == b"\0\0" else noise, addr)
        if answer is not None:
            self._transport.sendto(answer, addr)
