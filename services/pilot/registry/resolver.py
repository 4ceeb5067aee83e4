"""Asking DNS servers: over UDP, over TCP where an answer does not fit; only what answers the question is believed.

    Resolver.query(name, "SRV") -> Answer(records, ttl_s)        raises LookupFailed

An id and a port of its own for every question, a connected socket, id and question compared: RFC 5452. Servers are asked in
turn; one that does not answer costs its timeout and is passed over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnslib import QTYPE, RCODE, DNSError, DNSQuestion, DNSRecord

TIMEOUT_S = 2.0
ROUNDS = 2
MOST_RECORDS = 1000
LONGEST_CHAIN = 16
"""CNAMEs after one another."""
NO_ANSWER_TTL_S = 30.0
"""Where a negative answer has no SOA that says for how long it holds (RFC 2308)."""

Server = tuple[str, int]


class LookupFailed(Exception):
    """No server gave an answer that can be used; says why."""


@dataclass(frozen=True, slots=True)
class Record:
    """``data``: an address (A, AAAA), or (priority, weight, port, target) for SRV."""

    data: Any
    ttl_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """``records`` is empty where the name, or the type, does not exist."""

    records: tuple[Record, ...]
    ttl_s: float


def servers_of(resolv_conf: str) -> tuple[Server, ...]:
    """The name servers of a resolv.conf (resolv.conf(5)), at most three as there."""
    words = [line.split() for line in resolv_conf.splitlines()]
    found = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
    return tuple((address.partition("%")[0], 53) for address in found[:3])


def system_servers(path: Path = Path("/etc/resolv.conf")) -> tuple[Server, ...]:
    """Those of this machine; none if it says none. Read at every question: it may change."""
    try:
        return servers_of(path.read_text())
    except (OSError, UnicodeDecodeError):
        return ()


class Resolver:
    def __init__(
        self,
        servers: Callable[[], Sequence[Server]],
        random_id: Callable[[], int],
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """``random_id``: 0 to 65535, not to be guessed."""
        self._servers = servers
        self._random_id = random_id
        self._timeout_s = timeout_s

    async def query(self, name: str, kind: str) -> Answer:
        """``kind``: A, AAAA or SRV. Raises LookupFailed."""
        failures: list[str] = []
        for server in list(self._servers()) * ROUNDS:
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._ask(server, name, kind)
            except TimeoutError:
                failures.append(f"{server[0]}:{server[1]} does not answer")
            except (LookupFailed, OSError, asyncio.IncompleteReadError) as error:
                failures.append(f"{server[0]}:{server[1]}: {error}")
        raise LookupFailed("; ".join(dict.fromkeys(failures)) or "there is no DNS server to ask")

    async def _ask(self, server: Server, name: str, kind: str) -> Answer:
        question = DNSRecord(q=DNSQuestion(name, getattr(QTYPE, kind)))
        question.header.id = self._random_id() & 0xFFFF
        asked: bytes = question.pack()
        reply = await _datagram(server, asked, question)
        if reply.header.tc:
            reply = await _stream(server, asked, question)
        return read_answer(reply, name, kind)


async def _datagram(server: Server, asked: bytes, question: Any) -> Any:
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[Any] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _OneAnswer(question, answered), remote_addr=server
    )
    try:
        transport.sendto(asked)
        return await answered
    finally:
        transport.close()


async def _stream(server: Server, asked: bytes, question: Any) -> Any:
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(len(asked).to_bytes(2, "big") + asked)
        size = int.from_bytes(await reader.readexactly(2), "big")
        reply = parse_reply(await reader.readexactly(size), question)
    finally:
        writer.close()
    if reply is None:
        raise LookupFailed("answers something else than was asked")
    return reply


class _OneAnswer(asyncio.DatagramProtocol):
    """Waits for the datagram that answers; others are as if they had not come."""

    def __init__(self, question: Any, answered: asyncio.Future[Any]) -> None:
        self._question = question
        self._answered = answered

    def datagram_received(self, data: bytes, addr: Any) -> None:  # noqa: ARG002  the socket is connected
        reply = parse_reply(data, self._question)
        if reply is not None and not self._answered.done():
            self._answered.set_result(reply)

    def error_received(self, exc: Exception) -> None:
        if not self._answered.done():
            self._answered.set_exception(exc)


def parse_reply(data: bytes, question: Any) -> Any:
    """The reply, if it is one to this very question; else None. Never raises for what a server may send."""
    try:
        reply = DNSRecord.parse(data)
        if len(reply.questions) != 1:
            return None
        got, sent = reply.q, question.q
        same = (
            reply.header.id == question.header.id
            and reply.header.qr == 1
            and got.qtype == sent.qtype
            and got.qclass == sent.qclass
            and _label(got.qname) == _label(sent.qname)
        )
    except (DNSError, ValueError, LookupError, UnicodeError, TypeError, AttributeError):
        return None
    return reply if same else None


def _label(name: Any) -> str:
    return str(name).rstrip(".").lower()


def read_answer(reply: Any, name: str, kind: str) -> Answer:
    """What a reply says about a name, CNAMEs followed. Raises LookupFailed for what is no answer."""
    code = reply.header.rcode
    if code not in {RCODE.NOERROR, RCODE.NXDOMAIN}:
        raise LookupFailed(f"answers {RCODE.get(code, str(code))}")
    if len(reply.rr) > MOST_RECORDS:
        raise LookupFailed(f"answers more than {MOST_RECORDS} records")
    owner, ttls = _label(name), []
    links = {_label(rr.rname): rr for rr in reply.rr if rr.rtype == QTYPE.CNAME}
    for _ in range(LONGEST_CHAIN):
        if owner not in links:
            break
        ttls.append(links[owner].ttl)
        owner = _label(links[owner].rdata.label)
    found = [
        Record(_data(rr.rdata, kind), rr.ttl)
        for rr in reply.rr
        if rr.rtype == getattr(QTYPE, kind) and _label(rr.rname) == owner
    ]
    ttls += [record.ttl_s for record in found]
    if not found:
        negative = [min(rr.ttl, rr.rdata.times[4]) for rr in reply.auth if rr.rtype == QTYPE.SOA]
        ttls = [*ttls, *(negative or [NO_ANSWER_TTL_S])]
    return Answer(tuple(found), float(min(ttls)))


def _data(rdata: Any, kind: str) -> Any:
    if kind == "SRV":
        return (rdata.priority, rdata.weight, rdata.port, _label(rdata.target))
    return str(rdata)
