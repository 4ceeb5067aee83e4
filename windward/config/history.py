"""History is kept to so many generations in all; the oldest go first."""

from __future__ import annotations

from typing import Final

from windward.store.keys import HISTORY
from windward.store.protocol import Remove, Store, Transaction

KEPT: Final = 10_000
_AT_ONCE: Final = 100


async def prune_history(store: Store, keep: int = KEPT) -> int:
    """Remove the oldest records above the limit; how many. Several may do it at once."""
    records = (await store.list(HISTORY, keys_only=True)).entries
    if len(records) <= keep:
        return 0
    oldest = sorted(records, key=lambda entry: (entry.mod_revision, entry.key))
    surplus = [entry.key for entry in oldest[: len(records) - keep]]
    for start in range(0, len(surplus), _AT_ONCE):
        part = surplus[start : start + _AT_ONCE]
        await store.commit(Transaction(tuple(Remove(key) for key in part)))
    return len(surplus)
