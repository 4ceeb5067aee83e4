"""Leases under faults: how many endpoints a proxy loses, ever, with agents that live all the time.

etcd stopped      SIGSTOP for longer than a TTL: when it resumes, every lease has lapsed
Pilots dead       all of them for three TTLs: when one is back, it finds records without leases
a Pilot killed    one of two: its agents go to the other one, with the leases they carry
traffic           the first two in a mesh of real Envoys, with requests that nobody retries
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from benchmarks.lease_mesh import LeaseMesh, lost
from benchmarks.lease_traffic import traffic
from benchmarks.rows import Row
from windward.telemetry import logging

LOOK_ON_TTLS = 4.0
"""How long to look on: until everybody had to renew, and what was doubted is believed."""


async def etcd_stopped(agents: int, ttl_s: float, stop_s: float) -> dict[str, Any]:
    async with LeaseMesh(agents=agents, ttl_s=ttl_s) as mesh:
        mesh.bench.etcd.pause()
        await asyncio.sleep(stop_s)
        mesh.bench.etcd.resume()
        fewest, missing_s = await mesh.watch_leases(LOOK_ON_TTLS * ttl_s)
        return {
            "lost": lost(mesh, agents),
            "fewest_leases": fewest,
            "back_s": round(missing_s, 2),
        }


async def pilots_dead(agents: int, ttl_s: float, ttls: float = 3.0) -> dict[str, Any]:
    async with LeaseMesh(agents=agents, ttl_s=ttl_s) as mesh:
        for pilot in mesh.pilots:
            pilot.kill(keep_down=True)
        await asyncio.sleep(ttls * ttl_s)
        left = len(await mesh.leases())
        for pilot in mesh.pilots:
            pilot.revive()
        _, missing_s = await mesh.watch_leases(LOOK_ON_TTLS * ttl_s)
        await mesh.watcher.until(lambda: mesh.watcher.responses > 0)
        return {
            "lost": lost(mesh, agents),
            "leases_left": left,
            "back_s": round(missing_s, 2),
        }


async def pilot_killed(agents: int, ttl_s: float) -> dict[str, Any]:
    async with LeaseMesh(agents=agents, ttl_s=ttl_s, pilots=2) as mesh:
        before = await mesh.leases()
        mesh.pilots[0].kill(keep_down=True)
        fewest, _ = await mesh.watch_leases(LOOK_ON_TTLS * ttl_s)
        after = await mesh.leases()
        return {
            "lost": lost(mesh, agents),
            "leases_kept": sum(after.get(name) == lease for name, lease in before.items()),
            "fewest_leases": fewest,
        }


def measure(agents: int = 1000, ttl_s: float = 5.0, stop_s: float = 8.0) -> dict[str, Any]:
    """All of it, one after the other."""
    logging.configure("benchmark", "error")
    made: dict[str, Any] = {"agents": agents, "ttl_s": ttl_s, "load_before": os.getloadavg()[0]}
    runs: dict[str, Callable[[], Coroutine[Any, Any, dict[str, Any]]]] = {
        "etcd_stopped": lambda: etcd_stopped(agents, ttl_s, stop_s),
        "pilots_dead": lambda: pilots_dead(agents, ttl_s),
        "pilot_killed": lambda: pilot_killed(agents, ttl_s),
        "traffic": lambda: traffic(ttl_s, stop_s),
    }
    for name, run in runs.items():
        figures = asyncio.run(run())
        made |= {f"{name}_{key}": value for key, value in figures.items()}
    return made | {"load_after": os.getloadavg()[0]}


def rows(figures: Mapping[str, Any]) -> list[Row]:
    agents, ttl_s = figures["agents"], figures["ttl_s"]
    what = f"{agents:,} endpoints, leases of {ttl_s:g} s"
    load = f"load {figures['load_before']:.1f}/{figures['load_after']:.1f}"
    return [
        Row(f"{what}, etcd stopped: lost", figures["etcd_stopped_lost"], 0, load),
        Row(f"{what}, all Pilots dead for 3 TTLs: lost", figures["pilots_dead_lost"], 0, load),
        Row(f"{what}, one of two Pilots killed: lost", figures["pilot_killed_lost"], 0, load),
        Row(
            f"{what}, one of two Pilots killed: leases not kept",
            agents - figures["pilot_killed_leases_kept"],
            0,
            load,
        ),
        Row(
            f"etcd stopped, then Pilot dead, leases of {ttl_s:g} s: failed of {figures['traffic_requests']:,} requests",
            figures["traffic_failed"],
            0,
            load,
        ),
    ]
