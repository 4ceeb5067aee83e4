"""Every measurement that has a bar."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import monotonic

from benchmarks import dns, mesh

ROOT = Path(__file__).resolve().parents[1]


def help_ms() -> float:
    """Median wall time of ``windward --help``."""
    command = [str(Path(sys.executable).with_name("windward")), "--help"]
    times = []
    for _ in range(7):
        began = monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append((monotonic() - began) * 1000)
    return median(times)


def setup_s() -> float:
    """An up-to-date set-up, which every target begins with."""
    began = monotonic()
    subprocess.run(
        [sys.executable, str(ROOT / "setup" / "setup.py")], check=True, stdout=subprocess.DEVNULL
    )
    return monotonic() - began


def run(results: Path) -> int:
    """Measure, print, keep; 1 if a bar is not held."""
    raw: dict[str, object] = {"load_before": os.getloadavg()[0]}
    figures = asyncio.run(mesh.measure(50))
    raw |= {
        "mesh": figures,
        "dns": (names := dns.measure()),
        "help_ms": help_ms(),
        "setup_s": setup_s(),
        "load_after": os.getloadavg()[0],
    }
    rows: list[tuple[str, float, float]] = [
        ("change -> last ACK, p99, ms", float(figures["change_to_ack_p99_ms"]), 1000),
        (
            "change -> the gateway serves it, p99, ms",
            float(figures["change_to_data_path_p99_ms"]),
            1000,
        ),
        ("command -> mesh ready, s", float(figures["up_s"]), 60),
        (
            "DNS, the mesh's own names, p50, ms",
            max(names[f"{kind}_p50_ms"] for kind in dns.KINDS),
            1,
        ),
        ("windward --help, ms", float(str(raw["help_ms"])), 200),
        ("set-up when up to date, s", float(str(raw["setup_s"])), 0.5),
    ]
    held: Callable[[float, float], bool] = lambda figure, bar: figure <= bar  # noqa: E731  one rule for every row
    for name, figure, bar in rows:
        print(
            f"{'held' if held(figure, bar) else 'NOT HELD':<9} {name:<42} {figure:>9.1f}  bar {bar:g}"
        )
    results.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    (results / f"bars-{stamp}.json").write_text(json.dumps(raw, indent=1) + "\n")
    return 0 if all(held(figure, bar) for _, figure, bar in rows) else 1
