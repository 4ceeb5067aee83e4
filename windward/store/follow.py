"""Following a prefix for ever: everything once, then every change, whatever happens to the store in between.

list -> Batch of everything (also when empty) -> watch -> Batch of changes ...
Compacted, StoreReset, or the anti-entropy interval -> list again -> only the differences, deletions included
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from windward.slices import Work, in_slices
from windward.store.errors import Compacted, StoreReset, Unavailable
from windward.store.protocol import Batch, Change, Deleted, Entry, Put, Store

RELIST_EVERY_S = 420.0
"""A watch can lose events by a server's fault (etcd has fixed several such bugs): compare now and then."""
RETRY_S = 0.5
A_STEP = 100
"""Entries that are compared at a stretch."""


async def follow(
    store: Store, prefix: str, *, relist_every_s: float = RELIST_EVERY_S
) -> AsyncGenerator[Batch, None]:
    """Batches of changes below a prefix; the first holds all there is. Never ends, never raises for an outage."""
    known: dict[str, Entry] = {}
    first = True
    while True:
        try:
            listing = await store.list(prefix)
        except (Unavailable, Compacted, StoreReset):
            await asyncio.sleep(RETRY_S)
            continue
        changes = await in_slices(difference(known, listing.entries, listing.revision))
        known = {entry.key: entry for entry in listing.entries}
        if changes or first:
            first = False
            yield Batch(changes, listing.revision)
        async with aclosing(_watch(store, prefix, listing.revision, relist_every_s)) as batches:
            async for batch in batches:
                if fresh := _learn(known, batch.changes):
                    yield Batch(fresh, batch.revision)


async def _watch(
    store: Store, prefix: str, revision: int, limit_s: float
) -> AsyncGenerator[Batch, None]:
    """A watch that ends, without an error, when it is time to list again."""
    deadline = asyncio.get_running_loop().time() + limit_s
    async with aclosing(store.watch(prefix, from_revision=revision + 1)) as watch:
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    batch = await anext(watch)
            except (TimeoutError, Compacted, StoreReset, StopAsyncIteration):
                return
            yield batch


def _learn(known: dict[str, Entry], changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """Take changes over, in order, and return those that were news: a batch may make a key and delete it again."""
    fresh = []
    for change in changes:
        if not _is_news(known, change):
            continue
        fresh.append(change)
        if isinstance(change, Put):
            known[change.entry.key] = change.entry
        else:
            del known[change.key]
    return tuple(fresh)


def _is_news(known: dict[str, Entry], change: Change) -> bool:
    """Whether a change is later than what is known of its key: watchers are idempotent."""
    if isinstance(change, Put):
        before = known.get(change.entry.key)
        return before is None or change.entry.mod_revision > before.mod_revision
    before = known.get(change.key)
    return before is not None and change.revision > before.mod_revision


def difference(
    known: dict[str, Entry], now: tuple[Entry, ...], revision: int
) -> Work[tuple[Change, ...]]:
    """What turns the known entries into the listed ones. Yields where other work may go between: all of a store may be listed."""
    present: set[str] = set()
    put: list[Change] = []
    for number, entry in enumerate(now):
        present.add(entry.key)
        if known.get(entry.key) != entry:
            put.append(Put(entry))
        if not number % A_STEP:
            yield
    gone = [Deleted(key, revision) for key in sorted(known.keys() - present)]
    return (*gone, *put)
