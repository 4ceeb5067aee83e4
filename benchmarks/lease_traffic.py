"""What requests notice when leases lapse: a mesh of real Envoys, its store stopped and its Pilot dead, and nobody retries.

client -> gateway -> solo (no retries);  etcd stopped for longer than a lease, then Pilot dead for three
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from typing import Any

from benchmarks.chaos.scene import write_topology
from benchmarks.own_mesh import own_mesh
from benchmarks.requests import Ended, Requests
from windward.local.child import Child
from windward.local.mesh import Mesh
from windward.local.parts import Options

RATE = 100.0
PATH = "/solo"
LOOK_ON_TTLS = 4.0


async def traffic(ttl_s: float, stop_s: float) -> dict[str, Any]:
    """Requests sent, and those that failed, while etcd is stopped and while Pilot is dead, and for some leases after."""
    async with own_mesh(write_topology, Options(endpoint_ttl_s=ttl_s)) as mesh:
        return await _under_load(mesh, ttl_s, stop_s)


async def _under_load(mesh: Mesh, ttl_s: float, stop_s: float) -> dict[str, Any]:
    gateway, stop = mesh.topology.gateway, asyncio.Event()
    assert gateway is not None
    heard: list[Ended] = []
    host = mesh.plan.place(gateway.name).address
    load = Requests(host, gateway.port, RATE, path=PATH, heard=heard.append)
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(stop))
        async with asyncio.timeout(30):
            while not any(one.good for one in heard):
                await asyncio.sleep(0.05)
        heard.clear()
        await _stopped(_child(mesh, "etcd"), stop_s)
        await asyncio.sleep(LOOK_ON_TTLS * ttl_s)
        pilot = _child(mesh, "pilot")
        pilot.kill(keep_down=True)
        await asyncio.sleep(3 * ttl_s)
        pilot.revive()
        await asyncio.sleep(LOOK_ON_TTLS * ttl_s)
        stop.set()
    bad = Counter(one.said for one in heard if not one.good)
    return {"requests": len(heard), "failed": bad.total(), "said": dict(bad.most_common(5))}


def _child(mesh: Mesh, name: str) -> Child:
    child = mesh.parts[name].child
    assert child is not None
    return child


async def _stopped(child: Child, seconds: float) -> None:
    """SIGSTOP for so long."""
    assert child.pid is not None
    os.kill(child.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        os.kill(child.pid, signal.SIGCONT)
