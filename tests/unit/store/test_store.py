"""What every store promises, on the one in memory and on a real etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from windward.store.errors import Compacted, Conflict, LeaseLost, TooLarge
from windward.store.memory import MAX_OPERATIONS
from windward.store.protocol import (
    Batch,
    Deleted,
    Exists,
    Put,
    Remove,
    Store,
    Transaction,
    Unchanged,
    Write,
)


async def put(store: Store, key: str, value: bytes = b"v", lease: int = 0) -> int:
    return await store.commit(Transaction((Write(key, value, lease),)))


async def take(batches: AsyncIterator[Batch], count: int) -> list[Put | Deleted]:
    changes: list[Put | Deleted] = []
    async with asyncio.timeout(10):
        async for batch in batches:
            changes += batch.changes
            if len(changes) >= count:
                return changes
    return changes


async def test_an_entry_tells_where_it_stands(store: Store):
    first = await put(store, "/a", b"1")
    second = await put(store, "/a", b"2")
    entry = await store.get("/a")
    assert entry is not None
    assert (entry.value, entry.create_revision, entry.mod_revision, entry.version) == (
        b"2",
        first,
        second,
        2,
    )
    assert await store.get("/b") is None


async def test_a_list_is_in_key_order_below_its_prefix_at_one_revision(store: Store):
    for key in ("/p/b", "/p/a", "/q/c"):
        await put(store, key)
    before = await store.list("/p/")
    await put(store, "/p/c")
    assert [entry.key for entry in before.entries] == ["/p/a", "/p/b"]
    again = await store.list("/p/", revision=before.revision)
    assert again.entries == before.entries
    assert [entry.key for entry in (await store.list("/p/")).entries] == ["/p/a", "/p/b", "/p/c"]


async def test_a_list_of_keys_alone_says_where_they_stand(store: Store):
    revision = await put(store, "/p/a", b"much")
    await put(store, "/p/b", b"more")
    for at in (None, revision):
        (entry, *rest) = (await store.list("/p/", revision=at, keys_only=True)).entries
        assert (entry.key, entry.value, entry.mod_revision) == ("/p/a", b"", revision)
        assert len(rest) == (at is None)
    assert [entry.value for entry in (await store.list("/p/")).entries] == [b"much", b"more"]


async def test_a_transaction_is_all_or_nothing(store: Store):
    revision = await put(store, "/a", b"1")
    with pytest.raises(Conflict):
        await store.commit(
            Transaction((Write("/a", b"2"), Write("/b", b"2")), (Unchanged("/a", revision - 1),))
        )
    assert await store.get("/b") is None
    done = await store.commit(
        Transaction(
            (Write("/b", b"2"), Remove("/a")), (Unchanged("/a", revision), Unchanged("/b", 0))
        )
    )
    entry = await store.get("/b")
    assert entry is not None
    assert entry.mod_revision == done
    assert await store.get("/a") is None


async def test_exists_holds_only_while_the_key_is_there(store: Store):
    with pytest.raises(Conflict):
        await store.commit(Transaction((Write("/b", b""),), (Exists("/a"),)))
    await put(store, "/a")
    await store.commit(Transaction((Write("/b", b""),), (Exists("/a"),)))


async def test_a_watch_delivers_every_change_once_in_order(store: Store):
    start = await put(store, "/w/0")
    await put(store, "/elsewhere")
    for number in range(1, 6):
        await put(store, f"/w/{number}")
    await store.commit(Transaction((Remove("/w/0"),)))
    changes = await take(store.watch("/w/", from_revision=start), 7)
    keys = [change.entry.key if isinstance(change, Put) else f"-{change.key}" for change in changes]
    assert keys == ["/w/0", "/w/1", "/w/2", "/w/3", "/w/4", "/w/5", "-/w/0"]


async def test_a_watch_waits_for_what_has_not_happened_yet(store: Store):
    revision = await put(store, "/w/0")
    waiting = asyncio.create_task(take(store.watch("/w/", from_revision=revision + 1), 1))
    await put(store, "/w/1", b"new")
    changes = await waiting
    assert isinstance(changes[0], Put)
    assert changes[0].entry.value == b"new"


async def test_a_watch_from_compacted_history_says_so(store: Store):
    for number in range(5):
        last = await put(store, f"/w/{number}")
    compacting = store.compact(last)  # type: ignore[attr-defined]
    if asyncio.iscoroutine(compacting):
        await compacting
    with pytest.raises(Compacted):
        await take(store.watch("/w/", from_revision=2), 1)


async def test_a_lease_that_is_revoked_takes_its_keys_along(store: Store):
    lease = await store.grant(30)
    await put(store, "/leased", lease=lease.id)
    assert await store.keep_alive(lease.id) == pytest.approx(lease.ttl_s)
    await store.revoke(lease.id)
    assert await store.get("/leased") is None
    await store.revoke(lease.id)
    with pytest.raises(LeaseLost):
        await store.keep_alive(lease.id)
    with pytest.raises(LeaseLost):
        await put(store, "/leased", lease=lease.id)


async def test_transactions_hold_to_the_limits(store: Store):
    whole = tuple(Write(f"/n/{number:03}", b"") for number in range(MAX_OPERATIONS))
    await store.commit(Transaction(whole))
    with pytest.raises(TooLarge):
        await store.commit(Transaction((*whole, Write("/n/more", b""))))
    await put(store, "/big", b"x" * 1_400_000)
    with pytest.raises(TooLarge):
        await put(store, "/big", b"x" * 1_600_000)
