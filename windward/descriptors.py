"""Room for file descriptors, for processes that serve thousands of connections."""

from __future__ import annotations

import fcntl
import os
import resource
from typing import Final

MANY: Final = 16_384
"""For who sets no limit of its own."""


def make_room(wanted: int = MANY) -> int:
    """Let this process have so many, or as many as it may; how many that are.

    The kernel's table of them is as large from now on. Left to itself it doubles when an ``accept`` finds it full, and in a
    process of several threads waits meanwhile until no core can still see the old one: the event loop stands still for 10
    to 20 ms, once at each doubling. Source: Linux fs/file.c, expand_fdtable (synchronize_rcu).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    last = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.close(fcntl.fcntl(last, fcntl.F_DUPFD_CLOEXEC, wanted - 1))
    finally:
        os.close(last)
    return wanted
