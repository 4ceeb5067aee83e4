"""The agent without its control plane: how soon it serves after a restart, and whether anything fails in a long outage.

restarts   the whole control plane is dead; agent, Envoy or both are killed: seconds until the gateway answers again, from
           the moment that the new process exists; CPU-seconds of the agent up to then
long       certificates of ``ttl_s``, requests all the time; Citadel is up for one renewal in three, Pilot, Mixer and the store
           stay dead: requests that failed, alarms that were seen
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any, Self

from benchmarks.catalogs import GATEWAY, ONE, TO_CATALOG, write_topology
from benchmarks.rows import Row
from windward.local.child import Child
from windward.local.mesh import Mesh
from windward.local.parts import STATUS_PORT, Options
from windward.local.ready import http_get

CONTROL_PLANE = ("etcd", "citadel", "pilot", "mixer")
(WORKLOAD,) = ONE
TTL_S = 240
RATE = 20.0
"""Requests a second."""


class Outage:
    """A small mesh whose control plane is taken away; use as an async context manager."""

    def __init__(self, folder: Path, ttl_s: int) -> None:
        options = Options(endpoint_ttl_s=60.0, certificate_ttl_s=ttl_s)
        self.mesh = Mesh(folder / "run", write_topology(folder), options=options, gateway_port=0)

    async def __aenter__(self) -> Self:
        await self.mesh.up()
        await self.mesh.administrator.apply_text(TO_CATALOG)
        self.address = self.mesh.plan.place(GATEWAY).address
        await self.until_served()
        while not await self.kept():
            await asyncio.sleep(0.1)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.mesh.down()

    def child(self, name: str) -> Child:
        child = self.mesh.parts[name].child
        assert child is not None
        return child

    def pid(self, name: str) -> int:
        return self.child(name).pid or 0

    def envoy(self, name: str) -> int:
        """The Envoy of an agent; 0 while there is none."""
        agent = self.pid(name)
        with suppress(OSError, ValueError):
            return int(Path(f"/proc/{agent}/task/{agent}/children").read_text().split()[0])
        return 0

    async def ask(self) -> int:
        """The status of one request through gateway and sidecar; 0 for none."""
        try:
            return (await http_get(self.address, 8080, "/books/1", timeout_s=1.0))[0]
        except (OSError, TimeoutError):
            return 0

    async def until_served(self) -> None:
        while await self.ask() != 200:
            await asyncio.sleep(0.01)

    async def metric(self, name: str, metric: str) -> float:
        address = self.mesh.plan.place(name).address
        with suppress(OSError, TimeoutError):
            _, body = await http_get(address, STATUS_PORT, "/metrics")
            found = re.search(rf"^{metric} (\S+)$", body.decode(), re.MULTILINE)
            return float(found[1]) if found else 0.0
        return 0.0

    async def kept(self) -> bool:
        """Whether both agents have on disk what they serve, which is written half a second after it changed."""
        saved = [
            await self.metric(n, "windward_agent_last_good_saved_timestamp")
            for n in (GATEWAY, WORKLOAD)
        ]
        served = await self.mesh.administrator.proxies()
        await asyncio.sleep(2.0)
        return all(saved) and len(served) == len(saved)

    def kill(self, *names: str) -> None:
        for name in names:
            self.child(name).kill(keep_down=True)


async def restarts(times: int) -> dict[str, Any]:
    """Seconds until the gateway answers again, for each kind of restart; medians and worst of ``times``."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="ww-") as name:
        async with Outage(Path(name), 3600) as outage:
            outage.kill(*CONTROL_PLANE)
            kinds = {"agent": (GATEWAY,), "envoy": (), "both_sides": (GATEWAY, WORKLOAD)}
            for kind, agents in kinds.items():
                took, cpu = [], []
                for _ in range(times):
                    seconds, used = await _one_restart(outage, agents)
                    took.append(seconds)
                    cpu.append(used)
                result[f"{kind}_restart_p50_s"] = round(median(took), 3)
                result[f"{kind}_restart_worst_s"] = round(max(took), 3)
                result[f"{kind}_agent_cpu_s"] = round(median(cpu), 3)
    return result


async def _one_restart(outage: Outage, agents: tuple[str, ...]) -> tuple[float, float]:
    """Kill these agents with their Envoys, or the gateway's Envoy alone; (seconds until served, CPU-seconds)."""
    killed = {name: outage.pid(name) for name in agents}
    if agents:
        for name in agents:
            outage.child(name).kill()
        # The mesh waits before it starts a part again: that is not the agent's time.
        while any(outage.pid(name) in {0, pid} for name, pid in killed.items()):
            await asyncio.sleep(0.002)
        began, used = monotonic(), 0.0
    else:
        used = _cpu_s(outage.pid(GATEWAY))
        began = monotonic()
        os.kill(outage.envoy(GATEWAY), signal.SIGKILL)
    await outage.until_served()
    took = monotonic() - began
    used = sum(_cpu_s(outage.pid(name)) for name in agents or (GATEWAY,)) - used
    await asyncio.sleep(11.0)  # so that no back-off of an earlier kill is counted
    return took, used / max(len(agents), 1)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def long(minutes: float, ttl_s: int) -> dict[str, Any]:
    """Requests at RATE for ``minutes`` with no control plane but a Citadel (and its store) that comes and goes."""
    with tempfile.TemporaryDirectory(prefix="ww-") as name:
        async with Outage(Path(name), ttl_s) as outage:
            outage.kill("pilot", "mixer")
            counts = {"requests": 0, "failed": 0}
            alarms = {"near_expiry_seen": 0, "expired_seen": 0, "renewals": 0}
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(_load(outage, stop, counts))
                group.create_task(_watch(outage, stop, alarms))
                await _come_and_go(outage, minutes * 60, ttl_s)
                stop.set()
    return {"minutes": minutes, "ttl_s": ttl_s, **counts, **alarms}


async def _come_and_go(outage: Outage, seconds: float, ttl_s: int) -> None:
    """Citadel and its store are away for 0.3 lifetimes, past an alarm but never past the end, then back for 0.5."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        outage.kill("citadel", "etcd")
        await asyncio.sleep(min(0.3 * ttl_s, max(end - loop.time(), 0)))
        for name in ("etcd", "citadel"):
            outage.child(name).revive()
        await asyncio.sleep(min(0.5 * ttl_s, max(end - loop.time(), 0)))


async def _load(outage: Outage, stop: asyncio.Event, counts: dict[str, int]) -> None:
    async def one() -> None:
        status = await outage.ask()
        counts["requests"] += 1
        counts["failed"] += status != 200

    async with asyncio.TaskGroup() as group:
        while not stop.is_set():
            group.create_task(one())
            await asyncio.sleep(1 / RATE)


async def _watch(outage: Outage, stop: asyncio.Event, seen: dict[str, int]) -> None:
    """How often a certificate was replaced, was near its end, or had ended."""
    until: dict[str, float] = {}
    while not stop.is_set():
        for name in (GATEWAY, WORKLOAD):
            condition = await outage.metric(name, "windward_agent_certificate_condition")
            seen["near_expiry_seen"] += condition == 1
            seen["expired_seen"] += condition >= 2
            expiry = await outage.metric(name, "windward_agent_certificate_expiry_timestamp")
            seen["renewals"] += bool(expiry) and until.get(name, expiry) != expiry
            until[name] = expiry or until.get(name, 0.0)
        await asyncio.sleep(1.0)


def measure(minutes: float, ttl_s: int, times: int = 3) -> dict[str, Any]:
    """Both, with the machine's load average beside them."""
    before = os.getloadavg()[0]
    figures = asyncio.run(restarts(times)) if times else {}
    figures |= asyncio.run(long(minutes, ttl_s))
    return figures | {"load_before": round(before, 2), "load_after": round(os.getloadavg()[0], 2)}


def rows(figures: dict[str, Any]) -> list[Row]:
    restarted = ("agent", "envoy", "both_sides")
    return [
        *(
            Row(
                f"control plane dead, {kind} restarted -> served, p50, s",
                figures[f"{kind}_restart_p50_s"],
                2,
            )
            for kind in restarted
        ),
        Row(
            f"control plane dead for {figures['minutes']} min, failed of {figures['requests']} requests",
            figures["failed"],
            0,
        ),
    ]
