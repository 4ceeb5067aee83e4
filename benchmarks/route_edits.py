"""Edits of routes under load: weights, subsets that come and go, a destination that comes and goes; nothing may fail.

    client -> gateway -> v1, v2 (subsets of one service) | other (a service that is made and deleted)

Most requests are the steady client's (``steady.c``), which costs next to nothing; one in ten is asked here, so that it is known
who answered and what a failure said. No retries: a request that meets a route to a cluster that is not there yet, or no longer
there, fails visibly.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.chaos.scene import SERVICE, TOPOLOGY, WAY_IN
from benchmarks.mesh import until_acked
from benchmarks.own_mesh import own_mesh
from benchmarks.requests import Ended, Requests
from benchmarks.rows import Row
from benchmarks.steady.build import steady_binary
from windward.api.config.v1 import config_pb2
from windward.local.mesh import Mesh

WORKLOAD = (
    "- {{name: {name}, group: {group}, service_account: {account}, port: 9080, "
    'environment: {{PEER_NAME: {name}}}, command: ["{{python}}", -m, benchmarks.peer]}}\n'
)
GROUP = """
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: peer-v2, namespace: bookshop}
spec:
  metadata: {labels: {app: peer, version: v2}}
  template: {serviceAccount: peer, ports: {http: 9080}}
---
"""
SUBSETS = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: peer, namespace: bookshop}}
spec:
  host: peer.bookshop.svc.cluster.local
  subsets: [{subsets}]
---
"""
ROUTE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: edits, namespace: bookshop}}
spec:
  hosts: ["*"]
  gateways: [front-door]
  http:
  - retries: {{attempts: 0}}
    route:
{destinations}---
"""
DESTINATION = (
    "    - {{weight: {weight}, destination: {{host: {host}.bookshop.svc.cluster.local{subset}, "
    "port: {{number: 9080}}}}}}\n"
)
WORKLOADS = {"v1": ("peer", "peer"), "v2": ("peer-v2", "peer"), "other": ("other", "other")}
"""Name -> (workload group, service account)."""
OTHER_GROUP = SERVICE.format(name="other", address="240.240.0.12")
GAP_S = 0.5
HEARD = 0.1
"""The part of the requests whose answers are looked at."""
CONNECTIONS = 16
LONGEST_S = 600
Edit = dict[str, int]
"""Destination (v1, v2, other) -> weight; what is not in it is removed."""
EDITS: tuple[Edit, ...] = (
    {"v1": 50, "v2": 50},
    {"v1": 90, "v2": 10},
    {"v2": 100},
    {"v2": 50, "other": 50},
    {"other": 100},
    {"v1": 10, "other": 90},
    {"v1": 100},
)
"""In turn: each takes something away or brings something that the one before did not have, or moves weights."""


def edit_text(edit: Edit) -> str:
    """One apply: the subsets in use, the other service if it is in use, and the route to them."""
    subsets = ", ".join(
        f"{{name: {name}, labels: {{version: {name}}}}}" for name in edit if name != "other"
    )
    lines = "".join(
        DESTINATION.format(
            weight=weight,
            host="other" if name == "other" else "peer",
            subset="" if name == "other" else f", subset: {name}",
        )
        for name, weight in edit.items()
    )
    service = OTHER_GROUP if "other" in edit else ""
    return service + SUBSETS.format(subsets=subsets) + ROUTE.format(destinations=lines)


def write_topology(folder: Path) -> Path:
    """The mesh as files; at first everything goes to v1."""
    (folder / "mesh").mkdir()
    peer = SERVICE.format(name="peer", address="240.240.0.10")
    (folder / "mesh" / "edits.yaml").write_text(
        peer + GROUP + OTHER_GROUP + WAY_IN + edit_text({"v1": 100})
    )
    path = folder / "topology.yaml"
    lines = (
        WORKLOAD.format(name=name, group=group, account=account)
        for name, (group, account) in WORKLOADS.items()
    )
    path.write_text(TOPOLOGY + "".join(lines))
    return path


def measure(edits: int = 20, rate: float = 500.0) -> dict[str, Any]:
    before = os.getloadavg()[0]
    figures = asyncio.run(_measure(edits, rate))
    return figures | {"load_before": round(before, 2), "load_after": round(os.getloadavg()[0], 2)}


async def _measure(edits: int, rate: float) -> dict[str, Any]:
    async with own_mesh(write_topology) as mesh:
        return await edit_under_load(mesh, edits, rate)


async def edit_under_load(mesh: Mesh, edits: int, rate: float) -> dict[str, Any]:
    """Every other edit follows the one before at once, the others once every proxy has accepted it."""
    gateway, stop = mesh.topology.gateway, asyncio.Event()
    assert gateway is not None
    loop = asyncio.get_running_loop()
    heard: list[Ended] = []
    place = mesh.plan.place(gateway.name).address
    load = Requests(place, gateway.port, rate * HEARD, heard=heard.append)
    steady = await _steady(place, gateway.port, rate * (1 - HEARD))
    made: list[tuple[float, str]] = []
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(stop))
        await _answered(heard, {"v1"})
        began, present = loop.time(), {"other"}
        for number in range(edits):
            edit = EDITS[number % len(EDITS)]
            made.append((loop.time() - began, " ".join(f"{k}={v}" for k, v in edit.items())))
            revision = await _carry_out(mesh, edit, present)
            if number % 2:
                async with asyncio.timeout(30):
                    await until_acked(mesh, revision)
                heard_before = len(heard)
                await asyncio.sleep(GAP_S)
                await _answered(heard, set(edit), heard_before)
        took = loop.time() - began
        await asyncio.sleep(GAP_S)
        stop.set()
    seconds = loop.time() - began
    steady.terminate()
    told = json.loads((await steady.communicate())[0])
    return {
        "mode": mesh.mode.value,
        "edits": edits,
        "seconds": round(took, 1),
        "requests": len(heard) + told["requests"],
        "requests_per_s": round(len(heard) / seconds + told["rate"], 1),
        "answered_by": dict(Counter(one.body for one in heard if one.good)),
        "failed": sum(not one.good for one in heard) + told["failed"],
        "said": dict(Counter(one.said for one in heard if not one.good).most_common(10)),
        "failures": [
            f"{one.sent - began:.3f}..{one.ended - began:.3f} s {one.said}; edit before: {_last(made, one.ended - began)}"
            for one in heard
            if not one.good
        ][:20],
    }


async def _steady(address: str, port: int, rate: float) -> asyncio.subprocess.Process:
    """It is told to end when the edits are made; ``LONGEST_S`` is for when it is not."""
    words = (address, port, "peer", rate, CONNECTIONS, 0, LONGEST_S)
    return await asyncio.create_subprocess_exec(
        str(steady_binary()), "load", *map(str, words), stdout=asyncio.subprocess.PIPE
    )


def _last(made: list[tuple[float, str]], at: float) -> str:
    return next((f"{text} at {since:.3f}" for since, text in reversed(made) if since <= at), "none")


async def _carry_out(mesh: Mesh, edit: Edit, present: set[str]) -> int:
    """Apply it; then delete the other service, if it is there and no longer used. The revision of it all."""
    revision = (await mesh.administrator.apply_text(edit_text(edit))).revision
    if "other" in edit:
        present.add("other")
    elif "other" in present:
        present.discard("other")
        revision = (await mesh.administrator.delete([await _other(mesh)])).revision
    return int(revision)


async def _other(mesh: Mesh) -> config_pb2.ObjectRef:
    stored = await mesh.administrator.list()
    return next(
        item.ref for item in stored if (item.ref.kind, item.ref.name) == ("ServiceEntry", "other")
    )


async def _answered(heard: list[Ended], names: set[str], since: int = 0) -> None:
    """Wait until each of them has answered."""
    async with asyncio.timeout(30):
        while not names <= {one.body for one in heard[since:] if one.good}:
            await asyncio.sleep(0.02)


def rows(figures: dict[str, Any]) -> list[Row]:
    name = (
        f"{figures['edits']} route edits at {figures['requests_per_s']} requests/s, failed requests"
    )
    return [Row(name, figures["failed"], 0)]
