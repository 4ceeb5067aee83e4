"""History keeps so many generations in all, the newest."""

from __future__ import annotations

from windward.config.history import prune_history
from windward.store.keys import HISTORY
from windward.store.protocol import Store, Transaction, Write


async def test_the_oldest_go_first_whatever_they_are_called(store: Store):
    for name in ("z", "y", "x"):
        writes = tuple(Write(f"{HISTORY}g/K/ns/{name}/{number:03}", b"{}") for number in range(80))
        await store.commit(Transaction(writes))
    assert await prune_history(store, 100) == 140
    left = (await store.list(HISTORY)).entries
    assert len(left) == 100
    assert {entry.key.split("/")[-2] for entry in left} == {"x", "y"}
    assert sum(entry.key.split("/")[-2] == "x" for entry in left) == 80
    assert await prune_history(store, 100) == 0
    assert await prune_history(store, 0) == 100
    assert (await store.list(HISTORY)).entries == ()
