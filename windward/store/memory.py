"""A store in memory, with the whole of the protocol: history, watches, leases, compaction. For unit tests.

Time is an argument (``clock``), so lease tests need not wait: ``expire_leases`` looks at it.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left, insort
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace

from windward.store.errors import Compacted, Conflict, LeaseLost, TooLarge
from windward.store.protocol import (
    Batch,
    Change,
    Deleted,
    Entry,
    Exists,
    Lease,
    Listing,
    Put,
    Remove,
    Transaction,
    Unchanged,
    Write,
)

MAX_OPERATIONS = 128
MAX_BYTES = 1_500_000


@dataclass(slots=True)
class _Lease:
    ttl_s: float
    expires_at: float
    keys: set[str] = field(default_factory=set)


def check_size(transaction: Transaction) -> None:
    """The limits that every implementation holds to. Raises TooLarge, or ValueError for a key written twice."""
    if max(len(transaction.operations), len(transaction.conditions)) > MAX_OPERATIONS:
        raise TooLarge(f"a transaction has at most {MAX_OPERATIONS} operations and conditions")
    size = sum(
        len(operation.key) + (len(operation.value) if isinstance(operation, Write) else 0)
        for operation in transaction.operations
    )
    if size > MAX_BYTES:
        raise TooLarge(f"a transaction has at most {MAX_BYTES} bytes, this one {size}")
    keys = [operation.key for operation in transaction.operations]
    if len(set(keys)) != len(keys):
        raise ValueError("a transaction names a key twice")


class MemoryStore:
    """See windward.store.protocol.Store."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._revision = 1
        self._compacted = 0
        self._entries: dict[str, Entry] = {}
        self._keys: list[str] = []
        self._history: list[tuple[int, tuple[Change, ...]]] = []
        self._leases: dict[int, _Lease] = {}
        self._next_lease = 1
        self._changed = asyncio.Event()

    async def get(self, key: str, *, revision: int | None = None) -> Entry | None:
        return self._state(revision).get(key)

    async def list(
        self, prefix: str, *, revision: int | None = None, keys_only: bool = False
    ) -> Listing:
        self.expire_leases()
        if revision is not None:
            state = self._state(revision)
            entries = sorted(
                (entry for key, entry in state.items() if key.startswith(prefix)), key=_key
            )
        else:
            entries = []
            for key in self._keys[bisect_left(self._keys, prefix) :]:
                if not key.startswith(prefix):
                    break
                entries.append(self._entries[key])
        if keys_only:
            entries = [replace(entry, value=b"") for entry in entries]
        return Listing(tuple(entries), self._revision if revision is None else revision)

    async def commit(self, transaction: Transaction) -> int:
        self.expire_leases()
        check_size(transaction)
        for condition in transaction.conditions:
            entry = self._entries.get(condition.key)
            match condition:
                case Unchanged(mod_revision=wanted):
                    held = (entry.mod_revision if entry else 0) == wanted
                case Exists():
                    held = entry is not None
            if not held:
                raise Conflict(f"{condition.key} has changed")
        for operation in transaction.operations:
            if (
                isinstance(operation, Write)
                and operation.lease
                and operation.lease not in self._leases
            ):
                raise LeaseLost(f"lease {operation.lease:x} has expired")
        return self._apply(transaction.operations)

    async def watch(self, prefix: str, *, from_revision: int) -> AsyncGenerator[Batch, None]:
        position = from_revision
        while True:
            if position <= self._compacted:
                raise Compacted(self._compacted)
            start = bisect_left(self._history, (position,))
            late = self._history[start:]
            # As etcd does when a watcher lags: what it missed comes together, whole revisions, in order.
            mine = tuple(
                c for _, changes in late for c in changes if change_key(c).startswith(prefix)
            )
            position = max(position, self._revision + 1)
            if mine:
                yield Batch(mine, max(change_revision(change) for change in mine))
            if position <= self._revision:
                continue
            await self._changed.wait()

    async def grant(self, ttl_s: float) -> Lease:
        lease = self._next_lease
        self._next_lease += 1
        self._leases[lease] = _Lease(ttl_s, self._clock() + ttl_s)
        return Lease(lease, ttl_s)

    async def keep_alive(self, lease: int) -> float:
        self.expire_leases()
        held = self._leases.get(lease)
        if held is None:
            raise LeaseLost(f"lease {lease:x} has expired")
        held.expires_at = self._clock() + held.ttl_s
        return held.ttl_s

    async def revoke(self, lease: int) -> None:
        held = self._leases.pop(lease, None)
        if held is not None and held.keys:
            self._apply(tuple(Remove(key) for key in sorted(held.keys)))

    async def close(self) -> None:
        return

    # ---- for tests --------------------------------------------------------------------------------------------------

    def expire_leases(self) -> None:
        """Delete the keys of every lease whose time is over."""
        now = self._clock()
        for number in [number for number, lease in self._leases.items() if lease.expires_at <= now]:
            held = self._leases.pop(number)
            if held.keys:
                self._apply(tuple(Remove(key) for key in sorted(held.keys)))

    def compact(self, revision: int) -> None:
        """Forget history before a revision; watches from there raise Compacted."""
        self._compacted = max(self._compacted, revision)
        self._history = [item for item in self._history if item[0] > revision]
        self._notify()

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _apply(self, operations: tuple[Write | Remove, ...]) -> int:
        revision = self._revision + 1
        changes: list[Change] = []
        for operation in operations:
            before = self._entries.get(operation.key)
            if isinstance(operation, Remove):
                if before is None:
                    continue
                self._forget(before)
                changes.append(Deleted(operation.key, revision))
                continue
            if before is not None:
                self._forget(before)
            created = before.create_revision if before else revision
            version = before.version + 1 if before else 1
            entry = Entry(
                operation.key, operation.value, created, revision, version, operation.lease
            )
            self._entries[entry.key] = entry
            insort(self._keys, entry.key)
            if entry.lease:
                self._leases[entry.lease].keys.add(entry.key)
            changes.append(Put(entry))
        if changes:
            self._revision = revision
            self._history.append((revision, tuple(changes)))
            self._notify()
        return self._revision

    def _forget(self, entry: Entry) -> None:
        del self._entries[entry.key]
        del self._keys[bisect_left(self._keys, entry.key)]
        if entry.lease in self._leases:
            self._leases[entry.lease].keys.discard(entry.key)

    def _state(self, revision: int | None) -> dict[str, Entry]:
        self.expire_leases()
        if revision is None or revision >= self._revision:
            return self._entries
        if revision < self._compacted:
            raise Compacted(self._compacted)
        state = dict(self._entries)
        for at, changes in reversed(self._history):
            if at <= revision:
                break
            for change in changes:
                state.pop(change_key(change), None)
        for at, changes in self._history:
            if at > revision:
                break
            for change in changes:
                if isinstance(change, Put):
                    state[change.entry.key] = change.entry
                else:
                    state.pop(change.key, None)
        return state

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def change_revision(change: Change) -> int:
    return change.entry.mod_revision if isinstance(change, Put) else change.revision


def change_key(change: Change) -> str:
    return change.entry.key if isinstance(change, Put) else change.key


def _key(entry: Entry) -> str:
    return entry.key
