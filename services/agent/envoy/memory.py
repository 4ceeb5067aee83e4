"""Whether the kernel has killed something here for memory, from the cgroup's own count.

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files (memory.events)
"""

from __future__ import annotations

from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def killed_for_memory(
    process: str = "self", proc: Path = Path("/proc"), root: Path = CGROUPS
) -> int:
    """How many processes of this cgroup were killed for memory so far; 0 where it cannot be known."""
    try:
        lines = (proc / process / "cgroup").read_text().splitlines()
        path = next(line[3:] for line in lines if line.startswith("0::"))
        events = (root / path.lstrip("/") / "memory.events").read_text()
    except (OSError, StopIteration):
        return 0
    counts = dict(line.split(" ", 1) for line in events.splitlines() if " " in line)
    count = counts.get("oom_kill", "0")
    return int(count) if count.isdigit() else 0


def hint(*, killed: bool, before: int, after: int) -> str:
    """What to tell of an Envoy that ended, and was not ended by us."""
    if not killed:
        return ""
    if after > before:
        return "killed for memory: give the workload's cgroup more, or let a Sidecar leave fewer services in sight"
    return "killed, and not by its agent: was the machine out of memory? dmesg tells"
