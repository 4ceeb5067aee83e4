"""Changing objects in the store: read, plan, compare-and-write; again if somebody else was faster.

A change that fits is one transaction. One that does not takes the pointer (one such change at a time, held by a lease),
stages itself and flips it; every other change waits that long, and helps a committed one whose writer is gone to its end.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from windward.config.object import ConfigObject, ObjectKey
from windward.config.staged import (
    LEASE_TTL_S,
    Pointer,
    carry_out,
    committed_change,
    overlaid,
    stage_and_flip,
    sweep,
)
from windward.config.stored import Author, Change, Plan, plan_changes, store_key
from windward.store.errors import Conflict, LeaseLost, StoreError
from windward.store.keys import APPLYING, CONFIG
from windward.store.protocol import Entry, Listing, Store, Transaction, Unchanged, Write

ATTEMPTS: Final = 5
WAIT_S: Final = 20.0
"""For a large change of somebody else: twice the lease of a writer that died."""
_POLL_S: Final = 0.05
FEW: Final = 60
"""Objects that are read one by one, and planned without leaving the event loop."""


@dataclass(frozen=True, slots=True)
class Changed:
    changes: tuple[Change, ...]
    revision: int
    """At which all of it stands; of the newest of the objects when nothing changed."""


class NoSuchObject(Exception):
    """An object to remove is not there; names all of them."""


class Contested(Exception):
    """Others change the same objects, again and again."""


async def change_objects(
    store: Store,
    wanted: Sequence[ConfigObject[Any]],
    removals: Sequence[ObjectKey],
    author: Author,
) -> Changed:
    """All of it or nothing. Raises NoSuchObject, ObjectTooLarge, Contested, or a StoreError."""
    for _ in range(ATTEMPTS):
        plan, newest = await _plan(store, wanted, removals, author)
        if not plan.steps:
            return Changed(plan.changes, newest)
        try:
            transaction = plan.transaction
            if transaction is not None:
                return Changed(plan.changes, await store.commit(transaction))
            return await _change_staged(store, wanted, removals, author)
        except (Conflict, LeaseLost):
            await _others_are_done(store)
    raise Contested("the objects are being changed by somebody else")


async def _plan(
    store: Store,
    wanted: Sequence[ConfigObject[Any]],
    removals: Sequence[ObjectKey],
    author: Author,
) -> tuple[Plan, int]:
    """What is to be done about what is there now, and the newest revision among it."""
    keys = [*(item.key for item in wanted), *removals]
    if len(keys) <= FEW:
        found = await asyncio.gather(*(store.get(store_key(key)) for key in keys))
        return _planned(found, wanted, removals, author)
    there = (await store.list(CONFIG)).entries
    return await asyncio.to_thread(_planned, there, wanted, removals, author)


def _planned(
    there: Iterable[Entry | None],
    wanted: Sequence[ConfigObject[Any]],
    removals: Sequence[ObjectKey],
    author: Author,
) -> tuple[Plan, int]:
    by_key = {entry.key: entry for entry in there if entry is not None}
    keys = [*(item.key for item in wanted), *removals]
    present = {key: by_key.get(store_key(key)) for key in keys}
    missing = [str(key) for key in removals if present[key] is None]
    if missing:
        raise NoSuchObject(f"there is no {', '.join(missing)}")
    newest = max((entry.mod_revision for entry in present.values() if entry), default=0)
    return plan_changes(present, wanted, removals, author), newest


async def _change_staged(
    store: Store,
    wanted: Sequence[ConfigObject[Any]],
    removals: Sequence[ObjectKey],
    author: Author,
) -> Changed:
    """Under the pointer nobody else writes: what is read now is still there when it flips. Raises Conflict, LeaseLost."""
    name = secrets.token_hex(8)
    lease = await store.grant(LEASE_TTL_S)
    try:
        staging = msgspec.json.encode(Pointer(change=name, committed=False))
        held = await store.commit(
            Transaction((Write(APPLYING, staging, lease.id),), (Unchanged(APPLYING, 0),))
        )
        await sweep(store, Unchanged(APPLYING, held), spare=name)
        plan, newest = await _plan(store, wanted, removals, author)
        if not plan.steps:
            return Changed(plan.changes, newest)
        await stage_and_flip(store, name, plan.steps, held, lease.id)
    finally:
        with suppress(StoreError):
            await store.revoke(lease.id)  # Takes the pointer along, unless it is committed.
    revision = await carry_out(store)
    if not revision:
        # Somebody else carried it out: its last record came with the end of it.
        record = await store.get(plan.steps[-1].history.key)
        revision = record.mod_revision if record else newest
    return Changed(plan.changes, revision)


async def _others_are_done(store: Store) -> None:
    """Wait for a large change of somebody else, or carry it out if it is committed. Raises Contested."""
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while (entry := await store.get(APPLYING)) is not None:
        if committed_change(entry):
            await carry_out(store)
        elif asyncio.get_running_loop().time() > deadline:
            raise Contested("a large change of somebody else has been under way for too long")
        else:
            await asyncio.sleep(_POLL_S)


async def tidy(store: Store) -> int:
    """Finish and remove what writers that died left; how many chunks were removed."""
    await carry_out(store)
    if await store.get(APPLYING) is not None:
        return 0
    return await sweep(store, Unchanged(APPLYING, 0))


async def read_objects(store: Store, prefix: str = CONFIG) -> Listing:
    """Every object below a prefix, all at one revision, never half of a change."""
    listing = await store.list(prefix)
    return Listing(await overlaid(store, listing, prefix), listing.revision)


async def read_object(store: Store, key: ObjectKey) -> Entry | None:
    """One object; also what is committed and not yet in its place."""
    path = store_key(key)
    if not committed_change(await store.get(APPLYING)):
        return await store.get(path)
    found = (await read_objects(store, path)).entries
    return next((entry for entry in found if entry.key == path), None)
