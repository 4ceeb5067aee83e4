"""DNS questions to a real server on loopback: what is believed, what is passed over, what fails."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from dnslib import QTYPE, RR, A, DNSQuestion, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from services.pilot.registry.resolver import (
    MOST_RECORDS,
    LookupFailed,
    Resolver,
    Server,
    parse_reply,
    read_answer,
    servers_of,
    system_servers,
)
from tests.fakes.dns_server import FakeDns
from windward.local.addresses import free_port


@pytest.fixture
async def dns():
    async with FakeDns() as server:
        yield server


def asking(*servers: Server, timeout_s: float = 5.0) -> Resolver:
    return Resolver(lambda: servers, lambda: 4711, timeout_s)


async def test_addresses_with_their_ttl(dns):
    dns.put("a.example.com", "A", "10.0.0.1", "10.0.0.2", ttl=42)
    answer = await asking(dns.server).query("a.example.com", "A")
    assert [record.data for record in answer.records] == ["10.0.0.1", "10.0.0.2"]
    assert answer.ttl_s == 42


async def test_services(dns):
    dns.put("_http._tcp.a.com", "SRV", (1, 5, 8080, "One.a.com."))
    answer = await asking(dns.server).query("_http._tcp.a.com", "SRV")
    assert [record.data for record in answer.records] == [(1, 5, 8080, "one.a.com")]


async def test_aliases_are_followed_and_the_shortest_ttl_counts(dns):
    dns.put("a.com", "CNAME", "b.com", ttl=5)
    dns.put("b.com", "CNAME", "c.com", ttl=50)
    dns.put("c.com", "A", "10.0.0.1", ttl=60)
    answer = await asking(dns.server).query("A.com", "A")
    assert not answer.records, "a name in another case is another name for the fake, not for us"
    answer = await asking(dns.server).query("a.com", "A")
    assert ([record.data for record in answer.records], answer.ttl_s) == (["10.0.0.1"], 5)


async def test_a_name_or_type_that_is_not_there_is_an_answer(dns):
    dns.put("a.com", "A", "10.0.0.1")
    for name, kind in (("b.com", "A"), ("a.com", "AAAA")):
        answer = await asking(dns.server).query(name, kind)
        assert (answer.records, answer.ttl_s) == ((), 7)


async def test_what_does_not_fit_comes_over_tcp(dns):
    dns.put("a.com", "A", *(f"10.0.{number}.1" for number in range(200)))
    answer = await asking(dns.server).query("a.com", "A")
    assert len(answer.records) == 200
    assert [transport for transport, _, _ in dns.asked] == ["udp", "tcp"]


async def test_a_failing_server_is_passed_over(dns):
    async with FakeDns(fails={"A"}) as bad:
        dns.put("a.com", "A", "10.0.0.1")
        assert (await asking(bad.server, dns.server).query("a.com", "A")).records
    nobody = ("127.0.0.1", free_port("127.0.0.1"))
    assert (await asking(nobody, dns.server).query("a.com", "A")).records


async def test_a_silent_server_is_passed_over(dns):
    async with FakeDns(silent=True) as silent:
        dns.put("a.com", "A", "10.0.0.1")
        resolver = asking(silent.server, dns.server, timeout_s=0.1)
        assert (await resolver.query("a.com", "A")).records


async def test_when_nobody_answers_it_says_what_each_did(dns):
    dns.fails.add("A")
    async with FakeDns(silent=True) as silent:
        with pytest.raises(LookupFailed) as caught:
            await asking(dns.server, silent.server, timeout_s=0.05).query("a.com", "A")
    assert "SERVFAIL" in str(caught.value)
    assert f"{silent.port} does not answer" in str(caught.value)
    with pytest.raises(LookupFailed, match="no DNS server"):
        await asking().query("a.com", "A")


def forged(id_: int, name: str = "a.com") -> bytes:
    record = DNSRecord(q=DNSQuestion(name, QTYPE.A)).reply()
    record.header.id = id_
    record.add_answer(RR(name, QTYPE.A, rdata=A("6.6.6.6"), ttl=1))
    return bytes(record.pack())


async def test_what_does_not_answer_this_question_is_as_if_it_had_not_come(dns):
    dns.put("a.com", "A", "10.0.0.1")
    query = DNSRecord(q=DNSQuestion("a.com", QTYPE.A)).pack()
    dns.noise = [forged(4712), b"\0\0" + forged(0, "b.com")[2:], b"", b"\0\0", b"\0\0" + query[2:]]
    answer = await asking(dns.server).query("a.com", "A")
    assert [record.data for record in answer.records] == ["10.0.0.1"]


def test_an_answer_of_too_many_records_is_none():
    record = DNSRecord(q=DNSQuestion("a.com", QTYPE.A)).reply()
    for _ in range(MOST_RECORDS + 1):
        record.add_answer(RR("a.com", QTYPE.A, rdata=A("10.0.0.1"), ttl=1))
    with pytest.raises(LookupFailed, match="more than"):
        read_answer(record, "a.com", "A")


def test_aliases_in_a_circle_end():
    from dnslib import CNAME

    record = DNSRecord(q=DNSQuestion("a.com", QTYPE.A)).reply()
    record.add_answer(RR("a.com", QTYPE.CNAME, rdata=CNAME("b.com"), ttl=9))
    record.add_answer(RR("b.com", QTYPE.CNAME, rdata=CNAME("a.com"), ttl=9))
    assert read_answer(record, "a.com", "A").records == ()


@given(st.binary(max_size=200), st.binary(max_size=60))
def test_no_bytes_make_it_fail(data, tail):
    question = DNSRecord(q=DNSQuestion("a.com", QTYPE.A))
    question.header.id = 0
    parse_reply(data, question)
    parse_reply(forged(0)[: len(data)] + tail, question)


def test_servers_of_a_resolv_conf():
    text = "# a comment\nsearch example.com\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver\noptions x\n"
    assert servers_of(text) == (("10.0.0.1", 53), ("fe80::1", 53))
    assert len(servers_of("nameserver 10.0.0.1\n" * 5)) == 3


def test_a_machine_without_resolvers_has_none(tmp_path):
    assert system_servers(tmp_path / "absent") == ()
    (tmp_path / "resolv.conf").write_bytes(b"nameserver \xff")
    assert system_servers(tmp_path / "resolv.conf") == ()
    (tmp_path / "resolv.conf").write_text("nameserver 10.0.0.9")
    assert system_servers(tmp_path / "resolv.conf") == (("10.0.0.9", 53),)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_many_questions_leave_no_socket_open(dns):
    dns.put("a.com", "A", "10.0.0.1")
    resolver = asking(dns.server)
    await resolver.query("a.com", "A")
    await asyncio.sleep(0)
    before = open_files()
    await asyncio.gather(*(resolver.query("a.com", "A") for _ in range(50)))
    await asyncio.sleep(0)
    assert open_files() == before
