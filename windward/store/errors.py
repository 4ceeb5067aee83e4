"""What can go wrong with a store, in words for users."""

from __future__ import annotations


class StoreError(Exception):
    """Base of all errors of a store."""


class Conflict(StoreError):
    """A condition of a transaction did not hold; nothing was written."""


class Compacted(StoreError):
    """History before ``revision`` is gone: list again and compare."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"the store's history before revision {revision} is compacted")
        self.revision = revision


class StoreReset(StoreError):
    """Another store answers, or this one was restored to an earlier revision: list again and compare."""


class LeaseLost(StoreError):
    """The lease has expired or was revoked; its keys are gone."""


class TooLarge(StoreError):
    """A value or a transaction is over the store's limits; nothing was written."""


class Uncertain(StoreError):
    """The connection broke while an unconditional write was under way: it may have been applied, or not."""


class Unavailable(StoreError):
    """No endpoint of the store answers within the deadline."""


class Denied(StoreError):
    """The store refuses these credentials."""
