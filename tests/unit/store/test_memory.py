"""The store in memory, where it can show more than the suite for all stores: time as an argument, old revisions."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windward.store.errors import Compacted, Conflict, LeaseLost, TooLarge
from windward.store.memory import MAX_BYTES, MAX_OPERATIONS, MemoryStore, check_size
from windward.store.protocol import (
    Deleted,
    Entry,
    Exists,
    Put,
    Remove,
    Transaction,
    Unchanged,
    Write,
)

OPERATIONS = st.lists(
    st.one_of(
        st.builds(Write, st.sampled_from(["/p/a", "/p/b", "/q/c"]), st.binary(max_size=2)),
        st.builds(Remove, st.sampled_from(["/p/a", "/p/b", "/q/c"])),
    ),
    max_size=3,
    unique_by=lambda operation: operation.key,
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def write(key: str, value: bytes = b"", lease: int = 0) -> Transaction:
    return Transaction((Write(key, value, lease),))


@settings(max_examples=100, deadline=None)
@given(st.lists(OPERATIONS, max_size=12))
def test_every_revision_can_be_listed_as_it_was(history: list[list[Write | Remove]]):
    async def run() -> None:
        store = MemoryStore()
        states: dict[int, dict[str, bytes]] = {1: {}}
        state: dict[str, bytes] = {}
        for operations in history:
            for operation in operations:
                if isinstance(operation, Write):
                    state[operation.key] = operation.value
                else:
                    state.pop(operation.key, None)
            states[await store.commit(Transaction(tuple(operations)))] = dict(state)
        for revision, wanted in states.items():
            listing = await store.list("/", revision=revision)
            assert {entry.key: entry.value for entry in listing.entries} == wanted
            for key in ("/p/a", "/p/b", "/q/c"):
                entry = await store.get(key, revision=revision)
                assert (entry.value if entry else None) == wanted.get(key)

    asyncio.run(run())


@settings(max_examples=100, deadline=None)
@given(st.lists(OPERATIONS, max_size=12), st.integers(0, 12))
def test_a_watch_replays_to_what_a_list_shows(history: list[list[Write | Remove]], skipped: int):
    async def run() -> None:
        store = MemoryStore()
        for operations in history[:skipped]:
            await store.commit(Transaction(tuple(operations)))
        listing = await store.list("/p/")
        state = {entry.key: entry for entry in listing.entries}
        for operations in history[skipped:]:
            await store.commit(Transaction(tuple(operations)))
        last = await store.commit(write("/p/last"))
        batches = store.watch("/p/", from_revision=listing.revision + 1)
        revisions = []
        async for batch in batches:
            revisions.append(batch.revision)
            for change in batch.changes:
                if isinstance(change, Put):
                    state[change.entry.key] = change.entry
                else:
                    del state[change.key]
            if batch.revision == last:
                break
        await batches.aclose()
        assert revisions == sorted(set(revisions))
        assert tuple(state[key] for key in sorted(state)) == (await store.list("/p/")).entries

    asyncio.run(run())


async def test_what_changes_nothing_makes_no_revision():
    store = MemoryStore()
    revision = await store.commit(write("/a"))
    assert await store.commit(Transaction((Remove("/b"),))) == revision
    assert await store.commit(Transaction((), (Exists("/a"),))) == revision


async def test_the_writes_of_one_transaction_share_a_revision_and_a_batch():
    store = MemoryStore()
    await store.commit(write("/a"))
    revision = await store.commit(Transaction((Remove("/a"), Write("/b", b""), Write("/c", b""))))
    batch = await anext(store.watch("/", from_revision=revision))
    assert batch.revision == revision
    assert batch.changes == (
        Deleted("/a", revision),
        Put(Entry("/b", b"", revision, revision, 1)),
        Put(Entry("/c", b"", revision, revision, 1)),
    )


async def test_a_key_that_was_deleted_begins_anew():
    store = MemoryStore()
    await store.commit(write("/a"))
    await store.commit(write("/a"))
    await store.commit(Transaction((Remove("/a"),)))
    revision = await store.commit(write("/a"))
    assert await store.get("/a") == Entry("/a", b"", revision, revision, 1)


async def test_absent_means_absent_also_after_a_deletion():
    store = MemoryStore()
    written = await store.commit(write("/a"))
    with pytest.raises(Conflict, match="/a"):
        await store.commit(Transaction((Write("/a", b"2"),), (Unchanged("/a", 0),)))
    await store.commit(Transaction((Remove("/a"),)))
    with pytest.raises(Conflict):
        await store.commit(Transaction((Write("/a", b"2"),), (Unchanged("/a", written),)))
    await store.commit(Transaction((Write("/a", b"2"),), (Unchanged("/a", 0),)))


async def test_a_lease_lives_while_it_is_renewed_and_takes_only_its_keys_along():
    clock = Clock()
    store = MemoryStore(clock)
    lease = await store.grant(10)
    await store.commit(write("/leased", lease=lease.id))
    await store.commit(write("/free"))
    clock.now += 9
    assert await store.keep_alive(lease.id) == 10
    clock.now += 9
    assert await store.get("/leased") is not None
    clock.now += 1
    assert [entry.key for entry in (await store.list("/")).entries] == ["/free"]
    with pytest.raises(LeaseLost):
        await store.keep_alive(lease.id)
    with pytest.raises(LeaseLost):
        await store.commit(write("/leased", lease=lease.id))


async def test_a_key_rewritten_without_its_lease_outlives_it():
    store = MemoryStore()
    lease = await store.grant(10)
    await store.commit(write("/kept", lease=lease.id))
    await store.commit(write("/kept", b"2"))
    await store.revoke(lease.id)
    entry = await store.get("/kept")
    assert entry is not None
    assert entry.lease == 0


async def test_a_lease_that_ends_deletes_its_keys_in_one_revision():
    clock = Clock()
    store = MemoryStore(clock)
    lease = await store.grant(5)
    written = await store.commit(
        Transaction((Write("/b", b"", lease.id), Write("/a", b"", lease.id)))
    )
    clock.now += 5
    store.expire_leases()
    batch = await anext(store.watch("/", from_revision=written + 1))
    assert batch.changes == (Deleted("/a", written + 1), Deleted("/b", written + 1))


async def test_a_waiting_watch_learns_of_compaction_only_if_it_is_behind():
    store = MemoryStore()
    revision = await store.commit(write("/other"))
    behind = asyncio.create_task(anext(store.watch("/p/", from_revision=revision)))
    ahead = asyncio.create_task(anext(store.watch("/p/", from_revision=revision + 1)))
    store.compact(revision - 1)
    await store.commit(write("/p/a"))
    assert (await behind).changes == (await ahead).changes
    store.compact(revision + 1)
    with pytest.raises(Compacted) as caught:
        await anext(store.watch("/p/", from_revision=revision))
    assert caught.value.revision == revision + 1


async def test_old_revisions_are_gone_after_compaction():
    store = MemoryStore()
    first = await store.commit(write("/a"))
    last = await store.commit(write("/a"))
    store.compact(last)
    with pytest.raises(Compacted):
        await store.list("/", revision=first)
    with pytest.raises(Compacted):
        await store.get("/a", revision=first)
    assert (await store.list("/", revision=last)).revision == last


def test_sizes_at_the_limit_pass_and_beyond_it_are_refused():
    many = tuple(Remove(f"/{number}") for number in range(MAX_OPERATIONS))
    conditions = tuple(Exists(f"/{number}") for number in range(MAX_OPERATIONS))
    check_size(Transaction(many, conditions))
    with pytest.raises(TooLarge, match="128"):
        check_size(Transaction(many, (*conditions, Exists("/more"))))
    with pytest.raises(TooLarge, match="128"):
        check_size(Transaction((*many, Remove("/more"))))
    check_size(write("/k", b"x" * (MAX_BYTES - 2)))
    with pytest.raises(TooLarge, match=str(MAX_BYTES)):
        check_size(write("/k", b"x" * (MAX_BYTES - 1)))


def test_a_transaction_may_not_name_a_key_twice():
    with pytest.raises(ValueError, match="twice"):
        check_size(Transaction((Write("/a", b""), Remove("/a"))))
