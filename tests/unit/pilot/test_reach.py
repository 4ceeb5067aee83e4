"""Waiting until this Pilot is as far as a client: at once, with a mark, or not in time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from services.pilot import reach as module
from services.pilot.due import Timing
from services.pilot.groups import Groups
from services.pilot.index import Index
from services.pilot.model.position import Position
from services.pilot.reach import Behind, Reach
from tests.unit.pilot.mesh import OPTIONS, service_entry, workload
from tests.unit.pilot.test_index import put, register
from windward.store.errors import Unavailable
from windward.store.keys import CONFIG_MARK
from windward.store.memory import MemoryStore
from windward.store.protocol import Transaction, Write


class Counting(MemoryStore):
    """Counts marks, and may be away."""

    def __init__(self) -> None:
        super().__init__()
        self.marks = 0
        self.away = False
        self.slow = asyncio.Event()
        self.slow.set()

    async def commit(self, transaction: Transaction) -> int:
        if any(operation.key == CONFIG_MARK for operation in transaction.operations):
            if self.away:
                raise Unavailable("etcd is away")
            self.marks += 1
            await self.slow.wait()
        return await super().commit(transaction)


@asynccontextmanager
async def following(store: MemoryStore):
    """An index that follows a store."""
    index = Index(store, Groups(OPTIONS), 30.0, Timing(0.001, 0.001, 0.01))
    task = asyncio.create_task(index.run())
    try:
        await asyncio.wait_for(index.ready.wait(), 10)
        yield index.reach
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_what_is_in_force_is_not_waited_for():
    store = Counting()
    reach = Reach(store)
    reach.advance(Position(7, 9))
    await reach.until(Position(7, 9), 0.0)
    await reach.until(Position(), 0.0)
    assert store.marks == 0


async def test_what_is_on_its_way_is_waited_for():
    store = Counting()
    async with following(store) as reach:
        revision = await put(store, service_entry())
        await reach.until(Position(revision, 0), 10)
        assert reach.published.config >= revision
        await register(store, workload())
        newest = (await store.list("")).revision
        await reach.until(Position(revision, newest), 10)
        assert reach.published.registrations >= newest


async def test_a_revision_that_changed_nothing_here_is_reached_with_a_mark():
    store = Counting()
    async with following(store) as reach:
        claimed = (await store.list("")).revision
        for _ in range(3):
            await store.commit(Transaction((Write("/elsewhere", b""),)))
            claimed += 1
        await reach.until(Position(claimed, claimed), 10)
        assert store.marks == 1
        assert reach.published.includes(Position(claimed, claimed))
        await reach.until(Position(claimed, claimed), 0.0)


async def test_many_who_wait_share_marks():
    store = Counting()
    async with following(store) as reach:
        claimed = await store.commit(Transaction((Write("/elsewhere", b""),)))
        store.slow.clear()
        waiting = [
            asyncio.ensure_future(reach.until(Position(claimed, claimed), 10)) for _ in range(100)
        ]
        await asyncio.sleep(0)
        store.slow.set()
        await asyncio.gather(*waiting)
        assert store.marks <= 2


async def test_a_mark_that_was_begun_before_is_not_enough():
    """Its revision may lie before what the one who asks has seen."""
    store = Counting()
    reach = Reach(store)
    store.slow.clear()
    first = asyncio.ensure_future(reach.mark())
    while not store.marks:
        await asyncio.sleep(0)
    second = asyncio.ensure_future(reach.mark())
    third = asyncio.ensure_future(reach.mark())
    await asyncio.sleep(0)
    store.slow.set()
    assert await first < await second == await third
    assert store.marks == 2


async def test_a_store_that_is_away_sends_clients_on_and_serves_those_who_have_seen_no_more():
    store = Counting()
    async with following(store) as reach:
        store.away = True
        with pytest.raises(Behind, match=r"has seen 999\.999 \(etcd is away\)"):
            await reach.until(Position(999, 999), 10)
        await reach.until(reach.published, 0.0)


async def test_what_does_not_come_in_time_sends_clients_on():
    store = Counting()
    reach = Reach(store)
    reach.advance(Position(1, 1))
    with pytest.raises(Behind, match=r"at 1\.1 of the store.*not within 0\.02 s"):
        await reach.until(Position(2, 1), 0.02)


async def test_a_store_that_went_back_locks_nobody_out():
    store = Counting()
    async with following(store) as reach:
        await reach.until(Position(10**9, 10**9), 10)
        assert reach.published.config < 10**9


async def test_claims_do_not_make_a_pilot_write_without_end(monkeypatch):
    monkeypatch.setattr(module, "BETWEEN_MARKS_S", 0.05)
    store = Counting()
    async with following(store) as reach:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(5):
            await reach.until(Position(10**9, 10**9), 10)
        assert loop.time() - began >= 4 * 0.05
        assert store.marks == 5


async def test_a_pilot_that_starts_aligns_the_others():
    store = Counting()
    async with following(store) as old:
        await store.commit(Transaction((Write("/elsewhere", b""),)))
        async with following(store) as new:
            assert not old.published.includes(new.published)
            await new.align()
            ahead = new.published
            await old.until(ahead, 10)
            assert store.marks >= 1
    store.away = True
    await Reach(store).align()
