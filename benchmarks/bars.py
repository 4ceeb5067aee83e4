"""Every measurement that has a bar."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import monotonic

from benchmarks import (
    added_latency,
    agent,
    agent_outage,
    dns,
    leases,
    many_envoys,
    mesh,
    route_edits,
    workload_api,
)
from benchmarks.chaos import run as chaos
from benchmarks.nacks import run as nacks
from benchmarks.rows import Row
from benchmarks.xds import bars as xds_bars

ROOT = Path(__file__).resolve().parents[1]
CHAOS_S, CHAOS_SEED = 600.0, 1


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


def proved_s() -> float:
    """From the command to a whole mesh that proved itself and is gone again."""
    program = str(Path(sys.executable).with_name("windward"))
    with tempfile.TemporaryDirectory(prefix="ww-") as folder:
        command = [program, "mesh", "prove", "--directory", f"{folder}/mesh"]
        began = monotonic()
        subprocess.run(
            [*command, "--output", f"{folder}/prove.json"],
            check=True,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return monotonic() - began


def run(results: Path, *, only_xds: bool = False, runs: int = 1, minutes: int = 30) -> int:
    """Measure, print, keep; 1 if a bar is not held. ``runs``: of each xds scenario, whose medians are the figures.

    ``minutes``: of the long outage of the control plane.
    """
    raw: dict[str, object] = {"load_before": os.getloadavg()[0]}
    file = results / f"bars-{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}.json"
    made: list[Row] = []
    if not only_xds:
        made, figures = _mesh_rows()
        raw |= figures
        raw["agent_outage"] = outage = agent_outage.measure(minutes, agent_outage.TTL_S)
        made += agent_outage.rows(outage)
        raw["nacks"] = refused = nacks.measure()
        made += nacks.rows(refused)
        _show(made)
        _keep(file, raw)
        for key, rows, figures in _under_load():
            raw[key] = figures
            made += rows
            _show(rows)
            _keep(file, raw)
    for key, rows, of_xds in xds_bars.measurements(runs):
        raw[f"xds_{key}"] = of_xds
        made += rows
        _show(rows)
        _keep(file, raw)
    raw["load_after"] = os.getloadavg()[0]
    _keep(file, raw)
    return 0 if all(row.held for row in made) else 1


def _show(rows: Iterable[Row]) -> None:
    for row in rows:
        print(row, flush=True)


def _keep(file: Path, raw: Mapping[str, object]) -> None:
    """After every measurement: what is there stays there, whatever ends the next one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(raw, indent=1) + "\n")


def _under_load() -> Iterator[tuple[str, list[Row], dict[str, object]]]:
    """Of meshes that something is done to while requests go on: (name, rows, raw figures), one after the other."""
    edited = route_edits.measure()
    yield "route_edits", route_edits.rows(edited), edited
    added = added_latency.measure()
    yield "added_latency", added_latency.rows(added), added
    many = many_envoys.measure()
    yield "many_envoys", many_envoys.rows(many), many
    struck = chaos.measure(CHAOS_S, CHAOS_SEED)
    yield "chaos", chaos.rows(struck), struck


def _mesh_rows() -> tuple[list[Row], dict[str, object]]:
    """Of the Bookshop's mesh, the agent and the command line."""
    figures = asyncio.run(mesh.measure(50))
    agents, of_agent = agent.rows()
    names = dns.measure()
    held = leases.measure()
    fetched = workload_api.measure()
    taken_ms, taken_s, proved = help_ms(), setup_s(), proved_s()
    raw: dict[str, object] = {
        "mesh": figures,
        "agent": of_agent,
        "dns": names,
        "leases": held,
        "workload_api": fetched,
        "help_ms": taken_ms,
        "setup_s": taken_s,
        "proved_s": proved,
    }
    change, served = figures["change_to_ack_p99_ms"], figures["change_to_data_path_p99_ms"]
    names_ms = max(names[f"{kind}_p50_ms"] for kind in dns.KINDS)
    return [
        Row("change -> last ACK, p99, ms", float(change), 1000),
        Row("change -> the gateway serves it, p99, ms", float(served), 1000),
        Row("command -> mesh ready, s", float(figures["up_s"]), 60),
        Row("command -> proof, and the mesh gone again, s", proved, 60),
        *agents,
        Row("DNS, the mesh's own names, p50, ms", names_ms, 1),
        *leases.rows(held),
        *workload_api.rows(fetched),
        Row("windward --help, ms", taken_ms, 200),
        Row("set-up when up to date, s", taken_s, 0.5),
    ], raw
