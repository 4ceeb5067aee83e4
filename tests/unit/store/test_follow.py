"""Following a prefix: what has been delivered is, at every point, what the store holds."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from hypothesis import given, settings
from hypothesis import strategies as st

from windward.slices import at_once
from windward.store.follow import difference, follow
from windward.store.memory import MemoryStore
from windward.store.protocol import Entry, Put, Remove, Transaction, Write

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abcd"), st.binary(max_size=2)),
        st.tuples(st.just("remove"), st.sampled_from("abcd"), st.just(b"")),
        st.tuples(st.just("compact"), st.just(""), st.just(b"")),
        st.tuples(st.just("read"), st.just(""), st.just(b"")),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_what_was_delivered_is_what_the_store_holds(steps: list[tuple[str, str, bytes]]):
    async def run() -> None:
        store = MemoryStore()
        seen: dict[str, bytes] = {}
        async with aclosing(follow(store, "/p/")) as batches:
            await read(batches, seen)
            for action, key, value in [*steps, ("read", "", b"")]:
                if action == "put":
                    await store.commit(Transaction((Write(f"/p/{key}", value),)))
                elif action == "remove":
                    await store.commit(Transaction((Remove(f"/p/{key}"),)))
                elif action == "compact":
                    store.compact(await store.commit(Transaction((Write("/other", b""),))))
                else:
                    wanted = {entry.key: entry.value for entry in (await store.list("/p/")).entries}
                    while seen != wanted:
                        await read(batches, seen)

    asyncio.run(run())


async def read(batches, seen: dict[str, bytes]) -> None:
    async with asyncio.timeout(5):
        batch = await anext(batches)
    for change in batch.changes:
        if isinstance(change, Put):
            seen[change.entry.key] = change.entry.value
        else:
            del seen[change.key]


def test_a_key_that_was_made_and_deleted_in_one_batch_is_gone():
    async def run() -> None:
        store = MemoryStore()
        seen: dict[str, bytes] = {}
        async with aclosing(follow(store, "/p/")) as batches:
            await read(batches, seen)
            await store.commit(Transaction((Write("/p/a", b""),)))
            await store.commit(Transaction((Remove("/p/a"), Write("/p/b", b""))))
            await read(batches, seen)
        assert seen.keys() == {"/p/b"}

    asyncio.run(run())


def test_the_first_batch_comes_also_from_an_empty_store():
    async def run() -> None:
        async with aclosing(follow(MemoryStore(), "/p/")) as batches:
            assert (await anext(batches)).changes == ()

    asyncio.run(run())


def test_a_difference_names_what_is_gone_and_what_is_new():
    def entry(key: str, revision: int) -> Entry:
        return Entry(key, b"", 1, revision, 1)

    known = {"a": entry("a", 1), "b": entry("b", 1)}
    changes = at_once(difference(known, (entry("b", 1), entry("c", 5)), 9))
    keys = [change.entry.key if isinstance(change, Put) else change.key for change in changes]
    assert keys == ["a", "c"]
