"""The mesh that chaos strikes, and what strikes it: a schedule from a seed, kills, and the wait until a part is back."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.agent import children
from benchmarks.chaos.blame import GATEWAY, Kill, Part
from windward.local.child import Child
from windward.local.mesh import Mesh
from windward.local.parts import STATUS_PORT
from windward.local.ready import http_get

SERVICES = {"/": ("peer-a", "peer-b"), "/solo": ("solo",)}
"""Path -> the workloads behind it. The first has retries as they are when nothing is said, the second none."""
WORKLOADS = tuple(name for names in SERVICES.values() for name in names)
SHORTEST_GAP_S, LONGEST_GAP_S = 1.0, 5.0
BACK_S = 30.0
"""A part that is not back then will not be."""
WORKLOAD = (
    "- {{name: {name}, group: {group}, service_account: {group}, port: 9080, "
    'environment: {{PEER_NAME: {name}}}, command: ["{{python}}", -m, benchmarks.peer]}}\n'
)
TOPOLOGY = """
config: mesh
gateway: {name: gateway, namespace: bookshop, service_account: gateway, labels: {app: gateway}, port: 8080}
workloads:
"""
SERVICE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: bookshop}}
spec:
  hosts: [{name}.bookshop.svc.cluster.local]
  addresses: [{address}]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 9080, name: http, protocol: HTTP}}]
  workloadSelector: {{labels: {{app: {name}}}}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {{name: {name}, namespace: bookshop}}
spec:
  metadata: {{labels: {{app: {name}, version: v1}}}}
  template: {{serviceAccount: {name}, ports: {{http: 9080}}}}
---
"""
WAY_IN = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front-door, namespace: bookshop}
spec:
  selector: {app: gateway}
  servers:
  - port: {number: 8080, name: http, protocol: HTTP}
    hosts: ["*"]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: bookshop}
spec: {mtls: {mode: STRICT}}
---
"""
ROUTES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: chaos, namespace: bookshop}
spec:
  hosts: ["*"]
  gateways: [front-door]
  http:
  - match: [{uri: {prefix: /solo}}]
    route: [{destination: {host: solo.bookshop.svc.cluster.local, port: {number: 9080}}}]
    retries: {attempts: 0}
  - route: [{destination: {host: peer.bookshop.svc.cluster.local, port: {number: 9080}}}]
"""


@dataclass(frozen=True, slots=True)
class Strike:
    """One kill to come."""

    after_s: float
    """Since the one before."""
    part: Part
    name: str


def schedule(seed: int, seconds: float) -> Iterator[Strike]:
    """Kills for so long: each kind of part as often as the others, each workload likewise. The same for the same seed."""
    chance = random.Random(seed)
    at = 0.0
    while True:
        gap_s = chance.uniform(SHORTEST_GAP_S, LONGEST_GAP_S)
        part = chance.choice(tuple(Part))
        workload = chance.choice((GATEWAY, *WORKLOADS))
        at += gap_s
        if at > seconds:
            return
        yield Strike(gap_s, part, workload if part in {Part.ENVOY, Part.AGENT} else part.value)


def write_topology(folder: Path) -> Path:
    """The mesh as files."""
    (folder / "mesh").mkdir()
    services = (
        SERVICE.format(name="peer", address="240.240.0.10"),
        SERVICE.format(name="solo", address="240.240.0.11"),
    )
    (folder / "mesh" / "chaos.yaml").write_text("".join(services) + WAY_IN + ROUTES)
    path = folder / "topology.yaml"
    groups = {name: name.split("-")[0] for name in WORKLOADS}
    lines = (WORKLOAD.format(name=name, group=group) for name, group in groups.items())
    path.write_text(TOPOLOGY + "".join(lines))
    return path


async def strike(mesh: Mesh, part: Part, name: str) -> Kill:
    """SIGKILL one part, and wait until its processes are gone."""
    loop = asyncio.get_running_loop()
    child = child_of(mesh, name)
    async with asyncio.timeout(BACK_S):
        while not (victims := processes(child, part)):
            await asyncio.sleep(0.02)
    at = loop.time()
    with suppress(ProcessLookupError):
        os.kill(victims[0], signal.SIGKILL)
    while any(map(alive, victims)):
        await asyncio.sleep(0.002)
    return Kill(part, name, at, loop.time())


def child_of(mesh: Mesh, name: str) -> Child:
    child = mesh.parts[name].child
    assert child is not None
    return child


def processes(child: Child, part: Part) -> tuple[int, ...]:
    """The one to kill first, then those that go with it; nothing while it is not there."""
    if child.pid is None:
        return ()
    if part in {Part.PILOT, Part.CITADEL}:
        return (child.pid,)
    try:
        envoys = tuple(children(child.pid))
    except OSError:
        return ()
    return (child.pid, *envoys) if part is Part.AGENT else envoys


def alive(pid: int) -> bool:
    """Whether the process still has its sockets: one that only waits to be reaped has none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


async def back(mesh: Mesh, kill: Kill) -> float | None:
    """Seconds from the kill until the part says that it is ready again; None if it does not in BACK_S."""
    loop = asyncio.get_running_loop()
    host, port = status_of(mesh, kill.name)
    while loop.time() - kill.at < BACK_S:
        with suppress(OSError, TimeoutError):
            if (await http_get(host, port, "/healthz/ready"))[0] == 200:
                return loop.time() - kill.at
        await asyncio.sleep(0.05)
    return None


def status_of(mesh: Mesh, name: str) -> tuple[str, int]:
    ports = mesh.specs.ports
    services = {"pilot": ports.pilot_metrics, "citadel": ports.citadel_metrics}
    if name in services:
        return "127.0.0.1", services[name]
    return mesh.plan.place(name).address, STATUS_PORT
