"""A change that no single transaction holds: staged out of sight, then one pointer flips, then it is carried out.

    pointer "staging" (leased) -> chunks below STAGING -> pointer "committed" -> chunk by chunk into place -> no pointer

The flip is the moment of truth. A writer that dies before it leaves nothing that anybody reads: its pointer goes with its
lease, and ``sweep`` removes its chunks. After it, anybody may carry the change out to its end (``carry_out``): a chunk
moves into place in the transaction that removes it from the stage, so that at every revision what lies in place and
what is still staged together are the whole change. Followers (feed.py) hold their breath while the pointer is committed;
readers put what is staged over what they read (``overlaid``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from windward.config.stored import MOST_BYTES, MOST_STEPS, Step
from windward.records import read_json
from windward.store.errors import Conflict, StoreError
from windward.store.keys import APPLYING, STAGING, staging_key
from windward.store.protocol import Change as StoreChange
from windward.store.protocol import (
    Entry,
    Listing,
    Put,
    Remove,
    Store,
    Transaction,
    Unchanged,
    Write,
)

LEASE_TTL_S: Final = 10.0
_SWEPT_AT_ONCE: Final = 100
_AT_ONCE: Final = 8
"""Chunks that are written side by side."""
_REMOVED: Final = msgspec.Raw(b"null")


class StageUnreadable(StoreError):
    """A staged change that this version cannot read: it stays where it is, and nothing else is lost."""


class Pointer(msgspec.Struct, frozen=True, kw_only=True):
    change: str
    """Names the stage."""
    committed: bool
    schema: int = 1


class StagedStep(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    value: msgspec.Raw
    """``null``: the object is removed."""
    history_key: str
    history: msgspec.Raw


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    steps: tuple[StagedStep, ...]
    schema: int = 1


def committed_change(entry: Entry | None) -> str:
    """The committed change that the pointer's entry names; empty while there is none, or none that can be read."""
    try:
        pointer = read_json(entry.value, Pointer) if entry else None
    except msgspec.DecodeError:
        return ""
    return pointer.change if pointer is not None and pointer.committed else ""


def is_committed(change: StoreChange) -> bool:
    """Whether a change of the pointer's key says that a staged change is being carried out."""
    return isinstance(change, Put) and bool(committed_change(change.entry))


def _steps_of(entry: Entry) -> tuple[StagedStep, ...]:
    try:
        return read_json(entry.value, Chunk).steps
    except msgspec.DecodeError as error:
        raise StageUnreadable(f"{entry.key}: the staged change cannot be read: {error}") from error


def chunks(steps: Sequence[Step]) -> Iterator[Chunk]:
    """Steps in parts of which each goes into one transaction."""
    part: list[StagedStep] = []
    size = 0
    for step in steps:
        if part and (len(part) == MOST_STEPS or size + step.size_bytes > MOST_BYTES):
            yield Chunk(steps=tuple(part))
            part, size = [], 0
        part.append(_staged(step))
        size += step.size_bytes
    if part:
        yield Chunk(steps=tuple(part))


def _staged(step: Step) -> StagedStep:
    value = msgspec.Raw(step.object.value) if isinstance(step.object, Write) else _REMOVED
    return StagedStep(
        key=step.object.key,
        value=value,
        history_key=step.history.key,
        history=msgspec.Raw(step.history.value),
    )


async def stage_and_flip(
    store: Store, change: str, steps: Sequence[Step], held: int, lease: int
) -> None:
    """Stage under the pointer that we hold (``held``: its revision, ``lease``: what keeps it), and flip it.

    Raises Conflict or LeaseLost when the pointer was lost meanwhile: then nothing has happened.
    """
    mine = Unchanged(APPLYING, held)
    waiting: list[Transaction] = []
    for number, chunk in enumerate(chunks(steps)):
        key = staging_key(change, number)
        write = Write(key, msgspec.json.encode(chunk))
        waiting.append(Transaction((write,), (mine, Unchanged(key, 0))))
        if len(waiting) == _AT_ONCE:
            await store.keep_alive(lease)
            await _commit_all(store, waiting)
            waiting.clear()
        await asyncio.sleep(0)
    await store.keep_alive(lease)
    await _commit_all(store, waiting)
    flipped = msgspec.json.encode(Pointer(change=change, committed=True))
    await store.commit(Transaction((Write(APPLYING, flipped),), (mine,)))


async def _commit_all(store: Store, transactions: Sequence[Transaction]) -> int:
    """Side by side: each waits for a disk. The newest revision, once all of them are through; raises what went wrong first."""

    async def commit(transaction: Transaction) -> int:
        return await store.commit(transaction)

    done = await asyncio.gather(*map(commit, transactions), return_exceptions=True)
    revisions = [0]
    for result in done:
        if isinstance(result, BaseException):
            raise result
        revisions.append(result)
    return max(revisions)


async def carry_out(store: Store) -> int:
    """Bring a committed change to its end, whoever began it. The revision at which it is whole; 0 when there is none,
    or when somebody else was faster. Several may do it at once: each chunk moves once.
    """
    entry = await store.get(APPLYING)
    change = committed_change(entry)
    if entry is None or not change:
        return 0
    mine = Unchanged(APPLYING, entry.mod_revision)
    while True:
        staged = (await store.list(f"{STAGING}{change}/")).entries
        revision = 0
        try:
            for start in range(0, len(staged) - 1, _AT_ONCE):
                part = staged[start : min(start + _AT_ONCE, len(staged) - 1)]
                await _commit_all(store, [_moved(item, mine, last=False) for item in part])
            if staged:
                revision = await store.commit(_moved(staged[-1], mine, last=True))
            else:
                # The last chunk takes the pointer along; without one, a hand has been at the stage.
                revision = await store.commit(Transaction((Remove(APPLYING),), (mine,)))
        except Conflict:
            now = await store.get(APPLYING)
            if now is None or now.mod_revision != entry.mod_revision:
                return 0
            continue
        return revision


def _moved(item: Entry, mine: Unchanged, *, last: bool) -> Transaction:
    """A chunk into place and off the stage; the last one takes the pointer along."""
    operations: list[Write | Remove] = [Remove(item.key)]
    if last:
        operations.append(Remove(APPLYING))
    for step in _steps_of(item):
        gone = step.value == _REMOVED
        placed = Remove(step.key) if gone else Write(step.key, bytes(step.value))
        operations += [placed, Write(step.history_key, bytes(step.history))]
    return Transaction(tuple(operations), (mine, Unchanged(item.key, item.mod_revision)))


async def sweep(store: Store, guard: Unchanged, *, spare: str = "") -> int:
    """Remove what writers that died left on the stage; how many chunks. Nothing when the guard does not hold."""
    listing = await store.list(STAGING, keys_only=True)
    left = [item.key for item in listing.entries if not item.key.startswith(f"{STAGING}{spare}/")]
    for start in range(0, len(left), _SWEPT_AT_ONCE):
        part = left[start : start + _SWEPT_AT_ONCE]
        try:
            await store.commit(Transaction(tuple(Remove(key) for key in part), (guard,)))
        except Conflict:
            return start
    return len(left)


async def overlaid(store: Store, listing: Listing, prefix: str) -> tuple[Entry, ...]:
    """A listing's entries with what was staged and committed at its revision put over them."""
    at = listing.revision
    entry = await store.get(APPLYING, revision=at)
    change = committed_change(entry)
    if entry is None or not change:
        return listing.entries
    entries = {item.key: item for item in listing.entries}
    for item in (await store.list(f"{STAGING}{change}/", revision=at)).entries:
        for step in _steps_of(item):
            before = entries.pop(step.key, None)
            if step.value != _REMOVED and step.key.startswith(prefix):
                entries[step.key] = Entry(
                    step.key,
                    bytes(step.value),
                    before.create_revision if before else entry.mod_revision,
                    entry.mod_revision,
                    before.version + 1 if before else 1,
                )
    return tuple(entries[key] for key in sorted(entries))
