"""The DNS registry over a real DNS server on loopback: names become services, answers endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from services.pilot import metrics
from services.pilot.registry import dns as module
from services.pilot.registry.dns import DnsName, DnsRegistry, Target, service_entry
from services.pilot.registry.protocol import RegistryBatch, decode_found
from services.pilot.registry.resolver import Resolver
from tests.fakes.dns_server import FakeDns

DB = DnsName("db.example.com", 5432)
WEB = DnsName("_http._tcp.web.example.com", 0, "HTTP")


@pytest.fixture
async def dns():
    async with FakeDns() as server:
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LEAST_S", "RETRY_LEAST_S", "RETRY_MOST_S"):
        monkeypatch.setattr(module, name, 0.02)


def registry(wanted: DnsName, server: FakeDns) -> DnsRegistry:
    return DnsRegistry(wanted, Resolver(lambda: [server.server], lambda: 7, 0.1), lambda: 0.5)


async def next_of(batches: AsyncGenerator[RegistryBatch, None]) -> RegistryBatch:
    async with asyncio.timeout(10):
        return await anext(batches)


def endpoints(batch: RegistryBatch) -> list[tuple[str, int, int]]:
    (item,) = batch.upserts
    return [
        (endpoint.address, next(iter(endpoint.ports.values())), endpoint.weight)
        for endpoint in item.spec.endpoints
    ]


async def test_a_name_is_a_service_of_its_addresses(dns):
    dns.put("db.example.com", "A", "10.0.0.2", "10.0.0.1")
    dns.put("db.example.com", "AAAA", "fd00::1")
    async with aclosing(registry(DB, dns).batches()) as batches:
        batch = await next_of(batches)
    (item,) = batch.upserts
    assert batch.whole
    assert str(item.key) == "ServiceEntry/dns/dns:db.example.com"
    assert item.spec.hosts == ("db.example.com",)
    assert [(port.number, port.protocol) for port in item.spec.ports] == [(5432, "TCP")]
    assert endpoints(batch) == [("10.0.0.1", 5432, 1), ("10.0.0.2", 5432, 1), ("fd00::1", 5432, 1)]


async def test_an_srv_name_is_a_service_of_its_targets_of_the_best_priority(dns):
    targets = [(2, 1, 9000, "spare.example.com"), (1, 30, 8081, "one.example.com"), (1, 0, 8080, "two.example.com")]  # fmt: skip
    dns.put("_http._tcp.web.example.com", "SRV", *targets)
    dns.put("one.example.com", "A", "10.0.0.1")
    dns.put("two.example.com", "A", "10.0.0.2", "10.0.0.3")
    dns.put("spare.example.com", "A", "10.0.0.9")
    async with aclosing(registry(WEB, dns).batches()) as batches:
        batch = await next_of(batches)
    (item,) = batch.upserts
    assert item.spec.hosts == ("web.example.com",)
    assert [(port.number, port.protocol) for port in item.spec.ports] == [(8080, "HTTP")]
    assert endpoints(batch) == [("10.0.0.1", 8081, 30), ("10.0.0.2", 8080, 1), ("10.0.0.3", 8080, 1)]  # fmt: skip


async def test_what_changes_is_told_once(dns):
    dns.put("db.example.com", "A", "10.0.0.1", ttl=0)
    async with aclosing(registry(DB, dns).batches()) as batches:
        await next_of(batches)
        following = asyncio.create_task(next_of(batches))
        asked = len(dns.asked)
        while len(dns.asked) < asked + 6:
            await asyncio.sleep(0.01)
        assert not following.done()
        dns.put("db.example.com", "A", "10.0.0.1", "10.0.0.4", ttl=0)
        batch = await following
        assert [address for address, _, _ in endpoints(batch)] == ["10.0.0.1", "10.0.0.4"]
        assert not batch.whole


@pytest.mark.parametrize("how", ["silent", "fails"])
async def test_a_failure_keeps_the_last_answer_and_is_told_once(dns, how):
    dns.put("db.example.com", "A", "10.0.0.1", ttl=0)
    made = registry(DB, dns)
    async with aclosing(made.batches()) as batches:
        await next_of(batches)
        following = asyncio.create_task(next_of(batches))
        with capture_logs() as logs:
            dns.silent, dns.fails = how == "silent", {"A", "AAAA"} if how == "fails" else set()
            asked = len(dns.asked)
            while len(dns.asked) < asked + 12:
                await asyncio.sleep(0.01)
            assert not following.done()
            assert metrics.REGISTRY_UP.labels(made.name)._value.get() == 0
            dns.silent, dns.fails = False, set()
            dns.put("db.example.com", "A", "10.0.0.2", ttl=0)
            assert endpoints(await following) == [("10.0.0.2", 5432, 1)]
        assert metrics.REGISTRY_UP.labels(made.name)._value.get() == 1
    events = [item["event"] for item in logs]
    assert events[0] == "registry.problem"
    assert events[-1] == "registry.recovered"


async def test_one_target_that_cannot_be_looked_up_keeps_what_it_had(dns):
    dns.put("_http._tcp.web.example.com", "SRV", (1, 1, 80, "one.example.com"), ttl=0)
    dns.put("one.example.com", "A", "10.0.0.1", ttl=0)
    async with aclosing(registry(WEB, dns).batches()) as batches:
        await next_of(batches)
        dns.fails = {"A"}
        dns.put("_http._tcp.web.example.com", "SRV", (1, 1, 81, "one.example.com"), ttl=0)
        assert endpoints(await next_of(batches)) == [("10.0.0.1", 81, 1)]


async def test_a_family_that_fails_does_not_take_the_other_along(dns):
    dns.put("db.example.com", "A", "10.0.0.1")
    dns.fails = {"AAAA"}
    async with aclosing(registry(DB, dns).batches()) as batches:
        assert endpoints(await next_of(batches)) == [("10.0.0.1", 5432, 1)]


async def test_targets_that_are_gone_are_not_remembered(dns):
    made = registry(WEB, dns)
    for number in range(4):
        dns.put("_http._tcp.web.example.com", "SRV", (1, 1, 80, f"t{number}.example.com"))
        dns.put(f"t{number}.example.com", "A", f"10.0.0.{number}")
        await made._lookup.targets()
    assert {name for name, _ in made._lookup._last} == {
        "_http._tcp.web.example.com",
        "t3.example.com",
    }


async def test_a_name_that_is_gone_has_no_endpoints(dns):
    dns.put("db.example.com", "A", "10.0.0.1", ttl=0)
    dns.negative_ttl = 0
    async with aclosing(registry(DB, dns).batches()) as batches:
        await next_of(batches)
        dns.zone.clear()
        assert endpoints(await next_of(batches)) == []


async def test_nothing_is_said_before_the_first_answer(dns):
    dns.silent = True
    made = registry(DB, dns)
    async with aclosing(made.batches()) as batches:
        first = asyncio.create_task(next_of(batches))
        while len(dns.asked) < 2:
            await asyncio.sleep(0.01)
        assert not first.done()
        dns.silent = False
        dns.put("db.example.com", "A", "10.0.0.1")
        assert (await first).whole


@given(st.floats(0, 10**9), st.integers(0, 2000), st.floats(0, 1))
def test_pauses_are_bounded_and_jittered(ttl_s, failures, chance):
    resolver: Any = None
    made = DnsRegistry(DB, resolver, lambda: chance)
    pause_s = made.pause_s(ttl_s, failures)
    most_s = module.RETRY_MOST_S if failures else module.MOST_S
    assert 0.9 * min(module.LEAST_S, module.RETRY_LEAST_S) <= pause_s <= 1.1 * most_s


@given(
    st.sets(
        st.builds(Target, st.ip_addresses().map(str), st.integers(1, 65535), st.integers(1, 65535))
    )
)
def test_any_answer_makes_a_valid_service_whatever_its_order(targets):
    ordered = sorted(targets)
    one = decode_found("dns", service_entry(WEB, ordered))
    other = decode_found("dns", service_entry(WEB, reversed(ordered)))
    assert one == other
    assert one[0] is not None
