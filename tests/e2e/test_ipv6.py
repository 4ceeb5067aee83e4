"""Calls by IPv6 all the way: to a virtual address, through the caller's Envoy, by mTLS to the callee's, into the application."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from benchmarks.chaos.scene import SERVICE
from tests.e2e.conftest import running
from tests.e2e.shop import Shop
from windward.local.addresses import Mode
from windward.local.parts import Options

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

APPLICATION = """
import http.server, json, socket, sys
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        seen = {"client": self.client_address[0], "cert": self.headers.get("x-forwarded-client-cert", "")}
        body = json.dumps(seen).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
Server(("::", 9080), Handler).serve_forever()
"""
WORKLOAD = (
    "- {{name: {name}, group: {name}, service_account: {name}, port: 9080, "
    'command: ["{{python}}", {script}]}}\n'
)
BY_IPV6 = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: six, namespace: bookshop}}
spec:
  hosts: [six.bookshop.svc.cluster.local]
  addresses: ["{address}"]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 9080, name: http, protocol: HTTP}}]
  endpoints:
  - address: "{callee}"
    serviceAccount: callee
    labels: {{app: callee, security.istio.io/tlsMode: istio}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: bookshop}}
spec: {{mtls: {{mode: STRICT}}}}
"""
VIRTUAL = "fd00:240::10"


def write_topology(folder: Path) -> Path:
    script = folder / "application.py"
    script.write_text(APPLICATION)
    (folder / "mesh").mkdir()
    names = ("caller", "callee")
    services = (
        SERVICE.format(name=name, address=f"240.240.0.{number}")
        for number, name in enumerate(names, 10)
    )
    (folder / "mesh" / "services.yaml").write_text("".join(services))
    path = folder / "topology.yaml"
    lines = (WORKLOAD.format(name=name, script=script) for name in names)
    path.write_text("config: mesh\nworkloads:\n" + "".join(lines))
    return path


async def call(shop: Shop, caller: str, url: str) -> tuple[int, str]:
    """As an application in a workload's place: curl's exit status, and the answer."""
    namespace = shop.mesh.plan.place(caller).namespace
    assert namespace is not None
    process = await asyncio.create_subprocess_exec(
        *("ip", "netns", "exec", namespace, "curl", "-6sgf", "-m", "10", url),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def taken(shop: Shop, workload: str, listener: str) -> int:
    """Connections that one of a workload's listeners took, by either family."""
    said = await shop.admin(workload, f"/stats?filter=^listener.{listener}.downstream_cx_total$")
    return int(said.split()[-1])


@pytest.mark.parametrize("interception", ["redirect", "tproxy"])
async def test_both_sidecars_take_what_comes_by_ipv6(folder: Path, interception):
    options = Options(ipv6=True, interception=interception, mixer=False)
    topology = write_topology(folder)
    async with running(folder / "run", topology, Mode.NAMESPACES, options) as shop:
        caller, callee = (shop.mesh.plan.place(name) for name in ("caller", "callee"))
        await shop.apply(BY_IPV6.format(address=VIRTUAL, callee=callee.address6))
        for url in ("http://six.bookshop:9080/", f"http://[{VIRTUAL}]:9080/"):
            status, answer = await call(shop, "caller", url)
            assert status == 0, url
            seen = json.loads(answer)
            assert "URI=spiffe://cluster.local/ns/bookshop/sa/caller" in seen["cert"]
            assert seen["client"] == (caller.address6 if interception == "tproxy" else "::6")
        assert await taken(shop, "caller", "0.0.0.0_9080") == 2
        assert await taken(shop, "callee", "0.0.0.0_15006") > 0
        # Without an Envoy of the mesh in front: STRICT holds for IPv6 as well.
        process = await asyncio.create_subprocess_exec(
            "curl", "-6sgf", "-m", "5", f"http://[{callee.address6}]:9080/"
        )
        assert await process.wait() not in {0, 7}, "connected, and refused by the sidecar"
