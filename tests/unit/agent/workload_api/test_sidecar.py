"""Beside one workload: its identity for the users that were named, and for nobody else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from spiffe import WorkloadApiClient
from spiffe.workloadapi.errors import FetchX509SvidError

from services.agent.workload_api.sidecar import workload_api
from services.citadel.authn import tokens
from tests.unit.agent.settings import settings
from tests.unit.citadel.running import Running, citadel
from windward.client.certificates import CertificateKeeper
from windward.identity.spiffe_id import workload_id
from windward.process import FatalError
from windward.store.memory import MemoryStore

ALICE = workload_id("cluster.local", "shop", "alice")
WAIT_S = 30.0


@pytest.fixture
async def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", "")
    async with citadel(tmp_path, MemoryStore(), monkeypatch) as started:
        yield started


@pytest.fixture
async def keeper(running: Running) -> CertificateKeeper:
    token = await tokens.create(running.store, ALICE, 600, 1)
    made = CertificateKeeper(running.enrolment(ALICE, token.secret))
    await made.first()
    return made


@asynccontextmanager
async def served(running: Running, keeper: CertificateKeeper, **over: Any) -> AsyncIterator[Path]:
    socket = running.base / "api.sock"
    chosen = {"workload_api_socket": f"unix://{socket}", **over}
    made = settings(citadel_mtls_address=running.address("mtls"), **chosen)
    async with workload_api(made, keeper, CollectorRegistry(), running.base / "private"):
        yield socket


async def fetched() -> tuple[str, str]:
    """As an application would that the agent started: the environment says where."""
    client = WorkloadApiClient()
    try:
        svid = await asyncio.to_thread(client.fetch_x509_svid, WAIT_S)
        token = await asyncio.to_thread(client.fetch_jwt_svid, {"bob"}, None, WAIT_S)
        return str(svid.spiffe_id), str(token.spiffe_id)
    finally:
        await asyncio.to_thread(client.close)


async def test_the_agents_own_user_is_the_workload(running: Running, keeper: CertificateKeeper):
    async with served(running, keeper):
        assert await fetched() == (str(ALICE), str(ALICE))


async def test_named_users_are_the_workload_and_no_others(
    running: Running, keeper: CertificateKeeper
):
    async with served(running, keeper, workload_api_uids=(os.geteuid() + 1, os.geteuid())):
        assert await fetched() == (str(ALICE), str(ALICE))
    async with served(running, keeper, workload_api_uids=(os.geteuid() + 1,)):
        with pytest.raises(FetchX509SvidError, match="no identity"):
            await fetched()


async def test_without_a_socket_nothing_is_served(running: Running, keeper: CertificateKeeper):
    async with served(running, keeper, workload_api_socket=""):
        assert not (running.base / "private").exists()
        assert not os.environ["SPIFFE_ENDPOINT_SOCKET"]


async def test_the_socket_has_an_absolute_path(running: Running, keeper: CertificateKeeper):
    with pytest.raises(FatalError, match="must be an absolute path"):
        async with served(running, keeper, workload_api_socket="api.sock"):
            pass
