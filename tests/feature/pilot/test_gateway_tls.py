"""HTTPS at a gateway: Pilot's credentials from files, over mTLS streams, into a real Envoy, and rotated under requests."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_pem_x509_certificate

from services.agent.envoy.process import find_envoy
from services.pilot.credentials.folder import Folder
from services.pilot.due import Timing
from services.pilot.groups import Groups
from services.pilot.index import Index
from services.pilot.xds.connected import ConnectedProxies
from services.pilot.xds.server import DiscoveryServer
from tests.feature.https import WEB, asked, trusting
from tests.unit.pilot.credentials.test_folder import mount
from tests.unit.pilot.mesh import OPTIONS, make
from tests.unit.pilot.test_index import put
from tests.unit.rpc.pki import DNS, Authority
from windward.config.gateway import CIPHER_SUITES
from windward.rpc.credentials import TlsMaterial, TlsSource
from windward.rpc.http2.server import Http2Server
from windward.store.memory import MemoryStore

WAIT_S = 40.0
HOST = "127.93.0.1"
PORT, PLAIN_PORT = 8443, 8080
NAME = "shop.example.com"
MESH, CLIENTS = Authority(), Authority()


def gateway(**clients: Any):
    tls = {
        "mode": "SIMPLE",
        "credentialName": "edge",
        "cipherSuites": sorted(CIPHER_SUITES),
        **clients,
    }
    secure = {"number": PORT, "name": "https", "protocol": "HTTPS"}
    plain = {"number": PLAIN_PORT, "name": "http", "protocol": "HTTP"}
    spec = {
        "selector": {"istio": "ingress"},
        "servers": [
            {"port": secure, "hosts": [NAME], "tls": tls},
            {"port": plain, "hosts": [NAME], "tls": {"httpsRedirect": True}},
        ],
    }
    return make("Gateway", "edge", spec)


ROUTES = make(
    "VirtualService",
    "edge",
    {"hosts": [NAME], "gateways": ["edge"], "http": [{"directResponse": {"status": 204}}]},
)


class World:
    """A Pilot over a store in memory and a folder, and an Envoy that is a gateway of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = MemoryStore()
        groups = Groups(OPTIONS)
        self.index = Index(
            self.store, groups, 30.0, Timing(0.001, 0.001, 0.01), None, Folder(folder)
        )
        self.discovery = DiscoveryServer(groups, ConnectedProxies())

    def rotate(self, version: str) -> bytes:
        """Put a new pair in force; its certificate's fingerprint."""
        made = WEB.material("web", NAME)
        mount(self.folder / "shop" / "edge", made, version)
        return load_pem_x509_certificate(made.chain_pem).fingerprint(SHA256())


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[World]:
    world = World(folder)
    indexing = asyncio.create_task(world.index.run())
    server = Http2Server()
    server.add_behaviours(world.discovery.behaviours())
    source = TlsSource(MESH.material("pilot", DNS))
    port = server.listen_mtls("127.0.0.1:0", source, setting="--mtls-address")
    await server.start()
    config = json.dumps(bootstrap(port, MESH.material("gateway", namespace="shop")))
    with (folder.parent / "envoy.log").open("wb") as log:
        envoy = subprocess.Popen(
            [find_envoy(""), "--config-yaml", config, "--concurrency", "1", "--disable-hot-restart", "-l", "warning"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield world
    finally:
        envoy.terminate()
        await asyncio.to_thread(envoy.wait, 20)
        await world.discovery.drain()
        await server.stop(None)
        indexing.cancel()
        await asyncio.wait({indexing})


def bootstrap(port: int, material: TlsMaterial) -> dict[str, Any]:
    def inline(content: bytes) -> dict[str, str]:
        return {"inline_string": content.decode()}

    socket = {
        "name": "tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": DNS,
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                "tls_certificates": [
                    {
                        "certificate_chain": inline(material.chain_pem),
                        "private_key": inline(material.key_pem),
                    }
                ],
                "validation_context": {"trusted_ca": inline(material.roots_pem)},
            },
        },
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    grpc_service = {"envoy_grpc": {"cluster_name": "pilot"}}
    options = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    ads = {"ads": {}, "resource_api_version": "V3"}
    return {
        "node": {
            "id": f"router~{HOST}~gateway-1.shop~shop.svc.cluster.local",
            "cluster": "gateway",
            "metadata": {
                "LABELS": {"istio": "ingress"},
                "SERVICE_ACCOUNT": "gateway",
                "INTERCEPTION_MODE": "NONE",
            },
        },
        "admin": {"address": {"socket_address": {"address": HOST, "port_value": 15000}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [grpc_service],
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "pilot",
                    "type": "STATIC",
                    "load_assignment": {
                        "cluster_name": "pilot",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
                    },
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
                    },
                    "transport_socket": socket,
                }
            ]
        },
    }


async def call(context: ssl.SSLContext, name: str = NAME) -> tuple[str, bytes]:
    return await asked(context, HOST, PORT, name)


async def until_served(context: ssl.SSLContext, fingerprint: bytes) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                if (await call(context))[1] == fingerprint:
                    return
            except OSError:
                pass
            await asyncio.sleep(0.05)


async def admin(path: str) -> str:
    async with ClientSession() as session, session.get(f"http://{HOST}:15000{path}") as answer:
        assert answer.status == 200
        return await answer.text()


async def stat(name: str) -> int:
    return int((await admin(f"/stats?filter=^{name}$")).split()[-1])


async def test_https_is_served_and_rotated_without_a_failed_request(tmp_path):
    folder = tmp_path / "secrets"
    folder.mkdir()
    async with running(folder) as world:
        first = world.rotate("0")
        await put(world.store, gateway(), ROUTES)
        context = trusting()
        await until_served(context, first)
        updates = await stat("listener_manager.lds.update_success")
        answers: list[tuple[str, bytes]] = []
        done = asyncio.Event()

        async def load() -> None:
            while not done.is_set():
                answers.append(await call(context))

        loads = [asyncio.create_task(load()) for _ in range(2)]
        newest = [first]
        for version in "12345":
            newest.append(world.rotate(version))
            await until_served(context, newest[-1])
        done.set()
        await asyncio.gather(*loads)
        assert {status for status, _ in answers} == {"204"}
        assert {fingerprint for _, fingerprint in answers} <= set(newest)
        assert (await call(context))[1] == newest[-1]
        # Only the secret moved.
        assert await stat("listener_manager.lds.update_success") == updates
        assert await stat("listener_manager.listener_modified") == 0
        dump = await admin("/config_dump?include_eds")
        assert "kubernetes://edge" in dump
        assert "[redacted]" in dump
        assert "PRIVATE KEY" not in dump
        with pytest.raises(OSError, match=r"(?i)eof|reset"):
            await call(context, "other.example.com")  # a host that no server names


async def test_clients_without_a_certificate_are_refused_and_plain_ones_redirected(tmp_path):
    folder = tmp_path / "secrets"
    async with running(folder) as world:
        fingerprint = world.rotate("0")
        ca = folder / "shop" / "clients"
        ca.mkdir()
        (ca / "ca.crt").write_bytes(CLIENTS.roots_pem)
        mutual = gateway(mode="MUTUAL", caCertCredentialName="clients")
        await put(world.store, mutual, ROUTES)
        known = trusting(CLIENTS.material("caller"), tmp_path)
        await until_served(known, fingerprint)
        assert (await call(known))[0] == "204"
        for stranger in (trusting(), trusting(WEB.material("caller"), tmp_path)):
            try:
                status, _ = await call(stranger)
            except OSError:
                continue
            assert not status.isdigit()
        reader, writer = await asyncio.open_connection(HOST, PLAIN_PORT)
        writer.write(f"GET /a?b HTTP/1.1\r\nhost: {NAME}\r\nconnection: close\r\n\r\n".encode())
        answer = (await reader.read()).decode().lower()
        writer.close()
        assert answer.startswith("http/1.1 301")
        assert f"location: https://{NAME}/a?b" in answer
