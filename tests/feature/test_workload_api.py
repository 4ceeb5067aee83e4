"""The SPIFFE project's own client library against our agent and our Citadel: fetch, follow, rotate, JWT."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from spiffe import JwtSource, SpiffeId, TrustDomain, WorkloadApiClient, X509Source
from spiffe.svid.jwt_svid import JwtSvid
from spiffe.workloadapi.errors import FetchJwtSvidError, FetchX509SvidError, ValidateJwtSvidError

from tests.unit.agent.workload_api.nodes import RunningNode, entry, running_node, token_for
from tests.unit.citadel.running import Running, citadel
from windward.store.memory import MemoryStore

ALICE = "spiffe://cluster.local/ns/shop/sa/alice"
DOMAIN = TrustDomain("cluster.local")
WAIT_S = 30.0
SHORT_TTL_S = 6
"""So that a test sees a rotation: at half of it."""


@pytest.fixture
async def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    async with citadel(tmp_path, MemoryStore(), monkeypatch) as started:
        yield started


@asynccontextmanager
async def alices_node(running: Running, **settings: Any) -> AsyncIterator[RunningNode]:
    token = running.base / "alice.token"
    await token_for(running, "alice", token)
    mine = entry("alice", token, os.geteuid(), hint="internal")
    async with running_node(running, [mine], **settings) as started:
        yield started


@pytest.fixture
async def node(running: Running) -> AsyncIterator[RunningNode]:
    async with alices_node(running) as started:
        yield started


async def by(client: WorkloadApiClient, call: str, *arguments: Any) -> Any:
    """The library blocks: it has a thread of its own."""
    return await asyncio.wait_for(
        asyncio.to_thread(getattr(client, call), *arguments, timeout=WAIT_S), WAIT_S
    )


@pytest.fixture
async def client(node: RunningNode) -> AsyncIterator[WorkloadApiClient]:
    made = WorkloadApiClient(f"unix://{node.socket}")
    yield made
    await asyncio.to_thread(made.close)


async def test_certificates_and_roots(client: WorkloadApiClient, running: Running):
    svid = await by(client, "fetch_x509_svid")
    assert str(svid.spiffe_id) == ALICE
    assert svid.private_key.public_key() == svid.leaf.public_key()
    bundles = await by(client, "fetch_x509_bundles")
    roots = bundles.get_bundle_for_trust_domain(DOMAIN).x509_authorities
    svid.leaf.verify_directly_issued_by(next(iter(roots)))
    context = await by(client, "fetch_x509_context")
    assert str(context.default_svid.spiffe_id) == ALICE


async def test_a_source_follows_rotation(running: Running):
    def follow(socket: Path) -> tuple[Any, Any]:
        with X509Source(socket_path=f"unix://{socket}", timeout_in_seconds=WAIT_S) as source:
            first, changed = source.get_x509_context().default_svid, threading.Event()
            source.subscribe_for_updates(changed.set)
            while (now := source.get_x509_context().default_svid).leaf == first.leaf:
                assert changed.wait(WAIT_S)
                changed.clear()
            return first, now

    async with alices_node(running, certificate_ttl=SHORT_TTL_S) as started:
        following = asyncio.to_thread(follow, started.socket)
        first, second = await asyncio.wait_for(following, WAIT_S)
    assert str(second.spiffe_id) == ALICE
    assert second.private_key.public_key() == second.leaf.public_key()
    assert second.private_key.public_key() != first.private_key.public_key()


async def test_tokens_are_fetched_and_validated_by_both_sides(client: WorkloadApiClient):
    token = await by(client, "fetch_jwt_svid", {"billing", "mail"})
    assert str(token.spiffe_id) == ALICE
    bundles = await by(client, "fetch_jwt_bundles")
    bundle = bundles.get_bundle_for_trust_domain(DOMAIN)
    parsed = JwtSvid.parse_and_validate(token.token, bundle, {"billing"})
    assert str(parsed.spiffe_id) == ALICE
    ours = await by(client, "validate_jwt_svid", token.token, "mail")
    assert str(ours.spiffe_id) == ALICE
    again = await by(client, "fetch_jwt_svid", {"mail", "billing"})
    assert again.token == token.token


async def test_a_jwt_source_has_tokens_and_bundles(node: RunningNode):
    def use() -> str:
        with JwtSource(socket_path=f"unix://{node.socket}", timeout_in_seconds=WAIT_S) as source:
            token = source.fetch_svid({"billing"}, subject=SpiffeId(ALICE))
            bundle = source.get_bundle_for_trust_domain(DOMAIN)
            assert bundle is not None
            return str(JwtSvid.parse_and_validate(token.token, bundle, {"billing"}).spiffe_id)

    assert await asyncio.wait_for(asyncio.to_thread(use), WAIT_S) == ALICE


async def test_what_is_not_the_callers_or_does_not_hold_is_refused(client: WorkloadApiClient):
    with pytest.raises(FetchJwtSvidError, match="not the caller's"):
        await by(
            client, "fetch_jwt_svid", {"billing"}, SpiffeId("spiffe://cluster.local/ns/shop/sa/bob")
        )
    token = await by(client, "fetch_jwt_svid", {"billing"})
    with pytest.raises(ValidateJwtSvidError, match="another audience"):
        await by(client, "validate_jwt_svid", token.token, "mail")
    head, _, signature = token.token.rpartition(".")
    forged = f"{head}.{'A' * len(signature)}"
    with pytest.raises(ValidateJwtSvidError, match="does not verify"):
        await by(client, "validate_jwt_svid", forged, "billing")


async def test_who_is_no_workload_is_refused(running: Running):
    token = running.base / "alice.token"
    await token_for(running, "alice", token)
    another = entry("alice", token, os.geteuid() + 4242)
    async with running_node(running, [another]) as started:
        client = WorkloadApiClient(f"unix://{started.socket}")
        with pytest.raises(FetchX509SvidError, match="no identity is issued"):
            await by(client, "fetch_x509_svid")
        await asyncio.to_thread(client.close)
