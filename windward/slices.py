"""Long work on an event loop, in slices of which each holds the loop for a moment.

    generator that yields between its steps ─► in_slices, Turns.run ─► what it returns

``Slices`` is for one who works alone. ``Turns`` is for many: forty that go on whenever the loop comes to them hold it for
forty slices at a stretch, so of those that wait for a turn one gets it in each round of the loop, in order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from typing import Final, TypeVar

SLICE_S: Final = 0.002
T = TypeVar("T")
Work = Generator[None, None, T]


class Slices:
    """One who lets others run whenever it has held the event loop for a slice: ``if slices.over: await slices.pause()``."""

    def __init__(self, slice_s: float = SLICE_S) -> None:
        self._time = asyncio.get_running_loop().time
        self._slice_s = slice_s
        self._until_s = self._time() + slice_s

    @property
    def over(self) -> bool:
        return self._time() >= self._until_s

    async def pause(self) -> None:
        await asyncio.sleep(0)
        self._until_s = self._time() + self._slice_s

    async def run(self, work: Work[T]) -> T:
        """To the end, beside what else goes on in these slices."""
        made: list[T] = []
        for _ in _keeping(work, made):
            if self.over:
                await self.pause()
        return made[0]


async def in_slices(work: Work[T], slice_s: float = SLICE_S) -> T:
    """Run to the end, letting others run after each slice."""
    return await Slices(slice_s).run(work)


def at_once(work: Work[T]) -> T:
    """Run to the end, and let nobody run meanwhile."""
    made: list[T] = []
    for _ in _keeping(work, made):
        pass
    return made[0]


def _keeping(work: Work[T], made: list[T]) -> Work[None]:
    """The same steps; what the work returns is added to ``made``, where a ``for`` can find it."""
    made.append((yield from work))


class Turns:
    """Whoever has more to do than a slice waits here for its turn. One owner's; all on one event loop."""

    def __init__(self, slice_s: float = SLICE_S) -> None:
        self._slice_s = slice_s
        self._waiting: deque[asyncio.Future[None] | Callable[[], None]] = deque()
        self._going_round = False

    async def next(self) -> None:
        """Wait for a turn; it lasts until the next ``await``, and should be no longer than a slice."""
        turn = asyncio.get_running_loop().create_future()
        self._join(turn)
        await turn

    def call(self, back: Callable[[], None]) -> None:
        """Call back in a later round of the loop. Short ones share a slice."""
        self._join(back)

    async def run(self, work: Work[T]) -> T:
        """Do all of it, in turns."""
        time, made = asyncio.get_running_loop().time, list[T]()
        await self.next()
        until_s = time() + self._slice_s
        for _ in _keeping(work, made):
            if time() >= until_s:
                await self.next()
                until_s = time() + self._slice_s
        return made[0]

    def _join(self, who: asyncio.Future[None] | Callable[[], None]) -> None:
        self._waiting.append(who)
        if len(self._waiting) == 1 and not self._going_round:
            asyncio.get_running_loop().call_soon(self._round)

    def _round(self) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._slice_s
        self._going_round = True
        try:
            for _ in range(len(self._waiting)):
                who = self._waiting.popleft()
                if not isinstance(who, asyncio.Future):
                    who()
                elif not who.done():
                    who.set_result(None)
                    break
                if loop.time() >= until_s:
                    break
        finally:
            self._going_round = False
            if self._waiting:
                loop.call_soon(self._round)
