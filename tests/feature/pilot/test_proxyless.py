"""gRPC clients without a proxy: grpcio's own xDS client against Pilot's streams."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import grpc

from services.pilot.groups import Groups
from services.pilot.state import MeshState
from services.pilot.xds.connected import ConnectedProxies
from services.pilot.xds.server import DiscoveryServer
from tests.unit.pilot.mesh import OPTIONS, change, make, port, service_entry, workload
from tests.unit.rpc.pki import Authority
from windward.registration import RegisteredWorkload
from windward.rpc.http2.server import Http2Server

ROOT = Path(__file__).parents[3]
WAIT_S = 40.0
TARGET = "reviews.shop.svc.cluster.local:9080"


class World:
    """A Pilot without a store, and servers that say who they are."""

    def __init__(self) -> None:
        self.state, self.groups = MeshState(), Groups(OPTIONS)
        self.discovery = DiscoveryServer(self.groups, ConnectedProxies())
        self._stack = AsyncExitStack()
        self.address = ""

    async def __aenter__(self) -> Self:
        server = Http2Server()
        server.add_behaviours(self.discovery.behaviours())
        self.address = f"127.0.0.1:{server.listen_plaintext('127.0.0.1:0', setting='ads')}"
        await server.start()
        self._stack.push_async_callback(server.stop, None)
        self._stack.push_async_callback(self.discovery.drain)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def change(self, *objects: Any, **more: Any) -> None:
        delta = change(self.state, *objects, **more)
        await self.groups.publish(self.state.snapshot, delta)

    async def serve(
        self, name: str, credentials: grpc.ServerCredentials | None = None
    ) -> RegisteredWorkload:
        """A server that answers with its name; the workload as which it is registered."""

        async def who(_: bytes, __: Any) -> bytes:
            return name.encode()

        server = grpc.aio.server()
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(who)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("windward.test.Who", {"Call": handler}),)
        )
        number = (
            server.add_secure_port("127.0.0.1:0", credentials)
            if credentials is not None
            else server.add_insecure_port("127.0.0.1:0")
        )
        await server.start()
        self._stack.push_async_callback(server.stop, None)
        return workload(name, "127.0.0.1", ports={"grpc": number})

    @asynccontextmanager
    async def client(self, folder: Path, certificates: dict[str, Any] | None = None):
        bootstrap = {
            "xds_servers": [
                {
                    "server_uri": self.address,
                    "channel_creds": [{"type": "insecure"}],
                    "server_features": ["xds_v3"],
                }
            ],
            "node": {
                "id": "sidecar~127.0.0.9~client.shop~shop.svc.cluster.local",
                "metadata": {"GENERATOR": "grpc", "LABELS": {"app": "client"}},
            },
            "certificate_providers": certificates or {},
        }
        path = folder / "bootstrap.json"
        path.write_text(json.dumps(bootstrap))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.feature.pilot.grpc_client",
            cwd=ROOT,
            env={**os.environ, "GRPC_XDS_BOOTSTRAP": str(path), "PYTHONPATH": str(ROOT)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip

        async def call(line: str) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{line}\n".encode())
            async with asyncio.timeout(WAIT_S):
                return (await process.stdout.readline()).decode().strip()

        try:
            yield call
        finally:
            process.kill()
            await process.wait()


def entry(**more: Any) -> Any:
    return service_entry(ports=[port(9080, "GRPC", "grpc")], **more)


async def test_routes_subsets_and_endpoints_reach_a_client_without_a_proxy(tmp_path):
    async with World() as world:
        v1, v2 = await world.serve("reviews-v1"), await world.serve("reviews-v2")
        await world.change(entry(), workloads=[v1])
        async with world.client(tmp_path) as call:
            assert await call(TARGET) == "reviews-v1"
            assert await call("reviews:9080") == "reviews-v1"
            # An endpoint comes, another goes.
            await world.change(workloads=[v2], gone=[("shop", "reviews-v1")])
            while await call(TARGET) != "reviews-v2":
                pass
            # Routes by header, to subsets.
            subsets = [{"name": v, "labels": {"version": v}} for v in ("v1", "v2")]
            to = {v: [{"destination": {"host": "reviews", "subset": v}}] for v in ("v1", "v2")}
            match = [{"headers": {"end-user": {"exact": "tester"}}}]
            await world.change(
                make("DestinationRule", "reviews", {"host": "reviews", "subsets": subsets}),
                make(
                    "VirtualService",
                    "reviews",
                    {
                        "hosts": ["reviews"],
                        "http": [{"match": match, "route": to["v1"]}, {"route": to["v2"]}],
                    },
                ),
                workloads=[v1],
            )
            while await call(f"{TARGET} end-user=tester") != "reviews-v1":
                pass
            assert {await call(TARGET) for _ in range(10)} == {"reviews-v2"}


async def test_mtls_when_a_rule_asks_for_it(tmp_path):
    authority = Authority()
    own = authority.material("client", namespace="shop")
    for name, text in (
        ("cert", own.chain_pem),
        ("key", own.key_pem),
        ("roots", own.roots_pem),
    ):
        (tmp_path / name).write_bytes(text)
    files = {
        "certificate_file": str(tmp_path / "cert"),
        "private_key_file": str(tmp_path / "key"),
        "ca_certificate_file": str(tmp_path / "roots"),
        "refresh_interval": "600s",
    }
    providers = {"default": {"plugin_name": "file_watcher", "config": files}}
    async with World() as world:

        def credentials(account: str) -> grpc.ServerCredentials:
            made = authority.material(account, namespace="shop")
            return grpc.ssl_server_credentials(
                [(made.key_pem, made.chain_pem)], made.roots_pem, require_client_auth=True
            )

        honest = await world.serve("reviews-v1", credentials("reviews"))
        policy = {"tls": {"mode": "ISTIO_MUTUAL"}}
        rule = make("DestinationRule", "reviews", {"host": "reviews", "trafficPolicy": policy})
        await world.change(entry(), rule, workloads=[honest])
        async with world.client(tmp_path, providers) as call:
            assert await call(TARGET) == "reviews-v1"
