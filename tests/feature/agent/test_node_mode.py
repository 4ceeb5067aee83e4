"""One agent for a node: two workloads with an Envoy each, by SDS and by the Workload API each its own identity only.

alice's Envoy :9080 -> mTLS -> :15006 bob's Envoy, and back; certificates of a few seconds, so that they are renewed meanwhile
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from services.agent.envoy.process import find_envoy
from tests.e2e.shop import until
from tests.unit.agent.workload_api.nodes import RunningNode, entry, running_node, token_for
from tests.unit.citadel.running import Running, citadel
from windward.store.memory import MemoryStore

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]
UIDS = {"alice": 41011, "bob": 41012}
STRANGER = 41013
HOSTS = {"alice": "127.94.0.1", "bob": "127.94.0.2", "stranger": "127.94.0.3"}
OUT, IN, ADMIN = 9080, 15006, 15000
TTL_S = 6
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
HTTP = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
ASKING = """
import os, sys
from spiffe import WorkloadApiClient
os.setgroups([]); os.setresgid(*[int(sys.argv[2])] * 3); os.setresuid(*[int(sys.argv[2])] * 3)
with WorkloadApiClient("unix://" + sys.argv[1]) as client:
    try:
        svid = client.fetch_x509_svid(20)
        print(svid.spiffe_id, client.fetch_jwt_svid({"x"}, None, 20).spiffe_id)
    except Exception as error:
        print(type(error).__name__, error)
"""
"""Imports first: the interpreter may lie where other users cannot read."""


def spiffe_id(account: str) -> str:
    return f"spiffe://cluster.local/ns/shop/sa/{account}"


def place(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def tls(context: str, trusted: str, **more: Any) -> dict[str, Any]:
    """Certificate and roots by SDS; ``trusted``: how the peer's id begins."""
    source = {
        "resource_api_version": "V3",
        "api_config_source": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "agent"}}],
        },
    }
    san = {"san_type": "URI", "matcher": {"prefix": trusted}}
    common = {
        "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": source}],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": [san]},
            "validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": source},
        },
    }
    typed = {"@type": f"{TLS}.{context}", "common_tls_context": common, **more}
    return {"name": "tls", "typed_config": typed}


def listener(host: str, port: int, route: dict[str, Any], **chain: Any) -> dict[str, Any]:
    virtual_host = {
        "name": "all",
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, **route}],
    }
    manager = {
        "@type": HTTP,
        "stat_prefix": str(port),
        "route_config": {"virtual_hosts": [virtual_host]},
        "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
    }
    filters = [{"name": "http", "typed_config": manager}]
    return {
        "name": str(port),
        "address": place(host, port),
        "filter_chains": [{"filters": filters, **chain}],
    }


def cluster(name: str, address: dict[str, Any], **more: Any) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    load = {"cluster_name": name, "endpoints": endpoints}
    return {"name": name, "type": "STATIC", "load_assignment": load, **more}


def config(name: str, peer: str, socket: Path) -> str:
    """Calls the peer's Envoy; answers with the ids of both ends of a connection."""
    host = HOSTS[name]
    ends = {"x-caller": "%DOWNSTREAM_PEER_URI_SAN%", "x-called": "%DOWNSTREAM_LOCAL_URI_SAN%"}
    answer = {
        "direct_response": {"status": 200},
        "response_headers_to_add": [
            {"header": {"key": key, "value": value}} for key, value in ends.items()
        ],
    }
    downstream = tls("DownstreamTlsContext", "spiffe://", require_client_certificate=True)
    upstream = tls("UpstreamTlsContext", spiffe_id(peer))
    http2 = {
        "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    agent = {"typed_extension_protocol_options": {HTTP_OPTIONS: http2}}
    listeners = [
        listener(host, IN, answer, transport_socket=downstream),
        listener(host, OUT, {"route": {"cluster": "peer"}}),
    ]
    clusters = [
        cluster("peer", place(HOSTS[peer], IN), transport_socket=upstream),
        cluster("agent", {"pipe": {"path": str(socket)}}, **agent),
    ]
    return json.dumps(
        {
            "node": {"id": name, "cluster": name},
            "admin": {"address": place(host, ADMIN)},
            "static_resources": {"listeners": listeners, "clusters": clusters},
        }
    )


@asynccontextmanager
async def envoy(name: str, uid: int, peer: str, node: RunningNode) -> AsyncIterator[None]:
    """By an open file: its user may not be able to walk to the binary."""
    binary = os.open(find_envoy(""), os.O_RDONLY)
    user = str(uid)
    try:
        process = await asyncio.create_subprocess_exec(
            str(shutil.which("setpriv")),
            *("--reuid", user, "--regid", user, "--clear-groups", "--pdeathsig", "KILL"),
            f"/proc/self/fd/{binary}",
            *("--config-yaml", config(name, peer, node.socket)),
            *("--concurrency", "1", "--disable-hot-restart", "-l", "error"),
            pass_fds=(binary,),
        )
    finally:
        os.close(binary)
    try:
        yield
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 20)


async def ends_of_a_call(caller: str) -> tuple[int, str, str]:
    """Through a caller's Envoy: the status, who the called one saw, and as whom it answered."""
    reader, writer = await asyncio.open_connection(HOSTS[caller], OUT)
    try:
        writer.write(b"GET / HTTP/1.1\r\nhost: peer\r\nconnection: close\r\n\r\n")
        head = (await reader.read()).decode().partition("\r\n\r\n")[0].splitlines()
    finally:
        writer.close()
    headers = dict(line.split(": ", 1) for line in head[1:])
    return int(head[0].split()[1]), headers.get("x-caller", ""), headers.get("x-called", "")


async def admin(name: str, path: str) -> str:
    url = f"http://{HOSTS[name]}:{ADMIN}{path}"
    async with ClientSession() as session, session.get(url) as answer:
        return await answer.text()


async def certificates(name: str) -> list[dict[str, Any]]:
    """Of an Envoy, as its admin interface shows them; nothing while it has none."""
    shown = json.loads(await admin(name, "/certs"))
    return [chain for item in shown["certificates"] for chain in item["cert_chain"]]


async def serial(name: str) -> str:
    return str((await certificates(name))[0]["serial_number"])


async def who(node: RunningNode, uid: int) -> str:
    """What the SPIFFE project's own client library is told, as another user."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ASKING, str(node.socket), str(uid), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    return said.decode().strip()


@pytest.fixture
async def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(folder.stat().st_mode | 0o011)
    async with citadel(tmp_path, MemoryStore(), monkeypatch) as started:
        yield started


@pytest.fixture
async def node(running: Running) -> AsyncIterator[RunningNode]:
    entries = []
    for account, uid in UIDS.items():
        token = running.base / f"{account}.token"
        await token_for(running, account, token)
        entries.append(entry(account, token, uid))
    (running.base / "node").mkdir(mode=0o711)
    async with running_node(running, entries, certificate_ttl=TTL_S) as started:
        yield started


async def test_two_envoys_on_one_node_are_each_their_own_workload(node: RunningNode):
    alice, bob = (
        envoy(name, UIDS[name], peer, node) for name, peer in (("alice", "bob"), ("bob", "alice"))
    )
    stranger = envoy("stranger", STRANGER, "bob", node)
    async with alice, bob, stranger:
        await both_call_one_another_while_certificates_are_renewed()
        for account in UIDS:
            uris = {
                name["uri"]
                for chain in await certificates(account)
                for name in chain["subject_alt_names"]
            }
            assert uris == {spiffe_id(account)}
        await until(stranger_was_refused, "the third Envoy to ask again")
        assert await certificates("stranger") == []
        assert not await called("stranger", "bob")
        asked = await asyncio.gather(*(who(node, uid) for uid in (*UIDS.values(), STRANGER)))
    *known, unknown = asked
    assert known == [f"{spiffe_id(account)} {spiffe_id(account)}" for account in UIDS]
    assert "no identity is issued" in unknown


async def called(caller: str, peer: str) -> bool:
    """Whether a call went through, and both ends were who they should be."""
    try:
        return await ends_of_a_call(caller) == (200, spiffe_id(caller), spiffe_id(peer))
    except (OSError, ValueError, IndexError):
        return False


async def stranger_was_refused() -> bool:
    """An Envoy asks again for secrets only after it was refused."""
    return (
        int(
            (await admin("stranger", "/stats?filter=^cluster.agent.upstream_rq_total$")).split()[-1]
        )
        > 2
    )


async def both_call_one_another_while_certificates_are_renewed() -> None:
    for caller, peer in (("alice", "bob"), ("bob", "alice")):

        async def works(caller: str = caller, peer: str = peer) -> bool:
            return await called(caller, peer)

        await until(works, f"{caller} to call {peer}")
    first = {account: await serial(account) for account in UIDS}

    async def renewed() -> bool:
        assert await called("alice", "bob")
        assert await called("bob", "alice")
        now = {account: await serial(account) for account in UIDS}
        return all(now[account] != first[account] for account in UIDS)

    await until(renewed, "both certificates to be renewed")
