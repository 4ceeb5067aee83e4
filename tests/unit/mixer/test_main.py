"""Mixer's policy: rules follow the store, and what is broken there leaves the rest in force."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from services.mixer.main import Policy
from tests.unit.mixer.objects import a_denier, a_rule, an_instance, decoded, left_behind, raw
from windward.config.object import ConfigObject
from windward.config.stored import Author, plan_changes, store_key
from windward.store.memory import MemoryStore
from windward.store.protocol import Remove, Transaction, Write

AUTHOR = Author("tests", datetime(2026, 1, 1, tzinfo=UTC))
NO: dict[str, Any] = {"status": {"code": 7, "message": "no"}}


async def apply(store: MemoryStore, *objects: ConfigObject[Any]) -> None:
    present = {item.key: await store.get(store_key(item.key)) for item in objects}
    plan = plan_changes(present, objects, (), AUTHOR)
    assert plan.transaction is not None
    await store.commit(plan.transaction)


@asynccontextmanager
async def following(store: MemoryStore) -> AsyncIterator[Policy]:
    policy = Policy()
    task = asyncio.create_task(policy.run(store))
    try:
        async with asyncio.timeout(5):
            await policy.ready.wait()
        yield policy
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0)


async def test_an_empty_store_is_an_answer():
    async with following(MemoryStore()) as policy:
        assert policy.current.rules == ()


async def test_rules_are_in_force_before_it_is_ready():
    store = MemoryStore()
    await apply(store, a_denier(**NO), an_instance(), a_rule())
    async with following(store) as policy:
        assert policy.current.check({}, opens=False).code == 7


async def test_a_change_replaces_the_rules_whole():
    store = MemoryStore()
    await apply(store, a_denier(**NO), an_instance(), a_rule())
    async with following(store) as policy:
        before = policy.current
        await apply(store, a_denier(status={"code": 16, "message": "log in"}))
        await until(lambda: policy.current is not before)
        assert policy.current.check({}, opens=False).code == 16
        assert before.check({}, opens=False).code == 7


async def test_a_removed_rule_is_no_longer_in_force():
    store = MemoryStore()
    await apply(store, a_denier(**NO), an_instance(), a_rule())
    async with following(store) as policy:
        await store.commit(Transaction((Remove(store_key(a_rule().key)),)))
        await until(lambda: not policy.current.rules)
        assert policy.current.check({}, opens=False).code == 0


async def test_a_rule_waits_for_what_it_names():
    store = MemoryStore()
    await apply(store, a_rule())
    async with following(store) as policy:
        assert "there is no handler" in policy.current.problems[0]
        await apply(store, a_denier(**NO), an_instance())
        await until(lambda: bool(policy.current.rules))
        assert not policy.current.problems


async def test_a_broken_rule_hurts_no_other_and_can_be_mended():
    store = MemoryStore()
    broken = left_behind(a_rule(name="mend"), match="request.quay == 1")
    await apply(store, a_denier(**NO), an_instance(), broken)
    await apply(store, a_rule("connection.mtls", name="good"))
    async with following(store) as policy:
        assert [rule.name for rule in policy.current.rules] == ["good"]
        await apply(store, a_rule("request.size == 1", name="mend"))
        await until(lambda: len(policy.current.rules) == 2)


async def test_what_cannot_be_read_is_left_out():
    store = MemoryStore()
    await apply(store, a_denier(**NO), an_instance(), a_rule())
    await store.commit(Transaction((Write(store_key(a_rule(name="broken").key), b"not json"),)))
    async with following(store) as policy:
        assert [rule.name for rule in policy.current.rules] == ["rule"]


async def test_objects_of_other_groups_change_nothing():
    store = MemoryStore()
    await apply(store, a_denier(**NO), an_instance(), a_rule())
    entry = {
        **raw("ServiceEntry", "books", {"hosts": ["books.example.com"]}, "harbour"),
        "apiVersion": "networking.istio.io/v1",
    }
    entry["spec"] |= {"ports": [{"number": 80, "name": "http", "protocol": "HTTP"}]}
    entry["spec"]["resolution"] = "DNS"
    async with following(store) as policy:
        before = policy.current
        await apply(store, decoded(entry))
        await apply(store, a_rule("false", name="later"))
        await until(lambda: policy.current is not before)
        assert len(policy.current.rules) == 2
