"""A machine outside joins the mesh: one command here makes its folder, one command there runs the sidecar."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.e2e.shop import ROOT, Shop, until
from tests.unit.agent.dns.resolver import addresses, resolver

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(120),
    pytest.mark.root,
]

HOST = "legacy.bookshop.svc.cluster.local"
CONFIGURATION = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: legacy, namespace: bookshop}}
spec:
  hosts: [{HOST}]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 9080, name: http, protocol: HTTP}}]
  workloadSelector: {{labels: {{app: legacy}}}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {{name: legacy, namespace: bookshop}}
spec:
  metadata: {{labels: {{app: legacy}}}}
  template: {{serviceAccount: legacy}}
  probe: {{periodSeconds: 1, failureThreshold: 1, httpGet: {{path: /healthy, port: 9080}}}}
"""
APPLICATION = """
import http.server, json, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        healthy = os.path.exists(sys.argv[1])
        self.send_response(503 if self.path == "/healthy" and not healthy else 200)
        self.end_headers()
        self.wfile.write(json.dumps({k.lower(): v for k, v in self.headers.items()}).encode())
http.server.ThreadingHTTPServer(("0.0.0.0", 9080), Handler).serve_forever()
"""


class Vm:
    """A network namespace on the mesh's bridge that the mesh knows nothing of."""

    def __init__(self, shop: Shop, folder: Path) -> None:
        plan = shop.mesh.plan
        assert plan.network is not None
        assert plan.bridge is not None
        self.name = f"ww-{plan.mesh_id}-vm"
        self.address = str(list(plan.network.hosts())[-1])
        self.healthy = folder / "healthy"
        self._bridge, self._gateway = plan.bridge, plan.control_address
        self._width = plan.network.prefixlen

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Up, with its application."""
        link = f"{self._bridge[:-2]}vm"
        own = Path("/etc/netns") / self.name  # what `ip netns exec` shows as the namespace's /etc
        own.mkdir(parents=True)
        (own / "resolv.conf").write_text(f"search example.org\nnameserver {self._gateway}\n")
        ip(f"netns add {self.name}")
        try:
            ip(f"link add {link} type veth peer name eth0 netns {self.name}")
            ip(f"link set {link} master {self._bridge} up")
            ip(f"-n {self.name} link set lo up")
            ip(f"-n {self.name} addr add {self.address}/{self._width} dev eth0")
            ip(f"-n {self.name} link set eth0 up")
            ip(f"-n {self.name} route add default via {self._gateway}")
            app = await self.start(sys.executable, "-c", APPLICATION, str(self.healthy))
            try:
                yield
            finally:
                app.kill()
                await app.wait()
        finally:
            ip(f"netns del {self.name}")
            shutil.rmtree(own)

    async def start(self, *command: str, **environment: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", self.name, *command, env={**os.environ, **environment}
        )


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


async def said(*command: str, **environment: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, env={**os.environ, **environment}
    )
    out, _ = await process.communicate()
    return out.decode()


async def curl(namespace: str, url: str) -> str:
    """A request from an application's place, by name; empty when it fails."""
    return await said("ip", "netns", "exec", namespace, "curl", "-sf", "-m", "5", url)


async def locality(shop: Shop, vm: Vm) -> dict[str, str]:
    """Where a caller's Envoy takes the machine to be."""
    dumped = json.loads(await shop.admin("storefront-v1", "/clusters?format=json"))
    found: dict[str, str] = next(
        host["locality"]
        for cluster in dumped["cluster_statuses"]
        for host in cluster.get("host_statuses", [])
        if host["address"].get("socket_address", {}).get("address") == vm.address
    )
    return found


async def metrics(vm: Vm, ports: Path) -> str:
    url = f"http://{vm.address}:{json.loads(ports.read_bytes())['status']}/metrics"
    return await said("ip", "netns", "exec", vm.name, "curl", "-sf", "-m", "5", url)


async def onboarded(shop: Shop, folder: Path) -> Path:
    output = folder / "legacy-1"
    made = await said(
        str(ROOT / ".venv/bin/windward"),
        *("workload", "onboard", "legacy-1", "-n", "bookshop", "-s", "legacy"),
        *("--group", "legacy", "--locality", "eu/west/a", "--output", str(output)),
        WINDWARD_CONTEXT=str(shop.mesh.context_file),
    )
    assert made.strip() == str(output)
    return output


async def test_a_machine_joins_is_called_calls_is_probed_and_leaves(shop: Shop, tmp_path):
    await shop.apply(CONFIGURATION)
    caller = shop.mesh.plan.place("storefront-v1").namespace
    assert caller is not None
    vm = Vm(shop, tmp_path)

    async def health() -> str | None:
        return (await shop.endpoint_health("storefront-v1", HOST)).get(vm.address)

    async def healthy() -> bool:
        return await health() == "HEALTHY"

    async def unhealthy() -> bool:
        return await health() == "UNHEALTHY"

    others = resolver(addresses("192.0.2.7"), shop.mesh.plan.control_address, 53)
    async with vm.running(), others as asked:
        folder = await onboarded(shop, tmp_path)
        ports = tmp_path / "ports.json"
        sidecar = await vm.start(
            str(folder / "start.sh"),
            *("--ports-file", str(ports)),
            WINDWARD_AGENT=str(ROOT / ".venv/bin/windward-agent"),
        )
        try:
            await until(unhealthy, "it is registered, and its application fails the probe")
            vm.healthy.touch()
            await until(healthy, "its application succeeds")
            assert await locality(shop, vm) == {"region": "eu", "zone": "west", "sub_zone": "a"}
            seen = json.loads(await curl(caller, "http://legacy:9080/"))
            assert "/sa/storefront" in seen["x-forwarded-client-cert"]
            answer = await curl(vm.name, "http://ratings.bookshop:9080/ratings/1")
            assert "spiffe://cluster.local/ns/bookshop/sa/legacy" in answer
            resolved = await said("ip", "netns", "exec", vm.name, "getent", "ahostsv4", "a.test.")
            assert resolved.startswith("192.0.2.7")
            counted = await metrics(vm, ports)
            passed_on = r'^windward_agent_dns_requests_total\{answered="upstream"\} [1-9]'
            assert re.search(passed_on, counted, re.MULTILINE)
            assert asked.asked[-1][0].q.qname == "a.test."
            vm.healthy.unlink()
            await until(unhealthy, "its application fails again")
        finally:
            sidecar.terminate()
            await asyncio.wait_for(sidecar.wait(), 20)

        async def gone() -> bool:
            return await health() is None

        await until(gone, "it has taken itself out")
        left = await said("ip", "netns", "exec", vm.name, "iptables-save")
        assert "ISTIO" not in left
