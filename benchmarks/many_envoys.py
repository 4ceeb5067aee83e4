"""Many real Envoys with real agents, each in a network namespace of its own: all LIVE and in sync, and what they cost.

10 services x N/10 workloads, each a C server of a few KB behind agent and Envoy; one Pilot, one Citadel, one Mixer
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from time import monotonic
from typing import Any

from benchmarks.agent import children, cpu_of, pss_mb
from benchmarks.chaos.scene import SERVICE
from benchmarks.mesh import cpu_s, pid, rss_mb
from benchmarks.rows import Row
from benchmarks.steady.build import steady_binary
from windward.local.mesh import Mesh
from windward.local.parts import Options

SERVICES = 10
MOST = 240
"""As many as fit in one local mesh."""
IDLE_S = 20.0
IN_SYNC_S = 120.0
CONTROL_PLANE = ("etcd", "citadel", "pilot", "mixer")
WORKLOAD = (
    "- {{name: {name}, group: {group}, service_account: {group}, port: 9080, "
    "command: [{binary}, serve, 0.0.0.0, '9080', '16']}}\n"
)
CHANGE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: s0, namespace: bookshop}
spec:
  host: s0.bookshop.svc.cluster.local
  trafficPolicy: {loadBalancer: {simple: RANDOM}}
"""
ENDPOINT_TTL_S = 15.0


def write_topology(folder: Path, envoys: int, binary: Path) -> Path:
    """The mesh as files."""
    (folder / "mesh").mkdir()
    services = (
        SERVICE.format(name=f"s{number}", address=f"240.240.0.{number + 10}")
        for number in range(SERVICES)
    )
    (folder / "mesh" / "many.yaml").write_text("".join(services))
    lines = (
        WORKLOAD.format(name=f"w{number:03d}", group=f"s{number % SERVICES}", binary=binary)
        for number in range(envoys)
    )
    path = folder / "topology.yaml"
    path.write_text("config: mesh\nworkloads:\n" + "".join(lines))
    return path


def measure(envoys: int = 200) -> dict[str, Any]:
    before = os.getloadavg()[0]
    figures = asyncio.run(_measure(min(envoys, MOST)))
    return figures | {"load_before": round(before, 2), "load_after": round(os.getloadavg()[0], 2)}


async def _measure(envoys: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="ww-") as folder:
        topology = write_topology(Path(folder), envoys, steady_binary())
        options = Options(endpoint_ttl_s=ENDPOINT_TTL_S)
        mesh = Mesh(Path(folder) / "run", topology, options=options, gateway_port=0)
        began = monotonic()
        await mesh.up()
        try:
            up_s = monotonic() - began
            return {"envoys": envoys, "mode": mesh.mode.value, "up_s": round(up_s, 1)} | await cost(
                mesh, mesh.topology.names
            )
        finally:
            await mesh.down()


async def cost(mesh: Mesh, names: Sequence[str]) -> dict[str, Any]:
    """Of sidecars that are up: until all have accepted one change, memory, CPU of starting and of doing nothing."""
    live, in_sync = await _states(mesh, 0)
    began = monotonic()
    response = await mesh.administrator.apply_text(CHANGE)
    while in_sync_now(await mesh.administrator.proxies(), response.revision) < len(names):
        if monotonic() - began > IN_SYNC_S:
            break
        await asyncio.sleep(0.02)
    change_s = monotonic() - began
    live, in_sync = await _states(mesh, response.revision)
    agents = [pid(mesh, name) for name in names]
    envoys = [child for agent in agents for child in children(agent)[:1]]
    idle = [sum(map(cpu_of, group)) for group in (agents, envoys)]
    services = {name: cpu_s(mesh, name) for name in CONTROL_PLANE}
    await asyncio.sleep(IDLE_S)
    used = [
        sum(map(cpu_of, group)) - before
        for group, before in zip((agents, envoys), idle, strict=True)
    ]
    return {
        "live": live,
        "in_sync": in_sync,
        "change_to_last_ack_s": round(change_s, 3),
        **_memory("agent", agents),
        **_memory("envoy", envoys),
        "agent_start_cpu_s": round(idle[0] / len(agents), 3),
        "envoy_start_cpu_s": round(idle[1] / len(envoys), 3),
        "agent_idle_percent": round(used[0] / len(agents) / IDLE_S * 100, 3),
        "envoy_idle_percent": round(used[1] / len(envoys) / IDLE_S * 100, 3),
        **{
            f"{name}_idle_percent": round((cpu_s(mesh, name) - before) / IDLE_S * 100, 2)
            for name, before in services.items()
        },
        **{f"{name}_cpu_s": round(cpu_s(mesh, name), 2) for name in CONTROL_PLANE},
        **{f"{name}_rss_mb": round(rss_mb(mesh, name), 1) for name in CONTROL_PLANE},
    }


def _memory(name: str, processes: Sequence[int]) -> dict[str, float]:
    pss = [pss_mb(process) for process in processes]
    return {
        f"{name}_pss_mean_mb": round(mean(pss), 1),
        f"{name}_pss_max_mb": round(max(pss), 1),
        f"{name}_pss_total_mb": round(sum(pss), 0),
    }


async def _states(mesh: Mesh, revision: int) -> tuple[int, int]:
    """(Envoys whose agent says that they serve, proxies that have accepted everything up to the revision)."""
    from windward.local.parts import STATUS_PORT
    from windward.local.ready import http_get

    async def ready(name: str) -> bool:
        address = mesh.plan.place(name).address
        try:
            return (await http_get(address, STATUS_PORT, "/healthz/ready", timeout_s=10))[0] == 200
        except (OSError, TimeoutError):
            return False

    live = sum(await asyncio.gather(*map(ready, mesh.topology.names)))
    return live, in_sync_now(await mesh.administrator.proxies(), revision)


def in_sync_now(proxies: Sequence[Any], revision: int) -> int:
    """Proxies that have accepted all that they were sent, of this revision or a later one."""
    return sum(
        all(kind.state == "SYNCED" and kind.acked_revision >= revision for kind in types)
        for proxy in proxies
        if (types := list(proxy.types.values()))
    )


def rows(figures: dict[str, Any]) -> list[Row]:
    count = figures["envoys"]
    said = (
        f"agents {figures['agent_pss_mean_mb']} MB and {figures['agent_idle_percent']} % CPU each,"
        f" Envoys {figures['envoy_pss_mean_mb']} MB and {figures['envoy_idle_percent']} %"
    )
    return [
        Row(f"{count} real Envoys, not LIVE", count - figures["live"], 0, said),
        Row(f"{count} real Envoys, not in sync", count - figures["in_sync"], 0),
    ]
