"""Thousands of sockets under one descriptor of the event loop's, a few at a time.

asyncio handles all sockets that are ready in one turn, with a handle and a context for each: with a thousand answers to
one change that is a hold of 50 ms. Here a turn takes at most ``AT_ONCE`` of them and ``SLICE_S``, or ``LITTLE_S`` while
others have more to do; what is left is still ready in the next one, since epoll is asked level-triggered. Source: epoll(7),
"poll on an epoll descriptor".
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Callable
from typing import Final

AT_ONCE: Final = 32
SLICE_S: Final = 0.002
LITTLE_S: Final = 0.0004
READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
Ready = Callable[[int], None]
"""Told what a socket is ready for: READ, WRITE, both; EPOLLERR and EPOLLHUP as they come."""


class Poller:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._ready: dict[int, Ready] = {}
        self._again: deque[int] = deque()
        self.slice_s = SLICE_S
        loop.add_reader(self._epoll.fileno(), self._turn)

    def register(self, descriptor: int, ready: Ready) -> None:
        """From now on ``ready`` is called when there is something to read."""
        self._ready[descriptor] = ready
        self._epoll.register(descriptor, READ)

    def modify(self, descriptor: int, events: int) -> None:
        self._epoll.modify(descriptor, events)

    def unregister(self, descriptor: int) -> None:
        """Before it is closed."""
        if self._ready.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def again(self, descriptor: int) -> None:
        """There is more to read than the kernel knows of: TLS has it already."""
        if not self._again:
            self._loop.call_soon(self._once_more)
        self._again.append(descriptor)

    def close(self) -> None:
        if self._epoll.closed:
            return
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _turn(self) -> None:
        clock = self._loop.time
        until = clock() + self.slice_s
        for descriptor, events in self._epoll.poll(0, AT_ONCE):
            ready = self._ready.get(descriptor)
            if ready is not None:
                ready(events)
                if clock() >= until:
                    return

    def _once_more(self) -> None:
        for _ in range(min(len(self._again), AT_ONCE)):
            ready = self._ready.get(self._again.popleft())
            if ready is not None:
                ready(READ)
        if self._again:
            self._loop.call_soon(self._once_more)
