"""The agent's DNS: queries as bytes, answers of resolvers as bytes, and name tables as Pilot sends them.

Asserted of a query: nothing is raised, what is answered is a whole message under the query's id, no longer than the asker takes.
Of name tables: only words leave, what is refused changes nothing, and what is left when all is removed is nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Hashable, Sequence
from random import Random
from types import ModuleType
from typing import Any, Final, cast

from prometheus_client import CollectorRegistry

from benchmarks.fuzz.mutate import mutate_bytes
from benchmarks.fuzz.target import Single
from benchmarks.fuzz.wire import mutate_message
from services.agent.dns import message, proxy, table
from services.agent.dns.metrics import DnsMetrics
from services.agent.dns.proxy import DnsProxy
from services.agent.dns.table import NameTable
from services.agent.dns.upstream import Upstream
from windward.api.istio.networking.nds.v1 import nds_pb2

PEER: Final = ("127.0.0.1", 5353)
OPT: Final = b"\0\0\x29\x10\0\0\0\0\0\0\0"
WORDS: Final = (
    b"\x07reviews\x04shop\x03svc\x07cluster\x05local\0", b"\x07reviews\0", b"\x01a\x03lan\0", b"\0", b"\xc0\x0c",
    b"\xc0\x00", OPT, b"\x00\x01\x00\x01", b"\x00\x1c\x00\x01", b"\x00\xff\x00\x01", b"\x3f" + b"a" * 63,
    b"\x40" + b"a" * 64, b"\0\0\x29\x02\0\0\x01\0\0\0\0", b"\x01*\x04wild\x07example\x03com\0",
)  # fmt: skip
Given = tuple[bytes, bytes, bool]
"""(query, a resolver's answer to it, whether over TCP)."""


class _NobodyAbove:
    """Stands for the machine's resolvers: asked, never of this process's own."""

    full = False

    @staticmethod
    def sent(peer: tuple[str, int]) -> bool:
        return peer[1] == 1

    def __init__(self) -> None:
        self.answer = b""

    async def ask(self, data: bytes, query: message.Query, *, whole: bool) -> bytes | None:
        """As Upstream: what is no answer to this question is nothing."""
        del data, whole
        good = message.answers_question(self.answer, query.id, query.question)
        return self.answer if good else None


def _name_table(name: str, **more: Any) -> bytes:
    info = {"ips": ["10.0.0.1", "fd00::1"], "registry": "Kubernetes", **more}
    return nds_pb2.NameTable(table={name: nds_pb2.NameTable.NameInfo(**info)}).SerializeToString()


def _filled() -> NameTable:
    made = NameTable(namespace="shop", domain="cluster.local", search=["lan"])
    host = "reviews.shop.svc.cluster.local"
    many = [f"10.1.{number // 256}.{number % 256}" for number in range(600)]
    made.apply(
        {
            "reviews": _name_table(host, shortname="reviews", namespace="shop"),
            "many": _name_table("many.example.com", ips=many),
            "wild": _name_table("*.wild.example.com", alt_hosts=["alias.example.com"]),
            "none": _name_table("none.example.com", ips=[]),
        },
        (),
    )
    return made


class DnsQueries(Single):
    modules: Sequence[ModuleType] = (message, proxy, table)

    def __init__(self) -> None:
        self._above = _NobodyAbove()
        self._proxy = DnsProxy(
            _filled(),
            cast("Upstream", self._above),
            lambda _: None,
            lambda: 0.0,
            DnsMetrics(CollectorRegistry()),
        )

    def seeds(self) -> Sequence[Given]:
        made: list[Given] = []
        for name in (*WORDS[:3], b"\x04many\x07example\x03com\0", b"\x01x" + WORDS[-1][2:]):
            for kind in (b"\0\x01\0\x01", b"\0\x1c\0\x01", b"\0\xff\0\x01"):
                query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0" + name + kind
                answer = b"\x12\x34\x81\x83\0\x01\0\0\0\0\0\0" + name + kind
                made.append((query, answer, False))
                made.append((query[:11] + b"\x01" + query[12:] + OPT, answer, True))
        return made

    def mutate(self, random: Random, chosen: Given, other: Given) -> Given:
        query, answer, stream = chosen
        if random.random() < 0.8:
            query = mutate_bytes(random, query, other[0], WORDS)
        else:
            answer = mutate_bytes(random, answer, other[1], WORDS)
        if random.random() < 0.5 and len(query) > 16:
            answer = query[:2] + answer[2:12] + query[12:]
        return query, answer, stream if random.random() < 0.9 else not stream

    def execute(self, given: Given) -> Hashable:
        query, answer, stream = given
        self._above.answer = answer
        said = self._proxy.respond(query, PEER, stream=stream)
        above = said is not None and not isinstance(said, bytes)
        raw = said if said is None or isinstance(said, bytes) else _now(said)
        if raw is None:
            return "silence"
        assert raw[:2] == query[:2]
        assert raw[2] & 0x80
        most = message.MOST_BYTES if stream else message.OUR_UDP_BYTES
        assert len(raw) <= most or above
        if not above or raw[12:] != answer[12:]:
            _whole(raw)
        return above, raw[3] & 0x0F, raw[2] & 0x02, raw[6:12], len(raw) > message.PLAIN_UDP_BYTES


def _now(said: Awaitable[bytes]) -> bytes:
    """What is awaited here waits for nothing."""
    try:
        said.__await__().send(None)
    except StopIteration as done:
        return cast("bytes", done.value)
    raise AssertionError("it waits")


def _whole(raw: bytes) -> None:
    """What is made here: as many records as the header says, and nothing behind them."""
    counts = [int.from_bytes(raw[at : at + 2], "big") for at in (4, 6, 8, 10)]
    at = message.HEADER_BYTES
    for index in range(sum(counts)):
        while raw[at] and raw[at] < 0xC0:
            at += raw[at] + 1
        at += 2 if raw[at] else 1
        at += 4 if index < counts[0] else 10 + int.from_bytes(raw[at + 8 : at + 10], "big")
    assert at == len(raw), "records do not end where the message does"


class NameTables(Single):
    """Resources of one history, applied and removed again."""

    modules: Sequence[ModuleType] = (table, message)
    words = (
        b"reviews.shop.svc.cluster.local", b"*.example.com", b"a..b", b"", b"10.0.0.1", b"fd00::1", b"1.2.3", b"::ffff:1.2.3.4",
        b"fe80::1%lo", b"a" * 64, b"\xc3\xa9.com", b"x." * 130, b"shop", b"reviews", b"\x00", b".", b"*",
    )  # fmt: skip

    def seeds(self) -> Sequence[bytes]:
        host = "reviews.shop.svc.cluster.local"
        return [
            _name_table(host, shortname="reviews", namespace="shop", alt_hosts=["r.example.com"]),
            _name_table("*.example.com"),
            _name_table("a.example.com", ips=[], registry="x"),
            nds_pb2.NameTable().SerializeToString(),
        ]

    def mutate(self, random: Random, chosen: bytes, other: bytes) -> bytes:
        return mutate_message(random, chosen, other, self.words)

    def execute(self, given: bytes) -> Hashable:
        made = NameTable(namespace="shop", domain="cluster.local", search=["lan"])
        made.apply({"kept": self.seeds()[0]}, ())
        before = [(name, entry) for name, entry in made]
        problems = made.apply({"given": given}, ())
        now = [name for name, _ in made]
        for name in now:
            found = made.lookup(message.wire_name(name))
            assert found is not None
            assert all(len(tail) in {14, 26} for tail in (*found.entry.v4, *found.entry.v6))
        if problems:
            assert [(name, entry) for name, entry in made] == before
        made.apply({}, ["given"])
        assert [(name, entry) for name, entry in made] == before
        made.apply({}, ["kept"])
        assert len(made) == 0
        assert made.lookup(message.wire_name("r.example.com")) is None
        return tuple(problem[:24] for problem in problems), min(len(now), 5)
