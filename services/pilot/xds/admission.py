"""Admission: of many clients that connect at once, a few are synced at a time, the others wait in order.

enter() -> Place (held during the first sync) -> leave(), by its stream or after its time is up
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self


class Place:
    """A first sync's place. Given back once: when the client has everything, when it ends, or when its time is up."""

    def __init__(self, places: asyncio.Semaphore, longest_s: float) -> None:
        self._places: asyncio.Semaphore | None = places
        self._timer = asyncio.get_running_loop().call_later(longest_s, self.leave)

    def leave(self) -> None:
        if self._places is not None:
            self._timer.cancel()
            self._places.release()
            self._places = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()


class Admission:
    def __init__(self, at_once: int, longest_s: float) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._longest_s = longest_s
        self.waiting = 0

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[Place]:
        """Wait for a place, first come, first served. Without a limit in time: a place is given back after ``longest_s``."""
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        with Place(self._places, self._longest_s) as place:
            yield place
