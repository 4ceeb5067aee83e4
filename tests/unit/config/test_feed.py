"""Configuration as a stream: everything once, then differences; what cannot be read is told and never stops it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from tests.unit.config.test_stored import change, entry_object
from windward.config.feed import ConfigBatch, decoding, follow_config
from windward.config.object import ObjectKey
from windward.config.stored import store_key
from windward.slices import at_once
from windward.store.keys import CONFIG
from windward.store.memory import MemoryStore
from windward.store.protocol import Batch, Deleted, Remove, Transaction, Write


async def following(store: MemoryStore) -> AsyncGenerator[ConfigBatch, None]:
    return follow_config(store)


async def next_of(feed: AsyncGenerator[ConfigBatch, None]) -> ConfigBatch:
    async with asyncio.timeout(5):
        return await anext(feed)


async def test_the_first_batch_comes_also_when_there_is_nothing():
    feed = await following(MemoryStore())
    assert await next_of(feed) == ConfigBatch((), (), (), 1)
    await feed.aclose()


async def test_everything_once_then_only_what_changed():
    store = MemoryStore()
    one, other = entry_object("a"), entry_object("b")
    await change(store, one, other)
    feed = await following(store)
    first = await next_of(feed)
    assert [item.key.name for item in first.upserts] == ["a", "b"]
    assert first.revision == (await store.list("/")).revision
    await change(store, entry_object("b", host="new.example"), remove=(one.key,))
    second = await next_of(feed)
    assert [(item.key.name, item.generation) for item in second.upserts] == [("b", 2)]
    assert second.removed == (one.key,)
    assert second.revision == second.upserts[0].revision
    await feed.aclose()


async def test_what_lies_beside_the_configuration_is_not_delivered():
    store = MemoryStore()
    feed = await following(store)
    await next_of(feed)
    await store.commit(Transaction((Write("/windward/v1/endpoints/ns/n", b""),)))
    await change(store, entry_object())
    batch = await next_of(feed)
    assert [item.key.name for item in batch.upserts] == ["books"]
    await feed.aclose()


async def test_compaction_between_two_reads_brings_only_the_difference():
    store = MemoryStore()
    kept, gone = entry_object("kept"), entry_object("gone")
    await change(store, kept, gone)
    feed = await following(store)
    await next_of(feed)
    await change(store, entry_object("new"), remove=(gone.key,))
    store.compact((await store.list("/")).revision)
    batch = await next_of(feed)
    assert [item.key.name for item in batch.upserts] == ["new"]
    assert batch.removed == (gone.key,)
    await feed.aclose()


async def test_an_object_that_cannot_be_read_is_told_and_the_rest_arrives():
    store = MemoryStore()
    good = entry_object("good")
    await change(store, good)
    key = ObjectKey(good.key.group, good.key.kind, "default", "bad")
    await store.commit(Transaction((Write(store_key(key), b"{}"),)))
    feed = await following(store)
    batch = await next_of(feed)
    assert [item.key.name for item in batch.upserts] == ["good"]
    assert [(one, findings[0].code) for one, findings in batch.invalid] == [(key, "not-readable")]
    await store.commit(Transaction((Remove(store_key(key)),)))
    assert (await next_of(feed)).removed == (key,)
    await feed.aclose()


def test_a_key_that_names_no_object_is_passed_over():
    batch: Any = at_once(decoding(Batch((Deleted(CONFIG + "stray", 9),), 9)))
    assert batch == ConfigBatch((), (), (), 9)
