"""Following a Consul server that changes, restarts, fails, and tells an older history."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.pilot import metrics
from services.pilot.registry import consul_client as module
from services.pilot.registry.consul_client import Consul, ConsulRegistry
from services.pilot.registry.protocol import RegistryBatch
from tests.fakes.consul_server import FakeConsul, instance

WEB = "consul:web"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANEW_S", 0.03)
    monkeypatch.setattr(module, "PACE_S", 0.001)


@pytest.fixture
async def consul():
    async with FakeConsul() as server:
        server.put("web", instance("10.0.0.1"))
        yield server


def registry(server: FakeConsul, **changes: Any) -> ConsulRegistry:
    given = {"wait_s": 5.0, "retry_s": 0.02, "doubt_s": 0.3, **changes}
    return ConsulRegistry(Consul(server.url, **given), lambda: 0.5)


class Mesh:
    """What a registry's batches add up to."""

    def __init__(self, batches: AsyncGenerator[RegistryBatch, None]) -> None:
        self._batches = batches
        self.services: dict[str, set[str]] = {}
        self.batches = 0

    async def next(self) -> RegistryBatch:
        async with asyncio.timeout(10):
            batch = await anext(self._batches)
        self.batches += 1
        if batch.whole:
            self.services.clear()
        for key in batch.removed:
            del self.services[key.name]
        for item in batch.upserts:
            self.services[item.key.name] = {one.address for one in item.spec.endpoints}
        return batch

    async def until(self, services: dict[str, set[str]]) -> None:
        while self.services != services:
            await self.next()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)


async def test_everything_once_then_what_changes(consul):
    consul.put("db", instance("10.0.1.1", 5432), instance("10.0.1.2", 5432, status="critical"))
    async with aclosing(registry(consul).batches()) as batches:
        mesh = Mesh(batches)
        first = await mesh.next()
        assert first.whole
        assert mesh.services == {WEB: {"10.0.0.1"}, "consul:db": {"10.0.1.1"}}
        consul.put("web", instance("10.0.0.1"), instance("10.0.0.2"))
        batch = await mesh.next()
        assert [item.key.name for item in batch.upserts] == [WEB]
        assert mesh.services[WEB] == {"10.0.0.1", "10.0.0.2"}
        consul.put("web", instance("10.0.0.1", status="critical"), instance("10.0.0.2"))
        await mesh.until({WEB: {"10.0.0.2"}, "consul:db": {"10.0.1.1"}})
        consul.put("new", instance("10.0.2.1"))
        await mesh.until({WEB: {"10.0.0.2"}, "consul:db": {"10.0.1.1"}, "consul:new": {"10.0.2.1"}})
        consul.remove("db")
        await mesh.until({WEB: {"10.0.0.2"}, "consul:new": {"10.0.2.1"}})


async def test_questions_wait_with_the_index_and_only_for_what_passes(consul):
    async with aclosing(registry(consul, datacenter="dc2").batches()) as batches:
        mesh = Mesh(batches)
        await mesh.next()
        following = asyncio.create_task(mesh.next())
        await until(lambda: len(consul.requests) == 4)
        await asyncio.sleep(0.05)
        assert len(consul.requests) == 4, "who waits asks no more"
        consul.put("web", instance("10.0.0.2"))
        await following
    asked = {(path, query.get("index")): query for path, query in consul.requests}
    health = asked["/v1/health/service/web", "11"]
    assert health == {"index": "11", "wait": "5s", "dc": "dc2", "passing": "1"}
    assert asked["/v1/catalog/services", "11"] == {"index": "11", "wait": "5s", "dc": "dc2"}


async def test_an_answer_that_says_nothing_new_is_no_batch(consul):
    async with aclosing(registry(consul).batches()) as batches:
        mesh = Mesh(batches)
        await mesh.next()
        following = asyncio.create_task(mesh.next())
        for _ in range(5):
            consul.requests.clear()
            consul.moved()
            await until(lambda: len(consul.requests) >= 2)
        assert not following.done()
        consul.put("web", instance("10.0.0.7"))
        assert (await following).upserts


async def test_a_restart_loses_nothing_though_services_come_back_one_by_one(consul):
    for number in range(6):
        consul.put(f"s{number}", instance(f"10.1.0.{number}"))
    made = registry(consul, doubt_s=30.0)
    async with aclosing(made.batches()) as batches:
        mesh = Mesh(batches)
        await mesh.next()
        before = dict(mesh.services)
        following = asyncio.create_task(mesh.next())
        await consul.stop()
        await until(lambda: metrics.REGISTRY_UP.labels(made.name)._value.get() == 0)
        services, consul.services, consul.index = consul.services, {}, 3
        consul.requests.clear()
        await consul.start()
        for name, instances in services.items():
            await until(lambda: len(consul.requests) >= 3)
            consul.requests.clear()
            consul.put(name, *instances)
        await until(lambda: metrics.REGISTRY_UP.labels(made.name)._value.get() == 1)
        assert not following.done()
        assert mesh.services == before
        consul.put("web", instance("10.0.0.9"))
        await following
        assert mesh.services == {**before, WEB: {"10.0.0.9"}}


async def test_what_does_not_come_back_after_a_restart_is_gone_in_the_end(consul):
    consul.put("db", instance("10.0.1.1"))
    async with aclosing(registry(consul).batches()) as batches:
        mesh = Mesh(batches)
        await mesh.next()
        await consul.stop()
        del consul.services["db"]
        consul.index = 1
        await consul.start()
        await mesh.until({WEB: {"10.0.0.1"}})


async def test_an_index_that_goes_back_is_noticed_and_what_is_missing_doubted(consul):
    consul.put("db", instance("10.0.1.1"))
    made = registry(consul, doubt_s=30.0)
    async with aclosing(made.batches()) as batches:
        mesh = Mesh(batches)
        await mesh.next()
        following = asyncio.create_task(mesh.next())
        instances = consul.services.pop("db")
        consul.requests.clear()
        consul.moved(2)
        await until(lambda: len(consul.requests) > 8)
        assert not following.done()
        consul.services["db"] = instances
        consul.put("web", instance("10.0.0.5"))
        await following
        assert mesh.services == {WEB: {"10.0.0.5"}, "consul:db": {"10.0.1.1"}}


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"status": {"/v1": 500}}, "status 500"),
        ({"status": {"/v1": 301}}, "status 301"),
        ({"bodies": {"/v1": b"\xff not json"}}, "JSON is malformed"),
        ({"bodies": {"/v1": b"[[[[{}"}}, "Expected"),
        ({"bodies": {"/v1": b" " * 3000}}, "answers more than"),
        ({"token": "another"}, "status 403"),
    ],
)
async def test_what_is_no_answer_keeps_what_was_known_and_is_told_once(
    consul, how, reason, monkeypatch
):
    monkeypatch.setattr(module, "LARGEST_BYTES", 2000)
    async with aclosing(registry(consul).batches()) as batches:
        mesh = Mesh(batches)
        await mesh.next()
        following = asyncio.create_task(mesh.next())
        with capture_logs() as logs:
            for name, value in how.items():
                setattr(consul, name, value)
            consul.requests.clear()
            consul.moved()
            await until(lambda: len(consul.requests) >= 6)
            assert not following.done()
            said = [item["reason"] for item in logs if item["event"] == "registry.problem"]
            assert len(said) == 2
            assert all(reason in item for item in said)
            consul.status, consul.bodies, consul.token = {}, {}, ""
            consul.put("web", instance("10.0.0.8"))
            await following
        assert mesh.services == {WEB: {"10.0.0.8"}}


async def test_one_service_that_cannot_be_asked_for_does_not_hold_up_the_first_batch(consul):
    consul.put("bad", instance("10.0.3.1"))
    consul.status = {"/v1/health/service/bad": 500}
    async with aclosing(registry(consul).batches()) as batches:
        mesh = Mesh(batches)
        await mesh.next()
        assert mesh.services == {WEB: {"10.0.0.1"}}
        consul.status = {}
        await mesh.until({WEB: {"10.0.0.1"}, "consul:bad": {"10.0.3.1"}})


async def test_a_server_that_is_away_at_first_is_waited_for():
    server = FakeConsul()
    server.put("web", instance())
    async with aclosing(registry(server).batches()) as batches:
        first = asyncio.create_task(Mesh(batches).next())
        await asyncio.sleep(0.05)
        assert not first.done()
        async with server:
            assert (await first).whole


async def test_a_server_without_indices_does_not_block_and_is_not_asked_all_the_time(
    consul, monkeypatch
):
    consul.sends_index = False
    async with aclosing(registry(consul).batches()) as batches:
        mesh = Mesh(batches)
        await mesh.next()
        consul.put("web", instance("10.0.0.6"))
        await mesh.until({WEB: {"10.0.0.6"}})
        following = asyncio.create_task(mesh.next())
        monkeypatch.setattr(module, "ANEW_S", 3600.0)
        for _ in range(3):
            consul.requests.clear()
            await asyncio.sleep(0.05)
        assert not consul.requests
        following.cancel()
        await asyncio.wait({following})


async def test_a_token_is_read_anew_for_every_question(consul):
    consul.token = "second"
    tokens = iter(["first"] * 3 + ["second"] * 1000)
    async with aclosing(registry(consul, token=lambda: next(tokens)).batches()) as batches:
        assert (await Mesh(batches).next()).whole


async def test_a_token_that_cannot_be_read_fails_the_question_only(consul):
    calls = 0

    def token() -> str:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise FileNotFoundError("token")
        return ""

    async with aclosing(registry(consul, token=token).batches()) as batches:
        assert (await Mesh(batches).next()).whole


async def test_more_services_than_are_taken_are_named(consul, monkeypatch):
    monkeypatch.setattr(module, "MOST_SERVICES", 2)
    for number in range(3):
        consul.put(f"s{number}", instance())
    with capture_logs() as logs:
        async with aclosing(registry(consul).batches()) as batches:
            mesh = Mesh(batches)
            await mesh.next()
    assert mesh.services.keys() == {"consul:s0", "consul:s1"}
    assert any("has 4 services" in item.get("reason", "") for item in logs)


async def test_a_service_that_cannot_be_used_is_a_problem_as_long_as_it_is_there(consul):
    consul.put("Bad_Name", instance())
    made = registry(consul)
    async with aclosing(made.batches()) as batches:
        mesh = Mesh(batches)
        await mesh.next()
        assert metrics.REGISTRY_PROBLEMS.labels(made.name)._value.get() == 1
        consul.remove("Bad_Name")
        consul.put("web", instance("10.0.0.2"))
        await mesh.next()
        await until(lambda: metrics.REGISTRY_PROBLEMS.labels(made.name)._value.get() == 0)


def test_aiohttp_is_imported_only_where_consul_is_asked():
    code = (
        "import sys; from services.pilot.registry.sources import parse_sources;"
        "parse_sources(['consul:http://127.0.0.1:8500']); assert 'aiohttp' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
