"""SIGTERM of an agent under load: requests at a steady rate and long HTTP/2 streams, through a gateway and two sidecars.

Nothing may fail: not when the workload leaves, and not when it is back.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path
from time import monotonic
from typing import Any

import grpc

from benchmarks.own_mesh import own_mesh
from benchmarks.peer import METHOD, SERVICE
from benchmarks.requests import Requests
from windward.local.mesh import Mesh

WORKLOADS = ("peer-a", "peer-b")
TOPOLOGY = """
config: mesh
gateway: {name: gateway, namespace: bookshop, service_account: gateway, labels: {app: gateway}, port: 8080}
workloads:
- {name: peer-a, group: peer, service_account: peer, port: 9080, command: ["{python}", -m, benchmarks.peer]}
- {name: peer-b, group: peer, service_account: peer, port: 9080, command: ["{python}", -m, benchmarks.peer]}
"""
CONFIG = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: peer, namespace: bookshop}
spec:
  hosts: [peer.bookshop.svc.cluster.local]
  addresses: [240.240.0.10]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
  - {number: 9080, name: http, protocol: HTTP}
  - {number: 9090, name: grpc, protocol: GRPC}
  workloadSelector: {labels: {app: peer}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: peer, namespace: bookshop}
spec:
  metadata: {labels: {app: peer, version: v1}}
  template: {serviceAccount: peer, ports: {http: 9080, grpc: 9090}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front-door, namespace: bookshop}
spec:
  selector: {app: gateway}
  servers:
  - port: {number: 8080, name: http, protocol: HTTP}
    hosts: ["*"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: peer, namespace: bookshop}
spec:
  hosts: ["*"]
  gateways: [front-door]
  http:
  - match: [{uri: {prefix: /bench.Peer/}}]
    route: [{destination: {host: peer.bookshop.svc.cluster.local, port: {number: 9090}}}]
    retries: {attempts: 0}
  - route: [{destination: {host: peer.bookshop.svc.cluster.local, port: {number: 9080}}}]
    retries: {attempts: 0}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: bookshop}
spec: {mtls: {mode: STRICT}}
"""


async def streams(address: str, count: int, seconds: float) -> Counter[str]:
    """Open streams that last so long, all at once; what ended other than it should."""
    failed: Counter[str] = Counter()
    async with grpc.aio.insecure_channel(address) as channel:
        method: Any = channel.unary_stream(f"/{SERVICE}/{METHOD}")

        async def one() -> None:
            beats = 0
            try:
                async for _ in method(str(seconds).encode()):
                    beats += 1
            except grpc.aio.AioRpcError as error:
                failed[f"{error.code().name}: {error.details()}"] += 1
                return
            if beats < int(seconds * 10):
                failed["ended early"] += 1

        await asyncio.gather(*(one() for _ in range(count)))
    return failed


async def measure(rate: float, open_streams: int, stream_s: float) -> dict[str, object]:
    """Each of two workloads in turn told to leave, while requests and streams go on; and come back."""
    async with own_mesh(write_topology) as mesh:
        return await leave_in_turn(mesh, rate, open_streams, stream_s)


def write_topology(folder: Path) -> Path:
    """A gateway and two workloads of one service, as files of a local mesh."""
    (folder / "mesh").mkdir()
    (folder / "mesh" / "peer.yaml").write_text(CONFIG)
    path = folder / "topology.yaml"
    path.write_text(TOPOLOGY)
    return path


async def leave_in_turn(
    mesh: Mesh, rate: float, open_streams: int, stream_s: float
) -> dict[str, object]:
    gateway = mesh.topology.gateway
    assert gateway is not None
    host = mesh.plan.place(gateway.name).address
    requests, stop = Requests(host, gateway.port, rate), asyncio.Event()
    broken: Counter[str] = Counter()
    took = []
    began = monotonic()
    loading = asyncio.create_task(requests.run(stop))
    for name in WORKLOADS:
        streaming = asyncio.create_task(streams(f"{host}:{gateway.port}", open_streams, stream_s))
        await asyncio.sleep(1.0)
        took.append(await leave(mesh, name))
        broken += await streaming
        await back(mesh, name)
    stop.set()
    await loading
    return {
        "mode": mesh.mode.value,
        "requests": requests.sent,
        "requests_per_s": round(requests.sent / (monotonic() - began), 1),
        "failed_requests": dict(requests.failed),
        "streams": open_streams * len(WORKLOADS),
        "failed_streams": dict(broken),
        "left_after_s": [round(seconds, 2) for seconds in took],
    }


async def leave(mesh: Mesh, name: str) -> float:
    """SIGTERM the workload's agent; seconds until it was gone."""
    child = mesh.parts[name].child
    assert child is not None
    pid = child.pid
    assert pid is not None
    began = monotonic()
    os.kill(pid, signal.SIGTERM)
    while child.pid == pid:
        await asyncio.sleep(0.01)
    return monotonic() - began


async def back(mesh: Mesh, name: str) -> None:
    """Wait until every proxy sends it requests again."""
    from windward.local.parts import STATUS_PORT
    from windward.local.ready import http_get

    address = mesh.plan.place(name).address
    async with asyncio.timeout(30):
        while True:
            try:
                if (await http_get(address, STATUS_PORT, "/healthz/ready"))[0] == 200:
                    break
            except (OSError, TimeoutError):
                pass
            await asyncio.sleep(0.05)
    await asyncio.sleep(1.0)
