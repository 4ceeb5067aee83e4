"""How long the event loop was held: the longest time that it spent between two looks at its sockets and timers.

    selector.select() returns -> callbacks run -> selector.select() is called again: the time between is a hold

Exact, and two clock readings a turn of the loop, so it costs next to nothing; a heartbeat of the same precision would
wake an idle process hundreds of times a second. Time is kept twice: on the clock, which counts what other processes
took from this one, and as CPU of the loop's own thread, which is what this process is to blame for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any


class LoopWatch:
    """Watches one loop from ``attach`` on; reading a longest hold begins a new one."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._longest_s = 0.0
        self._longest_cpu_s = 0.0

    def attach(self, loop: asyncio.AbstractEventLoop) -> bool:
        """False for a loop that has no selector of Python's, which then is not watched."""
        selector = getattr(loop, "_selector", None)
        if selector is None:
            return False
        selector.select = self.around(selector.select)
        return True

    def around(self, select: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The same ``select``, with what happens between two calls of it measured."""
        returned_s = cpu_s = 0.0
        first = True

        def watched(timeout: float | None = None) -> Any:
            nonlocal returned_s, cpu_s, first
            if not first:
                self._longest_s = max(self._longest_s, self._clock() - returned_s)
                self._longest_cpu_s = max(self._longest_cpu_s, self._cpu_clock() - cpu_s)
            first = False
            ready = select(timeout)
            returned_s, cpu_s = self._clock(), self._cpu_clock()
            return ready

        return watched

    def take_longest_s(self) -> float:
        longest, self._longest_s = self._longest_s, 0.0
        return longest

    def take_longest_cpu_s(self) -> float:
        longest, self._longest_cpu_s = self._longest_cpu_s, 0.0
        return longest
