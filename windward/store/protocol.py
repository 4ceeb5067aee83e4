"""What a store promises, whichever it is: etcd (what everyone runs) or memory (unit tests).

    list at a revision -> watch from the next one -> every change once, in order
    Transaction(conditions, writes) -> all or nothing, at one new revision

Revisions rise with every transaction that writes; all writes of one transaction share a revision. Keys are text,
ordered bytewise; values are bytes. All calls may raise StoreError's children (see errors.py).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's value and where it stands in the store's history."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    """Counts the writes since the key was created, from 1."""
    lease: int = 0
    """0: the key lives until it is deleted."""


@dataclass(frozen=True, slots=True)
class Listing:
    entries: tuple[Entry, ...]
    """In key order."""
    revision: int
    """The store's revision at which this list is true: watch from ``revision + 1`` to miss nothing."""


@dataclass(frozen=True, slots=True)
class Put:
    entry: Entry


@dataclass(frozen=True, slots=True)
class Deleted:
    key: str
    revision: int


Change = Put | Deleted


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes of one or more revisions, whole revisions only, in order, each once."""

    changes: tuple[Change, ...]
    revision: int
    """Of the newest change in it (for a relist: of the listing)."""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Condition: the key's mod revision is this one; 0 means the key is absent."""

    key: str
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Exists:
    """Condition: the key is present."""

    key: str


Condition = Unchanged | Exists


@dataclass(frozen=True, slots=True)
class Write:
    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Remove:
    """Deletes a key; that it is absent already is no error."""

    key: str


@dataclass(frozen=True, slots=True)
class Transaction:
    """At most 128 conditions and 128 operations, 1.5 MB in all; no key twice among the operations."""

    operations: tuple[Write | Remove, ...]
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Lease:
    id: int
    ttl_s: float


class Store(Protocol):
    async def get(self, key: str, *, revision: int | None = None) -> Entry | None: ...

    async def list(
        self, prefix: str, *, revision: int | None = None, keys_only: bool = False
    ) -> Listing:
        """Every entry below a prefix, all at one revision; their values empty when only keys are asked for.

        Raises Compacted for a revision that is gone.
        """

    async def commit(self, transaction: Transaction) -> int:
        """Carry out all operations, if every condition holds, and return their revision.

        Raises Conflict (nothing written) if one does not; TooLarge beyond the limits; Uncertain when the connection
        broke and the transaction has no condition by which a retry could tell whether it was applied.
        """

    def watch(self, prefix: str, *, from_revision: int) -> AsyncGenerator[Batch, None]:
        """Changes below a prefix from a revision on (included), for ever: survives outages, loses and repeats nothing.

        Raises Compacted when ``from_revision`` is gone (list again), and StoreReset when the store behind the
        address is another one or was restored to an earlier state.
        """

    async def grant(self, ttl_s: float) -> Lease: ...

    async def keep_alive(self, lease: int) -> float:
        """Renew a lease; returns its TTL in seconds. Raises LeaseLost when it has expired."""

    async def revoke(self, lease: int) -> None:
        """End a lease and delete its keys; that it has ended already is no error."""

    async def close(self) -> None: ...
