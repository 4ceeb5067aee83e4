"""Whether the kernel has killed something here for memory, from the cgroup's own count.

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files (memory.events);
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html (memory.oom_control)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def killed_for_memory(
    process: str = "self", proc: Path = Path("/proc"), root: Path = CGROUPS
) -> int:
    """How many processes of this cgroup were killed for memory so far; 0 where it cannot be known."""
    try:
        lines = (proc / process / "cgroup").read_text().splitlines()
    except OSError:
        return 0
    for file in _counters(lines, root):
        with suppress(OSError):
            counts = dict(
                line.split(" ", 1) for line in file.read_text().splitlines() if " " in line
            )
            count = counts.get("oom_kill", "")
            if count.isdigit():
                return int(count)
    return 0


def _counters(lines: Iterable[str], root: Path) -> Iterator[Path]:
    """Files that may hold the count, by ``/proc/PID/cgroup``: of version 2, and of version 1 where memory is still of that.

    A container without a cgroup namespace is told its machine's path, while its own folder is the root that it sees.
    """
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            base, name = root, "memory.events"
        elif "memory" in controllers.split(","):
            base, name = root / "memory", "memory.oom_control"
        else:
            continue
        yield base / path.lstrip("/") / name
        yield base / name


def hint(*, killed: bool, before: int, after: int) -> str:
    """What to tell of an Envoy that ended, and was not ended by us."""
    if not killed:
        return ""
    if after > before:
        return "killed for memory: give the workload's cgroup more, or let a Sidecar leave fewer services in sight"
    return "killed, and not by its agent: was the machine out of memory? dmesg tells"
