"""The Bookshop's mesh: how long a change takes, and what each service costs."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from statistics import quantiles
from time import monotonic

from windward.local.mesh import Mesh
from windward.local.ready import http_get

TOPOLOGY = Path(__file__).resolve().parents[1] / "samples" / "bookshop" / "topology.yaml"
SERVICES = ("etcd", "citadel", "pilot", "mixer", "storefront-v1")
CHANGE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: storefront, namespace: bookshop}}
spec:
  hosts: ["*"]
  gateways: [front-door]
  http:
  - match: [{{uri: {{exact: /bench}}}}]
    directResponse: {{status: 200, body: {{string: "{number}"}}}}
  - route: [{{destination: {{host: storefront.bookshop.svc.cluster.local, port: {{number: 9080}}}}}}]
"""


async def measure(changes: int) -> dict[str, float | str]:
    """Run a mesh, change it ``changes`` times, take it down."""
    before = os.getloadavg()[0]
    acked, served = [], []
    with tempfile.TemporaryDirectory(prefix="ww-") as folder:
        mesh = Mesh(Path(folder) / "mesh", TOPOLOGY, gateway_port=0)
        began = monotonic()
        await mesh.up()
        up_s = monotonic() - began
        try:
            used = {name: cpu_s(mesh, name) for name in SERVICES}
            for number in range(changes):
                ack_s, data_s = await one_change(mesh, number)
                acked.append(ack_s * 1000)
                served.append(data_s * 1000)
            costs = {
                name: (cpu_s(mesh, name) - used[name], rss_mb(mesh, name)) for name in SERVICES
            }
        finally:
            await mesh.down()
    result: dict[str, float | str] = {
        "mode": mesh.mode.value,
        "up_s": round(up_s, 2),
        "changes": changes,
    }
    for name, values in (("ack", acked), ("data_path", served)):
        cuts = quantiles(values, n=100, method="inclusive")
        result |= {
            f"change_to_{name}_p50_ms": round(cuts[49], 1),
            f"change_to_{name}_p99_ms": round(cuts[98], 1),
        }
    for name, (cpu, memory) in costs.items():
        result |= {f"{name}_cpu_s": round(cpu, 3), f"{name}_rss_mb": round(memory, 1)}
    return result | {"load_before": round(before, 2), "load_after": round(os.getloadavg()[0], 2)}


async def one_change(mesh: Mesh, number: int) -> tuple[float, float]:
    """Seconds from before ``apply`` until every proxy has ACKed, and until the gateway serves the change."""
    began = monotonic()
    response = await mesh.administrator.apply_text(CHANGE.format(number=number))
    acked, served = await asyncio.gather(
        until_acked(mesh, response.revision), until_served(mesh, str(number).encode())
    )
    return acked - began, served - began


async def until_acked(mesh: Mesh, revision: int) -> float:
    while True:
        proxies = await mesh.administrator.proxies()
        types = [kind for proxy in proxies for kind in proxy.types.values()]
        if proxies and all(
            kind.acked_revision >= revision and kind.state == "SYNCED" for kind in types
        ):
            return monotonic()
        await asyncio.sleep(0.002)


async def until_served(mesh: Mesh, body: bytes) -> float:
    gateway = mesh.topology.gateway
    assert gateway is not None
    address = mesh.plan.place(gateway.name).address
    while True:
        status, got = await http_get(address, gateway.port, "/bench")
        if status == 200 and got == body:
            return monotonic()
        await asyncio.sleep(0.002)


def cpu_s(mesh: Mesh, name: str) -> float:
    """CPU-seconds of a part so far, its children left out."""
    fields = Path(f"/proc/{pid(mesh, name)}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(mesh: Mesh, name: str) -> float:
    fields = Path(f"/proc/{pid(mesh, name)}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def pid(mesh: Mesh, name: str) -> int:
    child = mesh.parts[name].child
    assert child is not None
    assert child.pid is not None
    return child.pid
