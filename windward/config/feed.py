"""Configuration as a stream: everything once, then what changed, typed and checked.

    store -> follow -> ConfigBatch(upserts, removed, invalid, revision)

An object that this version cannot read is reported and left as it was; it never stops the stream. A change too large for
one transaction (staged.py) arrives in one batch, when it is whole.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from windward.config.finding import Finding
from windward.config.object import ConfigObject, ObjectKey
from windward.config.staged import is_committed
from windward.config.stored import decode_stored, key_of
from windward.slices import Work, in_slices
from windward.store.follow import follow
from windward.store.keys import APPLYING, CONFIG_AREA
from windward.store.protocol import Batch, Change, Put, Store


@dataclass(frozen=True, slots=True)
class ConfigBatch:
    upserts: tuple[ConfigObject[Any], ...]
    removed: tuple[ObjectKey, ...]
    invalid: tuple[tuple[ObjectKey, tuple[Finding, ...]], ...]
    revision: int


async def follow_config(store: Store) -> AsyncGenerator[ConfigBatch, None]:
    """The first batch holds every object, also when there is none; later ones only differences."""
    pending: dict[str, Change] = {}
    first, holding = True, False
    async for batch in follow(store, CONFIG_AREA):
        for change in batch.changes:
            path = change.entry.key if isinstance(change, Put) else change.key
            if path == APPLYING:
                holding = is_committed(change)
            else:
                pending[path] = change
        if holding or not (pending or first):
            continue
        first = False
        whole = Batch(tuple(pending.values()), batch.revision)
        pending = {}
        yield await in_slices(decoding(whole))


def decoding(batch: Batch) -> Work[ConfigBatch]:
    """Yields where other work may go between: there may be tens of thousands."""
    upserts, removed, invalid = [], [], []
    for change in batch.changes:
        yield
        path = change.entry.key if isinstance(change, Put) else change.key
        key = key_of(path)
        if key is None:
            continue
        if not isinstance(change, Put):
            removed.append(key)
            continue
        made, findings = decode_stored(change.entry)
        if made is None:
            invalid.append((key, findings))
        else:
            upserts.append(made)
    return ConfigBatch(tuple(upserts), tuple(removed), tuple(invalid), batch.revision)
