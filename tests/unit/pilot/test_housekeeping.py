"""Pilot keeps house: what dead writers left, and history over its limit; an outage only delays it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.pilot import housekeeping
from windward.store.errors import Unavailable
from windward.store.keys import HISTORY, STAGING
from windward.store.memory import MemoryStore
from windward.store.protocol import Transaction, Write


class AwayAtFirst(MemoryStore):
    """A store that does not answer the first request, and says when it was tidied."""

    def __init__(self) -> None:
        super().__init__()
        self.away = True
        self.tidied = asyncio.Event()

    async def list(self, prefix: str, **options: Any) -> Any:
        if self.away:
            self.away = False
            raise Unavailable("etcd does not answer")
        listing = await super().list(prefix, **options)
        if prefix == HISTORY and len(listing.entries) <= 2:
            self.tidied.set()
        return listing


async def test_stages_and_history_are_kept_small(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(housekeeping, "TIDY_EVERY_S", 0.001)
    monkeypatch.setattr(housekeeping, "PRUNE_EVERY_S", 0.001)
    store = AwayAtFirst()
    records = tuple(Write(f"{HISTORY}g/K/ns/n/{number}", b"{}") for number in range(5))
    await store.commit(Transaction((*records, Write(f"{STAGING}dead/000000", b"{}"))))
    keeping = asyncio.create_task(housekeeping.keep_house(store, 2))
    async with asyncio.timeout(5):
        await store.tidied.wait()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert (await store.list(STAGING)).entries == ()
    assert len((await store.list(HISTORY)).entries) == 2
