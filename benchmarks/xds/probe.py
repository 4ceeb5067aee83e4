"""What a process costs, read from /proc, and what Pilot says of itself on its metrics port."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from windward.local.ready import http_get

OF_WORKER = re.compile(r'worker="\d+"}')


def cpu_s(pid: int) -> float:
    """CPU-seconds of all threads that live, to the nanosecond (schedstat); threads that ended are in /proc/PID/stat only."""
    total = 0
    for process in _all(pid):
        for task in Path(f"/proc/{process}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def rss_mb(pid: int) -> float:
    return sum(_status(process, "VmRSS") for process in _all(pid))


def peak_mb(pid: int) -> float:
    """The most since ``reset_peak``."""
    return sum(_status(process, "VmHWM") for process in _all(pid))


def reset_peak(pid: int) -> None:
    for process in _all(pid):
        Path(f"/proc/{process}/clear_refs").write_text("5")


def _all(pid: int) -> list[int]:
    """A process, and its workers where it has some."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(int(child) for child in children if _is_worker(child))]


def _is_worker(pid: str) -> bool:
    try:
        return b"\0--worker=" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _status(pid: int, field: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"/proc/{pid}/status has no {field}")


def load() -> float:
    return round(os.getloadavg()[0], 2)


async def metrics(port: int) -> dict[str, float]:
    """Every metric without labels; of one that each worker has, the largest."""
    _, body = await http_get("127.0.0.1", port, "/metrics", timeout_s=10)
    return metrics_of(body.decode())


def metrics_of(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    words = (line.split() for line in text.splitlines() if not line.startswith("#"))
    for pair in words:
        name, _, labels = pair[0].partition("{")
        if len(pair) == 2 and (not labels or OF_WORKER.fullmatch(labels)):
            found[name] = max(found.get(name, float("-inf")), float(pair[1]))
    return found
