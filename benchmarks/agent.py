"""The agent alone: what eight of them cost on one machine, how soon Envoy is LIVE, and what leaving costs.

Figures are CPU-seconds and memory, which another load on the machine does not change; wall times stand beside them.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from statistics import median
from time import monotonic

from benchmarks.leaving import WORKLOADS, leave_in_turn, write_topology
from benchmarks.mesh import cpu_s, pid
from benchmarks.rows import Row
from windward.local.mesh import Mesh
from windward.local.parts import STATUS_PORT
from windward.local.ready import http_get

MORE = ("peer-c", "peer-d", "peer-e", "peer-f", "peer-g")
ONE_MORE = '- {{name: {name}, group: peer, service_account: peer, port: 9080, command: ["{{python}}", -m, benchmarks.peer]}}\n'
IDLE_S = 30.0
STARTS = 5
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def rows() -> tuple[list[Row], dict[str, object]]:
    figures = asyncio.run(measure())
    return [
        Row("agent, memory (PSS) with eight, MB", float(str(figures["pss_mb"])), 45),
        Row("agent, CPU when idle, %", float(str(figures["idle_percent"])), 0.2),
        Row("agent start -> Envoy LIVE, CPU-s of both", float(str(figures["live_cpu_s"])), 1),
        Row("SIGTERM under load, failed requests", _failed(figures["leaving"]), 0),
    ], figures


def _failed(leaving: object) -> float:
    assert isinstance(leaving, dict)
    return float(sum(leaving["failed_requests"].values()) + sum(leaving["failed_streams"].values()))


async def measure() -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="ww-") as folder:
        topology = write_topology(Path(folder))
        with topology.open("a") as opened:
            opened.writelines(ONE_MORE.format(name=name) for name in MORE)
        mesh = Mesh(Path(folder) / "run", topology, gateway_port=0)
        before = os.getloadavg()[0]
        await mesh.up()
        try:
            names = (*WORKLOADS, *MORE, "gateway")
            await asyncio.sleep(5)  # what starting leaves to be done
            result: dict[str, object] = {
                "agents": len(names),
                "pss_mb": round(max(pss_mb(pid(mesh, name)) for name in names), 1),
                "idle_percent": await idle_percent(mesh, names),
                **await starts(mesh, MORE[0]),
                "leaving": await leave_in_turn(mesh, 500, 50, 4.0),
            }
        finally:
            await mesh.down()
    return result | {"load_before": before, "load_after": os.getloadavg()[0]}


async def idle_percent(mesh: Mesh, names: tuple[str, ...]) -> float:
    """CPU of an agent with nothing to do but its registration, in percent of one core, averaged over all."""
    began = sum(cpu_s(mesh, name) for name in names)
    await asyncio.sleep(IDLE_S)
    used = sum(cpu_s(mesh, name) for name in names) - began
    return round(used / len(names) / IDLE_S * 100, 3)


async def starts(mesh: Mesh, name: str) -> dict[str, object]:
    """Median CPU-seconds of agent and Envoy, and wall seconds, from exec until the sidecar can serve."""
    child = mesh.parts[name].child
    assert child is not None
    await child.stop()
    agents, envoys, walls = [], [], []
    for _ in range(STARTS):
        began = monotonic()
        process = await asyncio.create_subprocess_exec(
            *child.spec.argv(), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            await until_ready(mesh.plan.place(name).address)
            walls.append(monotonic() - began)
            agents.append(cpu_of(process.pid))
            envoys.append(sum(map(cpu_of, children(process.pid))))
        finally:
            process.terminate()
            await process.wait()
    await child.start()
    await until_ready(mesh.plan.place(name).address)
    both = [agent + envoy for agent, envoy in zip(agents, envoys, strict=True)]
    return {
        "live_cpu_s": round(median(both), 2),
        "live_agent_cpu_s": round(median(agents), 2),
        "live_envoy_cpu_s": round(median(envoys), 2),
        "live_wall_s": round(median(walls), 2),
    }


async def until_ready(address: str) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                if (await http_get(address, STATUS_PORT, "/healthz/ready"))[0] == 200:
                    return
            except (OSError, TimeoutError):
                pass
            await asyncio.sleep(0.01)


def pss_mb(process: int) -> float:
    """Memory with what is shared divided among those who share it (proc(5), smaps_rollup)."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6


def cpu_of(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def children(process: int) -> list[int]:
    return [
        int(child)
        for task in Path(f"/proc/{process}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
