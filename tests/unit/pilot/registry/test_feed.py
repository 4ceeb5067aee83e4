"""Configuration and registries as one stream: the first batch is whole, and nobody holds the others up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from services.pilot import metrics
from services.pilot.registry import feed as module
from services.pilot.registry.feed import joined, with_registries
from services.pilot.registry.protocol import MESH, RegistryBatch, Sources
from tests.unit.pilot.mesh import make
from tests.unit.pilot.registry.test_merge import entry
from windward.config.feed import ConfigBatch

RULE = make("DestinationRule", "rule", {"host": "a.com"})


class Source:
    """A registry, or the store, that says what the test says."""

    def __init__(self, name: str, *first: Any) -> None:
        self.name = name
        self.says: asyncio.Queue[Any] = asyncio.Queue()
        self.begun = 0
        self.closed = False
        for batch in first:
            self.says.put_nowait(batch)

    async def batches(self) -> AsyncGenerator[Any, None]:
        self.begun += 1
        try:
            while True:
                batch = await self.says.get()
                if isinstance(batch, Exception):
                    raise batch
                yield batch
        finally:
            self.closed = True


def config(*items: Any, revision: int = 1) -> ConfigBatch:
    return ConfigBatch(items, (), (), revision)


def names(batch: ConfigBatch) -> set[str]:
    return {item.key.name for item in batch.upserts}


async def next_of(feed: AsyncGenerator[ConfigBatch, None]) -> ConfigBatch:
    async with asyncio.timeout(10):
        return await anext(feed)


async def test_without_registries_configuration_passes_as_it_is():
    store = Source(MESH, config(RULE, entry("one", "a.com")), config(revision=2))
    async with aclosing(with_registries(store.batches(), Sources())) as feed:
        assert names(await next_of(feed)) == {"rule", "one"}
        assert (await next_of(feed)).revision == 2
    assert store.closed


async def test_the_first_batch_waits_for_everybody():
    store = Source(MESH, config(RULE))
    found = Source("files")
    sources = Sources((found,), (MESH, "files"))
    async with aclosing(with_registries(store.batches(), sources)) as feed:
        first = asyncio.create_task(next_of(feed))
        await asyncio.sleep(0.02)
        assert not first.done()
        found.says.put_nowait(RegistryBatch((entry("two", "b.com"),), whole=True))
        assert names(await first) == {"rule", "two"}
        found.says.put_nowait(RegistryBatch((), (entry("two", "b.com").key,)))
        assert (await next_of(feed)).removed == (entry("two", "b.com").key,)
    assert found.closed


async def test_who_does_not_answer_is_not_waited_for_long():
    store, found = Source(MESH, config(RULE)), Source("files")
    sources = Sources((found,), (MESH, "files"))
    async with aclosing(with_registries(store.batches(), sources, 0.01)) as feed:
        assert names(await next_of(feed)) == {"rule"}
        found.says.put_nowait(RegistryBatch((entry("two", "b.com"),), whole=True))
        assert names(await next_of(feed)) == {"two"}


async def test_the_store_is_waited_for_however_long():
    store = Source(MESH)
    found = Source("files", RegistryBatch((entry("two", "b.com"),), whole=True))
    sources = Sources((found,), (MESH, "files"))
    async with aclosing(with_registries(store.batches(), sources, 0.0)) as feed:
        first = asyncio.create_task(next_of(feed))
        await asyncio.sleep(0.02)
        assert not first.done()
        store.says.put_nowait(config(RULE))
        assert names(await first) == {"rule", "two"}


async def test_a_registry_that_breaks_is_begun_anew_and_what_it_said_stays(monkeypatch):
    monkeypatch.setattr(module, "RESTART_S", 0.0)
    one, two = entry("one", "a.com"), entry("two", "b.com")
    store = Source(MESH, config())
    found = Source("files", RegistryBatch((one,), whole=True), ValueError("a bug"))
    sources = Sources((found,), (MESH, "files"))
    async with aclosing(with_registries(store.batches(), sources)) as feed:
        assert names(await next_of(feed)) == {"one"}
        found.says.put_nowait(RegistryBatch((one, two), whole=True))
        made = await next_of(feed)
        assert (names(made), made.removed) == ({"two"}, ())
    assert found.begun == 2


@pytest.mark.parametrize(("order", "wins"), [((MESH, "files"), "one"), (("files", MESH), "two")])
async def test_the_order_of_the_settings_decides(order, wins):
    store = Source(MESH, config(entry("one", "a.com")))
    found = Source("files", RegistryBatch((entry("two", "a.com"),), whole=True))
    sources = Sources((found,), order)
    async with aclosing(with_registries(store.batches(), sources)) as feed:
        assert names(await next_of(feed)) == {wins}
        assert metrics.REGISTRY_CONFLICTS._value.get() == 1
    assert metrics.REGISTRY_OBJECTS.labels("files")._value.get() == 1


async def test_what_changes_nothing_is_not_told():
    found = Source("files", RegistryBatch((entry("two", "b.com"),), whole=True))
    store = Source(MESH, config())
    sources = Sources((found,), (MESH, "files"))
    async with aclosing(with_registries(store.batches(), sources)) as feed:
        await next_of(feed)
        found.says.put_nowait(RegistryBatch((entry("two", "b.com"),), whole=True))
        found.says.put_nowait(RegistryBatch((entry("three", "c.com"),)))
        assert names(await next_of(feed)) == {"three"}


async def test_an_error_of_the_store_is_not_hidden():
    store = Source(MESH, RuntimeError("store"))
    with pytest.raises(RuntimeError, match="store"):
        async with aclosing(with_registries(store.batches(), Sources())) as feed:
            await next_of(feed)


def test_batches_that_follow_one_another_are_one():
    one, two = entry("one", "a.com"), entry("two", "b.com")
    made = joined(
        [
            ConfigBatch((one, two), (), (), 3),
            ConfigBatch((), (one.key, RULE.key), (), 0),
            ConfigBatch((RULE,), (), ((one.key, ()),), 1),
        ]
    )
    assert made == ConfigBatch((two, RULE), (one.key,), ((one.key, ()),), 3)
