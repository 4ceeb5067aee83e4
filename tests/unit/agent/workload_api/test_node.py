"""The node agent: entries that fail keep no other waiting, and settings that are wrong are told."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from spiffe import WorkloadApiClient

from services.agent.workload_api import node as module
from tests.unit.agent.workload_api.nodes import RunningNode, entry, running_node, token_for
from tests.unit.citadel.running import Running, citadel
from windward.process import FatalError
from windward.store.memory import MemoryStore

WAIT_S = 30.0
OTHER_UID = 41009


@pytest.fixture
async def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    monkeypatch.setattr(module, "REFUSED_RETRY_S", 0.05)
    async with citadel(tmp_path, MemoryStore(), monkeypatch) as started:
        yield started


async def asked(node: RunningNode, path: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", node.status_port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    async with asyncio.timeout(WAIT_S):
        answer = (await reader.read()).decode()
    writer.close()
    return answer


async def fetched(node: RunningNode) -> str:
    client = WorkloadApiClient(f"unix://{node.socket}")
    svid = await asyncio.to_thread(client.fetch_x509_svid, WAIT_S)
    await asyncio.to_thread(client.close)
    return str(svid.spiffe_id)


async def test_one_refused_identity_keeps_no_other_waiting_and_is_tried_again(running: Running):
    good, bad = running.base / "alice.token", running.base / "bob.token"
    await token_for(running, "alice", good)
    bad.touch(mode=0o600)
    bad.write_text("wwjt_of-nobody")
    entries = [entry("bob", bad, OTHER_UID), entry("alice", good, os.geteuid())]
    async with running_node(running, entries, all_ready=False) as started:
        alices = started.state / "workload-api" / "1.sock"
        async with asyncio.timeout(WAIT_S):
            while not alices.exists():
                await asyncio.sleep(0.01)
        assert await fetched(started) == "spiffe://cluster.local/ns/shop/sa/alice"
        async with asyncio.timeout(WAIT_S):
            while "refuses the token" not in (said := await asked(started, "/healthz/ready")):
                await asyncio.sleep(0.01)
        assert "503" in said.splitlines()[0]
        assert "sa/bob: " in said
        assert "sa/alice" not in said
        await token_for(running, "bob", bad)
        async with asyncio.timeout(WAIT_S):
            while "200" not in (await asked(started, "/healthz/ready")).splitlines()[0]:
                await asyncio.sleep(0.01)
        assert 'decision="known"} 1.0' in await asked(started, "/metrics")


async def test_a_token_that_others_may_read_is_not_used(running: Running):
    token = running.base / "alice.token"
    await token_for(running, "alice", token)
    token.chmod(0o640)
    mine = entry("alice", token, os.geteuid())
    async with running_node(running, [mine], all_ready=False) as started:
        async with asyncio.timeout(WAIT_S):
            while "chmod 600" not in await asked(started, "/healthz/ready"):
                await asyncio.sleep(0.01)
        token.chmod(0o600)
        async with asyncio.timeout(WAIT_S):
            while "200" not in (await asked(started, "/healthz/ready")).splitlines()[0]:
                await asyncio.sleep(0.01)
        assert await fetched(started) == "spiffe://cluster.local/ns/shop/sa/alice"


async def test_a_restart_with_citadel_dead_serves_and_validates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with citadel(tmp_path, MemoryStore(), monkeypatch) as running:
        token = running.base / "alice.token"
        await token_for(running, "alice", token)
        mine = entry("alice", token, os.geteuid())
        async with running_node(running, [mine]) as node:
            client = WorkloadApiClient(f"unix://{node.socket}")
            jwt = await asyncio.to_thread(client.fetch_jwt_svid, {"bob"}, None, WAIT_S)
            await asyncio.to_thread(client.fetch_jwt_bundles, WAIT_S)
            await asyncio.to_thread(client.close)
    async with running_node(running, [mine]) as again:
        assert await fetched(again) == "spiffe://cluster.local/ns/shop/sa/alice"
        client = WorkloadApiClient(f"unix://{again.socket}")
        found = await asyncio.to_thread(client.validate_jwt_svid, jwt.token, "bob", WAIT_S)
        assert str(found.spiffe_id) == "spiffe://cluster.local/ns/shop/sa/alice"
        await asyncio.to_thread(client.close)


async def test_a_restart_needs_no_token(running: Running):
    token = running.base / "alice.token"
    await token_for(running, "alice", token)
    mine = entry("alice", token, os.geteuid())
    async with running_node(running, [mine]):
        pass
    token.unlink()
    async with running_node(running, [mine]) as again:
        assert await fetched(again) == "spiffe://cluster.local/ns/shop/sa/alice"


@pytest.mark.parametrize(
    ("entries", "settings", "reason"),
    [
        ([], {}, "--entries-file .*entries.json"),
        ([entry("alice", Path("/t"), 65534)], {}, r"entries\[0\].uid"),
        ([entry("alice", Path("/t"), 1)], {"trust_domain": "Not One"}, "trust domain"),
    ],
)
async def test_what_cannot_be_served_is_fatal(
    running: Running, entries: list[Any], settings: dict[str, Any], reason: str
):
    with pytest.raises(FatalError, match=reason):
        async with running_node(running, entries, **settings):
            pass


def test_help_says_what_there_is(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        module.main(["--help"])
    said = capsys.readouterr().out
    assert "--entries-file" in said
    assert "--workload-api-socket" in said
