"""What a process costs, read from /proc, and what Pilot says of itself on its metrics port."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from windward.local.ready import http_get


def cpu_s(pid: int) -> float:
    """CPU-seconds of all threads that live, to the nanosecond (schedstat); threads that ended are in /proc/PID/stat only."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def rss_mb(pid: int) -> float:
    return _status(pid, "VmRSS")


def peak_mb(pid: int) -> float:
    """The most since ``reset_peak``."""
    return _status(pid, "VmHWM")


def reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status(pid: int, field: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"/proc/{pid}/status has no {field}")


def load() -> float:
    return round(os.getloadavg()[0], 2)


async def metrics(port: int) -> dict[str, float]:
    """Every metric without labels."""
    _, body = await http_get("127.0.0.1", port, "/metrics", timeout_s=10)
    words = (line.split() for line in body.decode().splitlines() if not line.startswith("#"))
    return {pair[0]: float(pair[1]) for pair in words if len(pair) == 2}
