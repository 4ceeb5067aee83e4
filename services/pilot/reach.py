"""How far this Pilot has read the store, and waiting until it is as far as somebody who comes from another Pilot.

    client was at 1034.998 ─► this Pilot published that ─► served
                           └► not yet, or not known ─► a mark is written ─► both watches bring it back ─► served
                                                                         └► they do not in time ─► UNAVAILABLE

A watch says nothing of revisions at which nothing changed, so the number alone cannot tell a Pilot that lags from one that
read a listing earlier. The mark can: what a watch brings, it brings in order, so with the mark everything before it is here.
(etcd's progress notifications would say the same, but before 3.4.25 and 3.5.8 those asked for may come too early.)
"""

from __future__ import annotations

import asyncio

from services.pilot.model.position import Position
from windward.store.errors import StoreError
from windward.store.keys import CONFIG_MARK, REGISTRATIONS_MARK
from windward.store.protocol import Store, Transaction, Write
from windward.telemetry.logging import get_logger

log = get_logger()
BETWEEN_MARKS_S = 0.1
"""A client that claims what is not cannot make this Pilot write more often."""


class Behind(Exception):
    """A Pilot that could not get as far as its client is; says how far it is."""


class Reach:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._advanced = asyncio.Event()
        self._marking = asyncio.Lock()
        self._begun = 0
        self._last = (0, 0)
        """Number and revision of the last mark that was written."""
        self._last_s = float("-inf")
        self.published = Position()
        """Everything up to here is in force."""

    def advance(self, position: Position) -> None:
        if position != self.published:
            self.published = position
            self._advanced.set()
            self._advanced = asyncio.Event()

    async def until(self, position: Position, within_s: float) -> None:
        """Return when all of a position is in force, or when all of the store is. Raises Behind."""
        if self.published.includes(position):
            return
        try:
            async with asyncio.timeout(within_s):
                revision = await self._newest(position)
        except (TimeoutError, StoreError) as error:
            reason = str(error) or f"not within {within_s:g} s"
            raise Behind(
                f"this Pilot is at {self.published} of the store, the client has seen {position} ({reason}); "
                "try another one"
            ) from error
        if not self.published.includes(position):
            # A position that the store has not: it was restored to an earlier state, or is another one.
            log.warning("reach.store_went_back", client=str(position), store=revision)

    async def _newest(self, position: Position) -> int:
        """Wait for a position, or for a mark that is written from now on; the mark's revision."""
        mark = asyncio.ensure_future(self.mark())
        here = asyncio.ensure_future(self._until_published(position))
        try:
            await asyncio.wait({mark, here}, return_when=asyncio.FIRST_COMPLETED)
            if here.done():
                return 0
            revision = await mark
            await self._until_published(position.common(revision))
            return revision
        finally:
            mark.cancel()
            here.cancel()
            await asyncio.gather(mark, here, return_exceptions=True)

    async def _until_published(self, position: Position) -> None:
        while not self.published.includes(position):
            await self._advanced.wait()

    async def mark(self) -> int:
        """Write a mark, with others who want one at the same time; its revision is later than the call. Raises StoreError."""
        asked = self._begun
        async with self._marking:
            number, revision = self._last
            if number > asked:
                return revision  # somebody began it after this one asked
            loop = asyncio.get_running_loop()
            await asyncio.sleep(max(0.0, self._last_s + BETWEEN_MARKS_S - loop.time()))
            self._begun += 1
            number, self._last_s = self._begun, loop.time()
            revision = await self._store.commit(
                Transaction((Write(CONFIG_MARK, b""), Write(REGISTRATIONS_MARK, b"")))
            )
            self._last = (number, revision)
            return revision

    async def align(self) -> None:
        """For a Pilot that starts: no other knows the revision of its first listing; after a mark all know a later one."""
        try:
            await self.mark()
        except StoreError as error:
            log.info("reach.not_aligned", reason=str(error))
