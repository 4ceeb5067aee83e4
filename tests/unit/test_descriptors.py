"""Room for descriptors: a process may have them, and the kernel's table is large enough already."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

SCRIPT = """
import os, resource, sys
from windward.descriptors import make_room
before = set(os.listdir("/proc/self/fd"))
print(make_room(int(sys.argv[1])))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("FDSize")))
print(len(set(os.listdir("/proc/self/fd")) - before))
"""


def after(wanted: int, soft: int, hard: int) -> list[int]:
    """(room, soft limit, size of the table, descriptors more than before) of a process with these limits."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(wanted)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)),
        check=True,
        capture_output=True,
        text=True,
    )
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize(
    ("wanted", "room"), [(2000, 2000), (100_000, 4096)], ids=["as wanted", "as allowed"]
)
def test_the_limit_and_the_table_are_as_large_as_wanted_or_allowed(wanted: int, room: int):
    made, soft, size, more = after(wanted, 256, 4096)
    assert (made, soft, more) == (room, room, 0)
    assert size >= room


def test_a_limit_that_is_larger_already_stays():
    made, soft, size, _ = after(1000, 3000, 4096)
    assert (made, soft) == (1000, 3000)
    assert size >= 1000
