"""Python's cycle collector, kept from holding the event loop.

What Pilot keeps (resources, snapshots, streams' states) is freed by reference counts; the collector visits it all the same
to look for cycles, all of it at once in a full collection: 100 ms and more for a large mesh. Two things keep it short:

- young objects are collected by the clock, a few at a time. Left to itself the collector counts what was made minus
  what was freed, and where every new resource frees an old one it waits until there is very much to visit;
- whenever a full collection took long, everything that survived it is set aside (``gc.freeze``), and the next one visits
  only what was made since. What was set aside is still freed by its count; only a cycle that dies later is not found.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

LONG_S: Final = 0.002
THRESHOLDS: Final = (5_000, 20, 4)
"""Of the collector itself, for what comes between two ticks; a full collection is due after four of the middle generation."""
TICK_S: Final = 0.1
YOUNG: Final = 500
"""New containers from which on a tick collects."""
MIDDLE: Final = 20
"""Every which tick that collects takes the middle generation as well."""


def watch(
    clock: Callable[[], float], freeze: Callable[[], None], long_s: float = LONG_S
) -> Callable[[str, Mapping[str, Any]], None]:
    """A callback for ``gc.callbacks`` that sets aside what survives a full collection of more than ``long_s``."""
    begun_s = 0.0

    def collected(phase: str, info: Mapping[str, Any]) -> None:
        nonlocal begun_s
        if phase == "start":
            begun_s = clock()
        elif info["generation"] == 2 and clock() - begun_s > long_s:
            freeze()

    return collected


async def keep_collections_short() -> None:
    """For the whole process, until cancelled."""
    before = gc.get_threshold()
    gc.set_threshold(*THRESHOLDS)
    callback = watch(time.thread_time, gc.freeze)
    gc.callbacks.append(callback)
    gc.collect()
    ticks = 0
    try:
        while True:
            await asyncio.sleep(TICK_S)
            if gc.get_count()[0] >= YOUNG:
                ticks += 1
                gc.collect(0 if ticks % MIDDLE else 1)
    finally:
        gc.callbacks.remove(callback)
        gc.set_threshold(*before)
