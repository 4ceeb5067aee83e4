"""Changes of any size: all or nothing for every reader, whoever dies in the middle. On each store there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import msgspec
import pytest

from tests.unit.config.test_stored import EARLY, LATE, entry_object
from windward.config import staged
from windward.config.changing import (
    Changed,
    Contested,
    NoSuchObject,
    change_objects,
    read_object,
    read_objects,
    tidy,
)
from windward.config.feed import ConfigBatch, follow_config
from windward.config.object import ConfigObject, ObjectKey
from windward.config.staged import Pointer, StageUnreadable
from windward.config.stored import Action, StoredObject
from windward.store.errors import Unavailable
from windward.store.keys import APPLYING, CONFIG, HISTORY, STAGING
from windward.store.memory import MemoryStore
from windward.store.protocol import Remove, Store, Transaction, Unchanged, Write

MANY = 130
"""Three chunks."""
COMMITS = 8
"""Of a staged change of MANY: pointer, three chunks, flip, three times into place."""
FLIP = 5


class Killed(BaseException):
    """The process that writes is no more."""


class Mortal:
    """A store's client whose process is killed when it would commit for the ``dies_at``-th time."""

    def __init__(self, store: Store, dies_at: int) -> None:
        self._store = store
        self._left = dies_at

    def __getattr__(self, name: str) -> Any:
        if name == "commit":
            self._left -= 1
        if self._left <= 0:
            raise Killed
        return getattr(self._store, name)


def many(host: str, count: int = MANY) -> list[ConfigObject[Any]]:
    return [entry_object(f"o{number:04}", host=host) for number in range(count)]


async def hosts(store: Store) -> set[str]:
    """The hosts that a reader sees."""
    found: set[str] = set()
    for entry in (await read_objects(store)).entries:
        stored = msgspec.json.decode(entry.value, type=StoredObject)
        found.update(stored.object["spec"]["hosts"])
    return found


async def lease_runs_out(store: Store) -> None:
    """What the store does by itself when nobody renews."""
    entry = await store.get(APPLYING)
    if entry is not None and entry.lease:
        await store.revoke(entry.lease)


async def next_of(feed: AsyncGenerator[ConfigBatch, None]) -> ConfigBatch:
    async with asyncio.timeout(10):
        return await anext(feed)


def following(store: Store) -> AsyncGenerator[ConfigBatch, None]:
    return follow_config(store)


async def test_a_large_change_is_in_place_with_its_history_and_leaves_no_stage(store: Store):
    done = await change_objects(store, many("old.example"), [], EARLY)
    assert {change.action for change in done.changes} == {Action.CREATED}
    entries = (await store.list(CONFIG)).entries
    assert len(entries) == len((await store.list(HISTORY)).entries) == MANY
    assert max(entry.mod_revision for entry in entries) == done.revision
    assert await store.get(APPLYING) is None
    assert (await store.list(STAGING)).entries == ()

    again = await change_objects(store, many("old.example"), [], LATE)
    assert {change.action for change in again.changes} == {Action.UNCHANGED}
    assert again.revision == done.revision

    keys = [item.key for item in many("old.example")]
    gone = await change_objects(store, [], keys, LATE)
    assert {(c.action, c.generation) for c in gone.changes} == {(Action.DELETED, 2)}
    assert (await store.list(CONFIG)).entries == ()
    assert len((await store.list(HISTORY)).entries) == 2 * MANY


async def test_a_follower_gets_a_large_change_in_one_batch(store: Store):
    await change_objects(store, many("old.example"), [], EARLY)
    feed = following(store)
    assert len((await next_of(feed)).upserts) == MANY
    new = many("new.example", MANY + 1)
    done = await change_objects(store, new[2:], [new[0].key, new[1].key], LATE)
    batch = await next_of(feed)
    assert {host for item in batch.upserts for host in item.spec.hosts} == {"new.example"}
    assert len(batch.upserts) == MANY - 1
    assert set(batch.removed) == {new[0].key, new[1].key}
    assert batch.revision == done.revision
    await change_objects(store, [entry_object("small")], [], LATE)
    assert [item.key.name for item in (await next_of(feed)).upserts] == ["small"]
    await feed.aclose()


@pytest.mark.parametrize("dies_at", range(1, COMMITS + 1))
async def test_a_writer_that_is_killed_leaves_all_of_it_or_nothing(store: Store, dies_at: int):
    await change_objects(store, many("old.example"), [], EARLY)
    feed = following(store)
    await next_of(feed)
    with pytest.raises(Killed):
        await change_objects(cast("Store", Mortal(store, dies_at)), many("new.example"), [], LATE)
    flipped = dies_at > FLIP
    expected = {"new.example"} if flipped else {"old.example"}
    assert await hosts(store) == expected
    one = await read_object(store, many("old.example")[0].key)
    last = await read_object(store, many("old.example")[-1].key)
    assert one is not None
    assert last is not None
    for entry in (one, last):
        seen = msgspec.json.decode(entry.value, type=StoredObject)
        assert (seen.object["spec"]["hosts"], seen.generation) == ([*expected], 1 + flipped)

    starting = following(store)
    first = asyncio.create_task(next_of(starting))
    await lease_runs_out(store)
    await tidy(store)
    assert await hosts(store) == expected
    assert {entry.mod_revision > 0 for entry in (await store.list(CONFIG)).entries} == {True}
    assert await store.get(APPLYING) is None
    assert (await store.list(STAGING)).entries == ()
    assert len((await store.list(HISTORY)).entries) == MANY * (1 + flipped)
    batch = await first
    assert {host for item in batch.upserts for host in item.spec.hosts} == expected
    if flipped:
        assert len((await next_of(feed)).upserts) == MANY
    await feed.aclose()
    await starting.aclose()


async def test_a_small_change_carries_a_committed_large_one_out_and_goes_on_top(store: Store):
    with pytest.raises(Killed):
        await change_objects(cast("Store", Mortal(store, FLIP + 2)), many("a.example"), [], EARLY)
    done = await change_objects(store, [entry_object("o0000", host="b.example")], [], LATE)
    assert [(c.action, c.generation) for c in done.changes] == [(Action.CONFIGURED, 2)]
    assert await hosts(store) == {"a.example", "b.example"}
    assert len((await store.list(CONFIG)).entries) == MANY


async def test_changes_wait_for_a_large_one_that_is_being_staged(store: Store):
    with pytest.raises(Killed):
        await change_objects(cast("Store", Mortal(store, FLIP)), many("a.example"), [], EARLY)
    small = asyncio.create_task(change_objects(store, [entry_object("small")], [], LATE))
    large = asyncio.create_task(change_objects(store, many("b.example"), [], LATE))
    done, _ = await asyncio.wait({small, large}, timeout=0.3)
    assert not done
    await lease_runs_out(store)
    await asyncio.gather(small, large)
    assert await hosts(store) == {"b.example", "books.example"}
    assert (await store.list(STAGING)).entries == ()


async def test_large_changes_at_once_are_one_after_the_other(store: Store):
    names = ("a.example", "b.example", "c.example")
    await asyncio.gather(*(change_objects(store, many(name), [], EARLY) for name in names))
    (winner,) = await hosts(store)
    assert winner in names
    assert len((await store.list(HISTORY)).entries) == 3 * MANY


class Counting:
    """A store's client that knows how many of its commits were under way at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._now = self.most = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, transaction: Transaction) -> int:
        self._now += 1
        self.most = max(self.most, self._now)
        await asyncio.sleep(0)
        try:
            return await self._store.commit(transaction)
        finally:
            self._now -= 1


@pytest.mark.parametrize("at_once", [2, 8])
async def test_chunks_are_written_side_by_side_a_few_at_a_time(
    store: Store, monkeypatch: pytest.MonkeyPatch, at_once: int
):
    monkeypatch.setattr(staged, "_AT_ONCE", at_once)
    counting = Counting(store)
    done = await change_objects(cast("Store", counting), many("a.example"), [], EARLY)
    assert counting.most == min(at_once, 3)
    assert await hosts(store) == {"a.example"}
    assert max(item.mod_revision for item in (await store.list(CONFIG)).entries) == done.revision
    assert (await store.list(STAGING)).entries == ()


@pytest.mark.parametrize("moved", [0, 1, 2])
async def test_whichever_chunk_was_moved_first_the_others_follow(store: Store, moved: int):
    with pytest.raises(Killed):
        await change_objects(cast("Store", Mortal(store, FLIP + 1)), many("a.example"), [], EARLY)
    pointer = await store.get(APPLYING)
    assert pointer is not None
    chunk = (await store.list(STAGING)).entries[moved]
    mine = Unchanged(APPLYING, pointer.mod_revision)
    await store.commit(staged._moved(chunk, mine, last=False))
    assert await hosts(store) == {"a.example"}
    await tidy(store)
    assert {entry.version for entry in (await store.list(CONFIG)).entries} == {1}
    assert len((await store.list(HISTORY)).entries) == MANY
    assert await store.get(APPLYING) is None


async def test_several_carry_a_change_out_and_each_chunk_moves_once(store: Store):
    with pytest.raises(Killed):
        await change_objects(cast("Store", Mortal(store, FLIP + 1)), many("a.example"), [], EARLY)
    await asyncio.gather(*(tidy(store) for _ in range(4)))
    assert {entry.version for entry in (await store.list(CONFIG)).entries} == {1}
    assert len((await store.list(HISTORY)).entries) == MANY


class Interfering(MemoryStore):
    """Somebody else carries the change out at the moment it is flipped."""

    interferes = False

    async def commit(self, transaction: Transaction) -> int:
        revision = await super().commit(transaction)
        for operation in transaction.operations:
            if isinstance(operation, Write) and operation.key == APPLYING and not operation.lease:
                self.interferes = True
                await tidy(self)
        return revision


async def test_the_revision_is_the_changes_own_also_when_somebody_else_carried_it_out():
    store = Interfering()
    done = await change_objects(store, many("a.example"), [], EARLY)
    assert store.interferes
    entries = (await store.list(CONFIG)).entries
    assert max(entry.mod_revision for entry in entries) == done.revision


async def test_a_lost_lease_before_the_flip_starts_again():
    class Forgetful(MemoryStore):
        lost = False

        async def keep_alive(self, lease: int) -> float:
            if not self.lost:
                self.lost = True
                await self.revoke(lease)
            return await super().keep_alive(lease)

    store = Forgetful()
    await change_objects(store, many("a.example"), [], EARLY)
    assert store.lost
    assert await hosts(store) == {"a.example"}
    assert (await store.list(STAGING)).entries == ()


async def test_a_stage_never_outlives_the_patience_of_others(monkeypatch: pytest.MonkeyPatch):
    store = MemoryStore()
    pointer = msgspec.json.encode(Pointer(change="x", committed=False))
    await store.commit(Transaction((Write(APPLYING, pointer),)))
    monkeypatch.setattr("windward.config.changing.WAIT_S", 0.0)
    with pytest.raises(Contested, match="large change"):
        await change_objects(store, [entry_object()], [], EARLY)


async def test_what_is_to_be_removed_must_be_there():
    store = MemoryStore()
    keys = [item.key for item in many("old.example")]
    with pytest.raises(
        NoSuchObject, match="ServiceEntry/default/o0000, ServiceEntry/default/o0001"
    ):
        await change_objects(store, [], keys, EARLY)
    assert (await store.list("/")).entries == ()


async def test_an_outage_while_the_lease_is_given_back_hides_no_result():
    class Away(MemoryStore):
        async def revoke(self, lease: int) -> None:
            raise Unavailable("etcd does not answer")

    store = Away()
    done: Changed = await change_objects(store, many("a.example"), [], EARLY)
    assert done.revision > 0
    assert await hosts(store) == {"a.example"}


@pytest.mark.parametrize("broken", [b"", b"{", b"[]"])
async def test_a_broken_pointer_or_stage_is_said_and_stops_no_reader(broken: bytes):
    store = MemoryStore()
    await store.commit(Transaction((Write(APPLYING, broken),)))
    feed = following(store)
    assert (await next_of(feed)).upserts == ()
    assert await tidy(store) == 0
    flipped = msgspec.json.encode(Pointer(change="x", committed=True))
    await store.commit(Transaction((Write(APPLYING, flipped), Write(STAGING + "x/000000", broken))))
    with pytest.raises(StageUnreadable, match="x/000000"):
        await tidy(store)
    await store.commit(Transaction((Remove(STAGING + "x/000000"),)))
    await tidy(store)
    assert await store.get(APPLYING) is None
    await feed.aclose()


async def test_sweeping_spares_a_stage_whose_writer_lives():
    store = MemoryStore()
    with pytest.raises(Killed):
        await change_objects(cast("Store", Mortal(store, FLIP)), many("a.example"), [], EARLY)
    assert await tidy(store) == 0
    assert len((await store.list(STAGING)).entries) == 3

    class Raced(MemoryStore):
        """Somebody takes the pointer between a sweeper's look and its broom."""

        async def list(self, prefix: str, **options: Any) -> Any:
            listing = await super().list(prefix, **options)
            if prefix == STAGING:
                lease = await self.grant(9)
                await self.commit(
                    Transaction((Write(APPLYING, b"{}", lease.id),), (Unchanged(APPLYING, 0),))
                )
            return listing

    raced = Raced()
    await raced.commit(Transaction((Write(STAGING + "x/000000", b""),)))
    assert await tidy(raced) == 0
    assert await raced.get(STAGING + "x/000000") is not None


async def test_one_object_may_be_read_while_it_is_only_staged():
    store = MemoryStore()
    with pytest.raises(Killed):
        await change_objects(cast("Store", Mortal(store, FLIP + 1)), many("a.example"), [], EARLY)
    key = many("old.example")[-1].key
    entry = await read_object(store, key)
    assert entry is not None
    assert (entry.version, await store.get(entry.key)) == (1, None)
    assert await read_object(store, ObjectKey(key.group, key.kind, key.namespace, "no")) is None
