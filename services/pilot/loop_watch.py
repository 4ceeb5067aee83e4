"""How long the event loop was held: the longest time that it spent between two looks at its sockets and timers.

    selector.select() returns -> callbacks run -> selector.select() is called again: the time between is a hold

Exact, and two readings of a clock that needs no system call a turn of the loop: a heartbeat of the same precision would
wake an idle process hundreds of times a second, and reading the thread's CPU time instead would cost a tenth of a busy
Pilot's (measured). So what other processes took from this one is counted too: read it beside the machine's load.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any


class LoopWatch:
    """Watches one loop from ``attach`` on; reading a longest hold begins a new one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._longest_s = 0.0

    def attach(self, loop: asyncio.AbstractEventLoop) -> bool:
        """False for a loop that has no selector of Python's, which then is not watched."""
        selector = getattr(loop, "_selector", None)
        if selector is None:
            return False
        selector.select = self.around(selector.select)
        return True

    def around(self, select: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The same ``select``, with what happens between two calls of it measured."""
        returned_s: float | None = None
        clock = self._clock

        def watched(timeout: float | None = None) -> Any:
            nonlocal returned_s
            if returned_s is not None and (held_s := clock() - returned_s) > self._longest_s:
                self._longest_s = held_s
            ready = select(timeout)
            returned_s = clock()
            return ready

        return watched

    def take_longest_s(self) -> float:
        longest, self._longest_s = self._longest_s, 0.0
        return longest
