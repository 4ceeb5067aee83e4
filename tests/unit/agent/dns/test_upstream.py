import asyncio
import itertools
import socket

import pytest
from dnslib import RCODE, RR, A, DNSRecord

from services.agent.dns import message
from services.agent.dns.upstream import Asking, Upstream
from tests.unit.agent.dns.resolver import addresses, failing, question, resolver, silent

NAME = "www.example.com"


def upstream(*servers, **asking) -> Upstream:
    ids = itertools.count(1000)
    return Upstream(lambda: servers, lambda: next(ids), Asking(**asking))


async def ask(asked: Upstream, *, whole=False, data=None):
    data = data or question(NAME)
    answer = await asked.ask(data, message.parse(data), whole=whole)
    return DNSRecord.parse(answer) if answer is not None else None


def unused_port() -> tuple[str, int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))
        found: tuple[str, int] = held.getsockname()
        return found


async def test_the_answer_comes_back_under_the_callers_id():
    async with resolver(addresses("192.0.2.1")) as server:
        answer = await ask(upstream(server.address))
    assert answer.header.id == 4711
    assert [str(rr.rdata) for rr in answer.rr] == ["192.0.2.1"]
    assert server.asked[0][0].header.id == 1000


async def test_every_question_has_an_id_and_a_port_of_its_own():
    async with resolver(addresses("192.0.2.1")) as server:
        asked = upstream(server.address)
        await asyncio.gather(*(ask(asked) for _ in range(8)))
    assert len({query.header.id for query, _, _ in server.asked}) == 8
    assert len({port for _, _, port in server.asked}) == 8


async def test_a_forged_answer_is_not_heard():
    def forging(query: DNSRecord, _: str):
        wrong_id, wrong_question = query.reply(), DNSRecord.question("evil.example.com").reply()
        wrong_id.header.id ^= 1
        wrong_question.header.id = query.header.id
        for forged in (wrong_id, wrong_question):
            forged.add_answer(RR(NAME, rdata=A("203.0.113.66")))
        return [
            b"",
            b"x",
            wrong_id.pack(),
            wrong_question.pack(),
            *addresses("192.0.2.1")(query, _),
        ]

    async with resolver(forging) as server:
        answer = await ask(upstream(server.address))
    assert [str(rr.rdata) for rr in answer.rr] == ["192.0.2.1"]


async def test_a_silent_server_is_followed_by_the_next_after_its_share_of_the_time():
    async with resolver(silent) as first, resolver(addresses("192.0.2.2")) as second:
        asked = upstream(first.address, second.address, timeout_s=2)
        answer = await ask(asked)
    assert [str(rr.rdata) for rr in answer.rr] == ["192.0.2.2"]
    assert first.asked


async def test_a_server_that_nobody_runs_is_passed_over_at_once():
    async with resolver(addresses("192.0.2.2")) as second:
        answer = await ask(upstream(unused_port(), second.address, timeout_s=3600))
    assert [str(rr.rdata) for rr in answer.rr] == ["192.0.2.2"]


@pytest.mark.parametrize("rcode", [RCODE.SERVFAIL, RCODE.REFUSED])
async def test_a_server_that_fails_is_passed_over_at_once(rcode):
    async with resolver(failing(rcode)) as first, resolver(addresses("192.0.2.2")) as second:
        answer = await ask(upstream(first.address, second.address, timeout_s=3600))
    assert [str(rr.rdata) for rr in answer.rr] == ["192.0.2.2"]


async def test_a_name_that_does_not_exist_is_an_answer():
    async with resolver(failing(RCODE.NXDOMAIN)) as first, resolver(silent) as second:
        answer = await ask(upstream(first.address, second.address, timeout_s=3600))
    assert answer.header.rcode == RCODE.NXDOMAIN
    assert second.asked == []


async def test_a_failure_is_told_when_nobody_knows_better():
    async with resolver(failing(RCODE.REFUSED)) as server:
        answer = await ask(upstream(server.address, timeout_s=3600))
        assert len(server.asked) == 2
    assert answer.header.rcode == RCODE.REFUSED


async def test_silence_everywhere_is_no_answer():
    async with resolver(silent) as first, resolver(silent) as second:
        assert await ask(upstream(first.address, second.address, timeout_s=0.2)) is None
    assert first.asked


async def test_every_server_has_every_attempt():
    fails = failing(RCODE.SERVFAIL)
    async with resolver(fails) as first, resolver(fails) as second:
        asked = upstream(first.address, second.address, timeout_s=3600, attempts=3)
        assert (await ask(asked)).header.rcode == RCODE.SERVFAIL
        assert (len(first.asked), len(second.asked)) == (3, 3)


async def test_a_late_answer_of_an_earlier_try_still_counts():
    def late(query: DNSRecord, transport: str):
        if len(server.asked) == 2:
            first, _, port = server.asked[0]
            answer = next(iter(addresses("192.0.2.1")(first, transport)))
            server._transport.sendto(answer, ("127.0.0.1", port))
        return []

    async with resolver(late) as server:
        answer = await ask(upstream(server.address, timeout_s=2))
    assert [str(rr.rdata) for rr in answer.rr] == ["192.0.2.1"]


async def test_in_parallel_every_server_is_asked_at_once():
    async with resolver(silent) as first, resolver(addresses("192.0.2.2")) as second:
        asked = upstream(first.address, second.address, timeout_s=3600, parallel=True)
        answer = await ask(asked)
        assert [str(rr.rdata) for rr in answer.rr] == ["192.0.2.2"]


def cut_over_udp(query: DNSRecord, transport: str):
    answer = query.reply()
    if transport == "udp":
        answer.header.tc = 1
    else:
        for number in range(100):
            answer.add_answer(RR(query.q.qname, rdata=A(f"192.0.2.{number}")))
    return [answer.pack()]


async def test_a_truncated_answer_is_fetched_whole_for_who_can_take_it():
    async with resolver(cut_over_udp) as server:
        asked = upstream(server.address)
        assert len((await ask(asked, whole=True)).rr) == 100
        assert (await ask(asked)).header.tc == 1
    assert [transport for _, transport, _ in server.asked] == ["udp", "tcp", "udp"]


async def test_more_questions_than_may_be_under_way_are_not_asked():
    async with resolver(silent) as server:
        asked = upstream(server.address, timeout_s=0.2, most_at_once=2)
        first = [asyncio.ensure_future(ask(asked)) for _ in range(2)]
        await asyncio.sleep(0)
        assert asked.full
        assert await ask(asked) is None
        assert await asyncio.gather(*first) == [None, None]
        assert not asked.full


async def test_without_servers_there_is_no_answer():
    assert await ask(upstream()) is None


async def test_a_question_that_is_given_up_leaves_no_socket():
    async with resolver(silent) as server:
        asked = upstream(server.address, timeout_s=3600)
        task = asyncio.ensure_future(ask(asked))
        while not server.asked:
            await asyncio.sleep(0.001)
        port = server.asked[0][2]
        assert asked.sent(("127.0.0.1", port))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not asked.sent(("127.0.0.1", port))
        assert not asked.full
