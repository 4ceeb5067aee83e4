"""A real etcd that is killed, stopped, compacted and out of leases: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from tests.unit.config.test_stored import entry_object
from tests.unit.store.test_store import put
from windward.config.changing import Changed, change_objects, read_objects, tidy
from windward.config.stored import Author
from windward.local.etcd import EtcdProcess
from windward.store.errors import LeaseLost, Uncertain
from windward.store.follow import follow
from windward.store.keys import STAGING
from windward.store.open import open_store
from windward.store.protocol import Put, Store, Transaction, Unchanged, Write

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
async def store(etcd: EtcdProcess) -> AsyncIterator[Store]:
    made = open_store(etcd.url)
    yield made
    await made.close()


class Watcher:
    """Collects the keys that a watch delivers, each with how often."""

    def __init__(self, store: Store, from_revision: int) -> None:
        self.seen: list[str] = []
        self._more = asyncio.Event()
        self._task = asyncio.create_task(self._run(store, from_revision))

    async def _run(self, store: Store, from_revision: int) -> None:
        async for batch in store.watch("/w/", from_revision=from_revision):
            self.seen += [change.entry.key for change in batch.changes if isinstance(change, Put)]
            self._more.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.seen) < count:
                self._more.clear()
                await self._more.wait()

    async def stop(self) -> list[str]:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return self.seen


async def create(store: Store, name: str) -> None:
    """A guarded write: safe to repeat, whatever became of an attempt."""
    key = f"/w/{name}"
    await store.commit(Transaction((Write(key, name.encode()),), (Unchanged(key, 0),)))


async def test_kill_and_restart_during_a_watch(etcd: EtcdProcess, store: Store):
    watcher = Watcher(store, 1)
    for number in range(200):
        await create(store, f"a{number}")
    await etcd.kill()
    await etcd.start()
    for number in range(200):
        await create(store, f"b{number}")
    await watcher.until(400)
    seen = await watcher.stop()
    assert len(seen) == len(set(seen)) == 400


async def test_a_stopped_server_that_resumes(etcd: EtcdProcess, store: Store):
    watcher = Watcher(store, 1)
    for number in range(50):
        await create(store, f"a{number}")
    await watcher.until(50)
    etcd.pause()
    writing = asyncio.create_task(create(store, "during"))
    done, _ = await asyncio.wait({writing}, timeout=2)
    assert not done
    etcd.resume()
    await asyncio.gather(writing, return_exceptions=True)
    for number in range(50):
        await create(store, f"b{number}")
    await watcher.until(101 if (await store.get("/w/during")) else 100)
    seen = await watcher.stop()
    assert len(seen) == len(set(seen))


async def test_replay_of_5000_events_across_a_kill(etcd: EtcdProcess, store: Store):
    for start in range(0, 5000, 100):
        writes = tuple(Write(f"/w/{number:05}", b"x" * 200) for number in range(start, start + 100))
        await store.commit(Transaction(writes))
    watcher = Watcher(store, 1)
    await watcher.until(1)
    await etcd.kill()
    await etcd.start()
    await watcher.until(5000)
    seen = await watcher.stop()
    assert seen == [f"/w/{number:05}" for number in range(5000)]


async def test_compaction_under_a_followed_prefix_loses_nothing(etcd: EtcdProcess, store: Store):
    seen: dict[str, bytes] = {}

    async def run() -> None:
        async for batch in follow(store, "/w/"):
            for change in batch.changes:
                if isinstance(change, Put):
                    seen[change.entry.key] = change.entry.value
                else:
                    del seen[change.key]
            more.set()

    more = asyncio.Event()
    task = asyncio.create_task(run())
    await create(store, "first")
    etcd.pause()
    etcd.resume()
    await etcd.kill()
    await etcd.start()
    # A read may be repeated on a connection that turns out to be the killed one's; a bare write may not.
    await store.get("/w/first")
    for number in range(20):
        last = await put(store, f"/w/{number}", b"2")
    await store.compact(last)  # type: ignore[attr-defined]
    async with asyncio.timeout(20):
        while len(seen) < 21:
            more.clear()
            await more.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert seen.keys() == {entry.key for entry in (await store.list("/w/")).entries}


@pytest.mark.parametrize("after_commits", [1, 6, 25])
async def test_a_large_change_across_a_kill_is_all_or_nothing(
    etcd: EtcdProcess, store: Store, after_commits: int
):
    """1,000 objects are 17 chunks: commit 1 takes the pointer, 19 flips it, 20 to 36 bring the chunks into place."""
    items = [entry_object(f"o{number:04}") for number in range(1000)]

    class Watched:
        commits = 0

        def __getattr__(self, name: str) -> Any:
            if name == "commit":
                self.commits += 1
                if self.commits == after_commits:
                    reached.set()
            return getattr(store, name)

    reached = asyncio.Event()
    changing = asyncio.create_task(
        change_objects(cast("Store", Watched()), items, [], Author("ada", datetime.now(UTC)))
    )
    await reached.wait()
    await etcd.kill()
    await etcd.start()
    (outcome,) = await asyncio.gather(changing, return_exceptions=True)
    await tidy(store)
    seen = (await read_objects(store)).entries
    assert len(seen) in ({0, 1000} if isinstance(outcome, BaseException) else {1000})
    assert (await store.list(STAGING)).entries == ()
    if isinstance(outcome, Changed):
        assert max(entry.mod_revision for entry in seen) == outcome.revision


async def test_leases_that_run_out_during_an_outage_are_all_lost_and_say_so(
    etcd: EtcdProcess, store: Store
):
    """An etcd that was stopped for longer than their TTL ends them when it resumes, whoever renewed them before."""
    leases = [await store.grant(2) for _ in range(20)]
    for number, lease in enumerate(leases):
        await put(store, f"/w/{number}", lease=lease.id)
    for lease in leases:
        await store.keep_alive(lease.id)
    gone = asyncio.Event()
    etcd.pause()
    await asyncio.sleep(3)  # The server's clock is what is tested; it runs on.
    etcd.resume()

    async def watch() -> None:
        missing = {f"/w/{number}" for number in range(20)}
        async for batch in store.watch("/w/", from_revision=1):
            missing -= {change.key for change in batch.changes if not isinstance(change, Put)}
            if not missing:
                gone.set()

    task = asyncio.create_task(watch())
    async with asyncio.timeout(30):
        await gone.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    for lease in leases:
        with pytest.raises(LeaseLost):
            await store.keep_alive(lease.id)


async def test_an_unconditional_write_whose_answer_is_lost_is_uncertain(
    etcd: EtcdProcess, store: Store
):
    await put(store, "/w/a")
    etcd.pause()
    with pytest.raises(Uncertain):
        await put(store, "/w/b")
    etcd.resume()
