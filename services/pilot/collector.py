"""Python's cycle collector, kept from holding the event loop.

What Pilot keeps (resources, snapshots, streams' states) is freed by reference counts; the collector visits it all the same
to look for cycles: 0.3 us an object, 100 ms and more for all of a large mesh. So no generation may become large:

- what is new is visited after few objects, and by the clock besides. Left to itself the collector counts what was made minus
  what was freed, and where every new resource frees an old one it waits until there is very much to visit;
- what outlives two collections is looked at once more, in a turn of the loop of its own, and if that took long, set aside
  (``gc.freeze``): the next time only what was made since is visited. What was set aside is still freed by its count; only a
  cycle that dies later is not found.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

LONG_S: Final = 0.001
THRESHOLDS: Final = (1_000, 8, 1_000_000)
"""Of the collector itself: 0.3 ms for the youngest, 3 ms for the middle generation, and the oldest is never its business."""
TICK_S: Final = 0.05


class Oldest:
    """Collects the oldest generation whenever the middle one has been added to it; a callback for ``gc.callbacks``."""

    def __init__(
        self,
        soon: Callable[[Callable[[], None]], object],
        clock: Callable[[], float] = time.thread_time,
        collect: Callable[[], object] = gc.collect,
        freeze: Callable[[], None] = gc.freeze,
    ) -> None:
        """``soon`` has something called when the callbacks of now have run."""
        self._soon = soon
        self._clock, self._collect, self._freeze = clock, collect, freeze
        self._due = False

    def __call__(self, phase: str, info: Mapping[str, Any]) -> None:
        if phase == "stop" and info["generation"] == 1 and not self._due:
            self._due = True
            self._soon(self.visit)

    def visit(self) -> None:
        self._due = False
        begun_s = self._clock()
        self._collect()
        if self._clock() - begun_s > LONG_S:
            self._freeze()


async def keep_collections_short() -> None:
    """For the whole process, until cancelled."""
    before = gc.get_threshold()
    gc.set_threshold(*THRESHOLDS)
    # A collection may come in any thread: what is checked for a user, or read from a folder, has one of its own.
    oldest = Oldest(asyncio.get_running_loop().call_soon_threadsafe)
    gc.callbacks.append(oldest)
    gc.freeze()  # what was imported
    try:
        while True:
            await asyncio.sleep(TICK_S)
            gc.collect(1)
    finally:
        gc.callbacks.remove(oldest)
        gc.set_threshold(*before)
