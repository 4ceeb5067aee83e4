"""HTTPS at a gateway of a whole mesh: keys from Pilot and from files beside the agent, through the agent into a real Envoy.

They are rotated under requests, outlive the control plane, and reach nobody who only says that he is a gateway.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_pem_x509_certificate
from envoy.service.discovery.v3 import discovery_pb2

from benchmarks.agent import children
from benchmarks.catalogs import GATEWAY, TO_CATALOG, write_topology
from tests.e2e.conftest import running
from tests.e2e.shop import Shop, until
from tests.feature.https import WEB, asked, trusting
from tests.unit.pilot.credentials.test_folder import mount
from windward.client.certificates import CERTIFICATE_FILE, KEY_FILE, ROOTS_FILE
from windward.identity.names import CONTROL_PLANE_DNS, PILOT_ACCOUNT
from windward.local.parts import Options
from windward.xds.resource import SECRET

pytestmark = [pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

BY_PILOT, BY_FILE = 8443, 8444
NAME = "shop.example.com"
SECURE = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: front-door, namespace: bookshop}}
spec:
  selector: {{app: gateway}}
  servers:
  - port: {{number: 8080, name: http, protocol: HTTP}}
    hosts: ["*"]
  - port: {{number: 8443, name: https, protocol: HTTPS}}
    hosts: [shop.example.com]
    tls: {{mode: SIMPLE, credentialName: edge}}
  - port: {{number: 8444, name: https-files, protocol: HTTPS}}
    hosts: [shop.example.com]
    tls: {{mode: SIMPLE, serverCertificate: {files}/tls.crt, privateKey: {files}/tls.key}}
---
"""
Rotate = Callable[[str], bytes]


class Edge:
    """A gateway with a catalog behind it; its keys in two folders, one Pilot's and one its agent's."""

    def __init__(self, shop: Shop, folder: Path) -> None:
        self.shop = shop
        self.address = shop.mesh.plan.place(GATEWAY).address
        self.pilots, self.files = folder / "keys" / "bookshop" / "edge", folder / "files"

    def rotate(self, port: int, version: str) -> bytes:
        """Puts a new pair in force by swapping a link; the fingerprint of its certificate."""
        made = WEB.material("web", NAME)
        mount(self.pilots if port == BY_PILOT else self.files, made, version)
        return load_pem_x509_certificate(made.chain_pem).fingerprint(SHA256())

    async def ask(self, port: int) -> tuple[str, bytes]:
        return await asked(trusting(), self.address, port, NAME, "/books/1")

    async def until_served(self, port: int, fingerprint: bytes) -> None:
        async def served() -> bool:
            try:
                return await self.ask(port) == ("200", fingerprint)
            except OSError:
                return False

        await until(served, f"the new certificate on {port}", deadline_s=60)

    async def stat(self, name: str) -> int:
        said = await self.shop.admin(GATEWAY, f"/stats?filter=^{name}$")
        return int(said.split()[-1])

    def pid(self, name: str) -> int:
        child = self.shop.mesh.parts[name].child
        assert child is not None
        return child.pid or 0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    folder = tmp_path_factory.mktemp("ww-edge")
    options = Options(
        gateway_secrets=str(folder / "keys"), gateway_accounts=("bookshop/gateway",), mixer=False
    )
    (folder / "keys").mkdir()
    async with running(folder / "run", write_topology(folder), options=options) as shop:
        made = Edge(shop, folder)
        first = {port: made.rotate(port, "0") for port in (BY_PILOT, BY_FILE)}
        await shop.apply(SECURE.format(files=made.files) + TO_CATALOG)
        for port, fingerprint in first.items():
            await made.until_served(port, fingerprint)
        yield made


@pytest.mark.parametrize("port", [BY_PILOT, BY_FILE])
async def test_a_swapped_link_is_noticed_and_no_request_fails(edge: Edge, port: int):
    answers: list[tuple[str, bytes]] = []
    done = asyncio.Event()
    updates = await edge.stat("listener_manager.lds.update_success")

    async def load() -> None:
        while not done.is_set():
            answers.append(await edge.ask(port))

    loads = [asyncio.create_task(load()) for _ in range(2)]
    newest = []
    for version in "123":
        newest.append(edge.rotate(port, version))
        await edge.until_served(port, newest[-1])
    done.set()
    await asyncio.gather(*loads)
    assert {status for status, _ in answers} == {"200"}
    assert {fingerprint for _, fingerprint in answers} >= set(newest)
    assert await edge.stat("listener_manager.lds.update_success") == updates, "only secrets moved"
    other = BY_FILE if port == BY_PILOT else BY_PILOT
    assert (await edge.ask(other))[0] == "200"


async def test_half_a_rotation_leaves_the_last_good_pair(edge: Edge):
    before = await edge.ask(BY_FILE)
    broken = edge.files / "..broken"
    broken.mkdir()
    (broken / "tls.crt").write_bytes(WEB.material("web", NAME).chain_pem)
    (broken / "tls.key").write_bytes(WEB.material("web", NAME).key_pem)
    (edge.files / "..new").symlink_to("..broken")
    (edge.files / "..new").replace(edge.files / "..data")
    log = edge.shop.mesh.specs.log("gateway-agent")

    async def told() -> bool:
        return "the key does not belong to the certificate" in log.read_text()

    await until(told, "the agent to say what is wrong")
    assert await edge.ask(BY_FILE) == before
    await edge.until_served(BY_FILE, edge.rotate(BY_FILE, "whole"))


async def secrets_of(
    edge: Edge, workload: str, account: str
) -> discovery_pb2.DeltaDiscoveryResponse:
    """What Pilot answers the owner of a workload's certificate who says that he is the gateway."""
    state = edge.shop.mesh.specs.state(workload)
    chain, key, roots = (
        next(state.rglob(name)).read_bytes() for name in (CERTIFICATE_FILE, KEY_FILE, ROOTS_FILE)
    )
    name = CONTROL_PLANE_DNS[PILOT_ACCOUNT]
    specs = edge.shop.mesh.specs
    request = discovery_pb2.DeltaDiscoveryRequest(
        type_url=SECRET, resource_names_subscribe=["kubernetes://edge"]
    )
    request.node.id = f"router~{edge.address}~gateway.bookshop~bookshop.svc.cluster.local"
    request.node.metadata.update({"SERVICE_ACCOUNT": account, "LABELS": {"app": "gateway"}})
    async with grpc.aio.secure_channel(
        specs.control(specs.ports.pilot_mtls),
        grpc.ssl_channel_credentials(roots, key, chain),
        (("grpc.ssl_target_name_override", name),),
    ) as channel:
        stream: Any = channel.stream_stream(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
            discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            discovery_pb2.DeltaDiscoveryResponse.FromString,
        )(timeout=20)
        await stream.write(request)
        answer: discovery_pb2.DeltaDiscoveryResponse = await stream.read()
        stream.cancel()
        return answer


async def test_a_workload_that_says_it_is_the_gateway_gets_no_key_and_pilot_says_so(edge: Edge):
    granted = await secrets_of(edge, GATEWAY, "gateway")
    assert [item.name for item in granted.resources] == ["kubernetes://edge"]
    assert b"PRIVATE KEY" in granted.SerializeToString()
    refused = await secrets_of(edge, "catalog-a", "catalog")
    assert (list(refused.resources), list(refused.removed_resources)) == ([], ["kubernetes://edge"])
    with pytest.raises(grpc.aio.AioRpcError, match="its certificate spiffe://"):
        await secrets_of(edge, "catalog-a", "gateway")
    lines = edge.shop.mesh.specs.log("pilot").read_text().splitlines()
    said = [json.loads(line) for line in lines if "credential.refused" in line]
    assert [(item["credential"], item["identity"]) for item in said] == [
        ("edge", "spiffe://cluster.local/ns/bookshop/sa/catalog")
    ]
    assert "bookshop/catalog to --gateway-accounts" in said[0]["hint"]
    assert "PRIVATE KEY" not in "\n".join(lines)


async def test_both_keys_outlive_the_control_plane_and_restarts_of_envoy_and_agent(edge: Edge):
    """What stands on disk for that is readable by the agent alone."""
    serving = {port: (await edge.ask(port))[1] for port in (BY_PILOT, BY_FILE)}
    kept = edge.shop.mesh.specs.state(GATEWAY) / "last-good" / "state"

    async def on_disk() -> bool:
        return kept.exists() and b"kubernetes://edge" in kept.read_bytes()

    await until(on_disk, "the gateway's state to be on disk")
    assert kept.stat().st_mode & 0o077 == 0
    for name in ("etcd", "citadel", "pilot"):
        child = edge.shop.mesh.parts[name].child
        assert child is not None
        child.kill(keep_down=True)

    async def another(pid: int, now: Callable[[], Awaitable[int]]) -> None:
        async def there() -> bool:
            return await now() not in {0, pid}

        await until(there, "another process")
        for port, fingerprint in serving.items():
            await edge.until_served(port, fingerprint)

    async def envoy() -> int:
        try:
            return children(edge.pid(GATEWAY))[0]
        except (OSError, IndexError):
            return 0

    async def agent() -> int:
        return edge.pid(GATEWAY)

    for which in (envoy, agent):
        killed = await which()
        os.kill(killed, signal.SIGKILL)
        await another(killed, which)
