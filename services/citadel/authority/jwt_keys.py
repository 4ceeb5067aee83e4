"""The ring of JWT signing keys as replicas share it: in the store, each key sealed, replaced by compare-and-write.

get -> (absent: made) -> advanced if it is time -> written unless another replica was first, then read again
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from services.citadel.authority.jwt import JwtPolicy, Ring, SigningKey, advance, bundle, next_change
from services.citadel.authority.sealing import SealingError, seal, unseal
from windward.identity.keys import key_pem, load_key, new_key
from windward.store.errors import Conflict, StoreError
from windward.store.follow import follow
from windward.store.keys import CA
from windward.store.protocol import Entry, Store, Transaction, Unchanged, Write
from windward.telemetry.logging import get_logger

log = get_logger()
JWT_KEYS = CA + "jwt-keys"
LONGEST_WAIT_S = 3600.0
RETRY_S = 1.0


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    sealed_key: bytes
    signs_from: float
    """Unix seconds."""


class RingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """As it lies in the store."""

    keys: tuple[KeyRecord, ...]
    schema: int = 1


class JwtKeys:
    """Use: ``await keys.refresh()`` once, then ``keys.ring``, with ``keys.run()`` in a task group."""

    def __init__(
        self,
        store: Store,
        encryption_key: bytes,
        policy: JwtPolicy,
        now: Callable[[], datetime],
    ) -> None:
        self.policy = policy
        self._store = store
        self._encryption_key = encryption_key
        self._now = now
        self._ring: Ring = ()
        self._changed = asyncio.Event()
        self._refreshing = asyncio.Lock()
        self.sequence = 0
        """Rises with every change of the bundle that this replica has seen."""

    @property
    def ring(self) -> Ring:
        assert self._ring, "no keys yet: await refresh()"
        return self._ring

    async def changed(self, after_sequence: int) -> None:
        """Wait for a bundle newer than a sequence number."""
        while self.sequence <= after_sequence:
            await self._changed.wait()

    async def refresh(self) -> None:
        """Take what the store has, advanced to now. Raises StoreError, or SealingError for a wrong key."""
        async with self._refreshing:
            while True:
                entry = await self._store.get(JWT_KEYS)
                found = self._open(entry) if entry else ()
                wanted = advance(found, self.policy, self._now(), new_key)
                if wanted is found or await self._write(wanted, entry):
                    break
            if not self._ring or bundle(wanted) != bundle(self._ring):
                self.sequence += 1
                self._changed.set()
                self._changed = asyncio.Event()
            self._ring = wanted

    async def run(self) -> None:
        """Rotate in time, and follow what other replicas do."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._rotate())
            group.create_task(self._follow())

    async def _rotate(self) -> None:
        while True:
            wait_s = (next_change(self.ring, self.policy) - self._now()).total_seconds()
            await asyncio.sleep(min(max(wait_s, 0.0), LONGEST_WAIT_S))
            await self._try()

    async def _follow(self) -> None:
        async for _ in follow(self._store, JWT_KEYS):
            await self._try()

    async def _try(self) -> None:
        """One refresh; what fails leaves the last good ring in force."""
        try:
            await self.refresh()
        except (StoreError, SealingError) as error:
            log.warning("citadel.jwt_keys_not_refreshed", reason=str(error))
            await asyncio.sleep(RETRY_S)

    async def _write(self, ring: Ring, entry: Entry | None) -> bool:
        """Whether nobody else was first."""
        keys = tuple(
            KeyRecord(
                sealed_key=seal(self._encryption_key, key_pem(item.key), JWT_KEYS),
                signs_from=item.signs_from.timestamp(),
            )
            for item in ring
        )
        write = Write(JWT_KEYS, msgspec.json.encode(RingRecord(keys=keys)))
        condition = Unchanged(JWT_KEYS, entry.mod_revision if entry else 0)
        try:
            await self._store.commit(Transaction((write,), (condition,)))
        except Conflict:
            return False
        log.info("citadel.jwt_keys_changed", keys=len(ring))
        return True

    def _open(self, entry: Entry) -> Ring:
        try:
            record = msgspec.json.decode(entry.value, type=RingRecord)
            return tuple(
                SigningKey(
                    load_key(unseal(self._encryption_key, item.sealed_key, JWT_KEYS)),
                    datetime.fromtimestamp(item.signs_from, UTC),
                )
                for item in record.keys
            )
        except (msgspec.MsgspecError, ValueError) as error:
            raise SealingError(f"{JWT_KEYS} in the store is not readable: {error}") from error
