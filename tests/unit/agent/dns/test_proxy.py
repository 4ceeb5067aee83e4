import asyncio
import socket
import struct
import time
from contextlib import asynccontextmanager

import pytest
from dnslib import EDNS0, QTYPE, RCODE, RR, A, DNSHeader, DNSQuestion, DNSRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from services.agent.dns import message
from services.agent.dns import proxy as proxies
from services.agent.dns.metrics import DnsMetrics
from services.agent.dns.proxy import DnsProxy
from services.agent.dns.table import NameTable
from services.agent.dns.upstream import Asking, Upstream
from tests.unit.agent.dns.resolver import addresses, failing, question, resolver, silent
from tests.unit.agent.dns.test_table import one, service
from windward.process import FatalError

SEARCH = ("shop.svc.cluster.local", "example.org")


def a_proxy(*servers, timeout_s=0.2, most_at_once=64) -> DnsProxy:
    table = NameTable(namespace="shop", domain="cluster.local", search=SEARCH)
    many = [f"10.9.{number // 250}.{number % 250}" for number in range(300)]
    table.apply(
        service("reviews", "shop", "10.0.0.1", "fd00::1")
        | one("v4.example.com", "10.0.0.2")
        | one("many.example.com", *many)
        | one("*.wild.example.com", "10.0.0.3"),
        (),
    )
    asking = Asking(timeout_s=timeout_s, most_at_once=most_at_once)
    return DnsProxy(
        table,
        Upstream(lambda: servers, lambda: 99, asking),
        lambda _: None,
        time.perf_counter,
        DnsMetrics(CollectorRegistry()),
    )


@asynccontextmanager
async def listening(proxy: DnsProxy, host="127.0.0.1"):
    async with proxy.listening(f"{host}:0", setting="--dns-address") as port:
        yield port


async def over_udp(data: bytes, port: int, host="127.0.0.1") -> DNSRecord:
    return DNSRecord.parse(await asyncio.to_thread(_udp, data, port, host))


def _udp(data: bytes, port: int, host: str) -> bytes:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.sendto(data, (host, port))
        return client.recv(65535)


async def over_tcp(data: bytes, port: int) -> DNSRecord:
    packed = await asyncio.to_thread(DNSRecord.parse(data).send, "127.0.0.1", port, True, 10)
    return DNSRecord.parse(packed)


def records(reply: DNSRecord) -> list[tuple[str, str, str]]:
    return [(str(rr.rname), QTYPE[rr.rtype], str(rr.rdata)) for rr in reply.rr]


@pytest.mark.parametrize("ask", [over_udp, over_tcp])
async def test_names_of_the_mesh_are_answered_over_both_transports(ask):
    async with listening(a_proxy()) as port:
        for name in ("reviews", "reviews.shop", "Reviews.Shop.svc.cluster.local"):
            reply = await ask(question(name), port)
            assert records(reply) == [(f"{name}.", "A", "10.0.0.1")]
        reply = await ask(question("reviews", "AAAA"), port)
        assert records(reply) == [("reviews.", "AAAA", "fd00::1")]
        reply = await ask(question("a.b.wild.example.com"), port)
        assert records(reply) == [("a.b.wild.example.com.", "A", "10.0.0.3")]
        reply = await ask(question("v4.example.com.example.org"), port)
        assert records(reply) == [
            ("v4.example.com.example.org.", "CNAME", "v4.example.com."),
            ("v4.example.com.", "A", "10.0.0.2"),
        ]


async def test_a_family_that_the_host_has_not_is_no_error_and_no_question_to_others():
    async with (
        resolver(addresses("fd00::66")) as server,
        listening(a_proxy(server.address)) as port,
    ):
        reply = await over_udp(question("v4.example.com", "AAAA"), port)
    assert (reply.header.rcode, reply.rr, reply.header.aa) == (RCODE.NOERROR, [], 1)
    assert server.asked == []


async def test_other_names_are_answered_by_the_machines_resolver():
    async with (
        resolver(addresses("192.0.2.1")) as server,
        listening(a_proxy(server.address)) as port,
    ):
        for ask in (over_udp, over_tcp):
            reply = await ask(question("www.example.net"), port)
            assert records(reply) == [("www.example.net.", "A", "192.0.2.1")]
            assert reply.header.id == 4711


async def test_another_type_of_a_name_of_ours_is_asked_for_and_never_does_not_exist():
    unknown = failing(RCODE.NXDOMAIN)
    async with resolver(unknown) as server, listening(a_proxy(server.address)) as port:
        reply = await over_udp(question("v4.example.com", "MX"), port)
        assert (reply.header.rcode, reply.rr) == (RCODE.NOERROR, [])
        reply = await over_udp(question("elsewhere.example.com", "MX"), port)
        assert reply.header.rcode == RCODE.NXDOMAIN
    async with listening(a_proxy()) as port:
        assert (await over_udp(question("v4.example.com", "MX"), port)).header.rcode == 0


async def test_without_an_answer_from_anywhere_it_is_servfail_with_the_question():
    proxy = a_proxy()
    async with listening(proxy) as port:
        reply = await over_udp(question("www.example.net"), port)
    assert reply.header.rcode == RCODE.SERVFAIL
    assert str(reply.q.qname) == "www.example.net."
    assert sample(proxy.metrics.upstream_failures) == 1


def sample(counter):
    return next(iter(counter.collect())).samples[0].value


async def test_a_large_answer_is_truncated_over_udp_and_whole_over_tcp():
    async with listening(a_proxy()) as port:
        cut = await over_udp(question("many.example.com"), port)
        assert (cut.header.tc, len(cut.rr)) == (1, 29)
        record = DNSRecord(
            DNSHeader(id=1), q=DNSQuestion("many.example.com"), ar=[EDNS0(udp_len=4096)]
        )
        wide = await over_udp(record.pack(), port)
        assert len(wide.rr) == 253
        whole = await over_tcp(question("many.example.com"), port)
        assert (whole.header.tc, len(whole.rr)) == (0, 300)


async def test_an_upstream_answer_beyond_what_the_caller_takes_is_truncated():
    def large(query: DNSRecord, _: str):
        answer = query.reply()
        for number in range(100):
            answer.add_answer(RR(query.q.qname, rdata=A(f"192.0.2.{number}")))
        return [answer.pack()]

    async with resolver(large) as server, listening(a_proxy(server.address)) as port:
        reply = await over_udp(question("www.example.net"), port)
        assert (reply.header.tc, reply.rr) == (1, [])
        assert len((await over_tcp(question("www.example.net"), port)).rr) == 100


async def test_one_connection_carries_many_questions_and_a_slow_one_holds_up_no_other():
    async with resolver(silent) as server, listening(a_proxy(server.address)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        asked = [question("www.example.net", id_=1)]
        asked += [question("reviews", id_=number) for number in range(2, 40)]
        writer.write(b"".join(struct.pack("!H", len(data)) + data for data in asked))
        got = []
        for _ in asked:
            size = struct.unpack("!H", await reader.readexactly(2))[0]
            got.append(DNSRecord.parse(await reader.readexactly(size)).header.id)
        writer.close()
    assert got == [*range(2, 40), 1]


async def test_a_client_that_ends_its_side_still_has_its_answers():
    async with (
        resolver(addresses("192.0.2.1")) as server,
        listening(a_proxy(server.address)) as port,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        data = question("www.example.net")
        writer.write(struct.pack("!H", len(data)) + data)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
    assert records(DNSRecord.parse(answer[2:])) == [("www.example.net.", "A", "192.0.2.1")]


async def test_a_connection_without_questions_or_with_half_a_question_is_ended(monkeypatch):
    monkeypatch.setattr(proxies, "IDLE_S", 0.05)
    async with listening(a_proxy()) as port:
        for begun in (b"", b"\0", b"\0\x20half"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(begun)
            assert await reader.read() == b""
            writer.close()


async def test_connections_beyond_the_limit_are_refused(monkeypatch):
    monkeypatch.setattr(proxies, "MOST_CONNECTIONS", 2)
    async with listening(a_proxy()) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        assert records(await over_udp(question("reviews"), port))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        for _, open_writer in [*held, (reader, writer)]:
            open_writer.close()


async def test_questions_beyond_what_may_be_under_way_are_servfail_at_once():
    async with resolver(silent) as server:
        proxy = a_proxy(server.address, timeout_s=60, most_at_once=1)
        async with listening(proxy) as port:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(question("a.example.net"), ("127.0.0.1", port))
            while not server.asked:
                await asyncio.sleep(0.001)
            reply = await over_udp(question("b.example.net"), port)
            assert reply.header.rcode == RCODE.SERVFAIL
            assert records(await over_udp(question("reviews"), port))


async def test_a_question_of_its_own_that_comes_back_is_not_asked_again():
    """As with a resolver whose traffic the machine's own rules send here."""
    servers: list[tuple[str, int]] = []
    proxy = a_proxy()
    looping = DnsProxy(
        proxy._table,
        Upstream(lambda: servers, lambda: 7, Asking(timeout_s=60)),
        lambda _: None,
        time.perf_counter,
        proxy.metrics,
    )
    async with listening(looping) as port:
        servers.append(("127.0.0.1", port))
        reply = await over_udp(question("www.example.net"), port)
    assert reply.header.rcode == RCODE.REFUSED
    assert sample(proxy.metrics.loops) == 2


async def test_before_any_name_table_a_name_like_the_meshs_is_a_passing_failure():
    async with resolver(failing(RCODE.NXDOMAIN)) as server:
        proxy = a_proxy(server.address)
        proxy._table = NameTable(namespace="shop", domain="cluster.local")
        async with listening(proxy) as port:
            reply = await over_udp(question("reviews"), port)
            assert reply.header.rcode == RCODE.SERVFAIL
            assert server.asked == []
            proxy._table.apply({}, ())
            reply = await over_udp(question("reviews"), port)
            assert reply.header.rcode == RCODE.NXDOMAIN


async def test_localhost_is_both_families():
    async with listening(a_proxy(), "localhost") as port:
        for host in ("127.0.0.1", "::1"):
            assert records(await over_udp(question("reviews"), port, host))


async def test_a_port_in_use_or_an_impossible_address_names_the_setting():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for text in (address, "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999"):
            with pytest.raises(FatalError, match="--dns-address"):
                async with a_proxy().listening(text, setting="--dns-address"):
                    pass


@settings(max_examples=300)
@given(st.binary(max_size=80), st.booleans())
def test_no_bytes_stop_it(data, stream):
    proxy = a_proxy()
    answer = proxy.respond(data, ("127.0.0.1", 1), stream=stream)
    if asyncio.iscoroutine(answer):
        answer.close()  # a question for others: whoever asks it is tested elsewhere
        return
    assert answer is None or isinstance(answer, bytes)
    assert answer is None or answer[:2] == data[:2]


async def test_malformed_datagrams_and_streams_leave_it_answering():
    async with listening(a_proxy()) as port:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for size in range(0, 60, 3):
                client.sendto(b"\xff" * size, ("127.0.0.1", port))
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\xff" * 100)
        writer.close()
        assert records(await over_udp(question("reviews"), port))
        broken = bytearray(question("reviews"))
        broken[5] = 2
        reply = await asyncio.to_thread(_udp, bytes(broken), port, "127.0.0.1")
        assert message.rcode_of(reply) == message.FORMERR
