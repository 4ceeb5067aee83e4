"""The status port: readiness with its reason, metrics of both, and an end asked for from this machine only."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import Gauge

from services.agent.status.routes import status_routes
from windward.rpc.http import Request
from windward.telemetry.metrics import new_registry


class FakeAdmin:
    """Envoy's own metrics, or an Envoy that is away."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def get(self, path: str) -> tuple[int, bytes]:
        assert path == "/stats/prometheus"
        if self.error is not None:
            raise self.error
        return 200, b"envoy_server_live 1\n"


class Parts:
    def __init__(self) -> None:
        self.reason = ""
        self.stopping = asyncio.Event()
        self.admin = FakeAdmin()
        admin: Any = self.admin
        registry = new_registry()
        Gauge("windward_agent_sample", "A sample", registry=registry).set(5)
        self.routes = status_routes(admin, registry, self.not_ready, self.stopping.set)

    async def not_ready(self) -> str:
        return self.reason

    async def ask(self, method: str, path: str, peer: str = "127.0.0.1") -> tuple[int, str]:
        answer = await self.routes[method, path](Request(method, path, {}, peer))
        return answer.status, answer.body.decode()


async def test_ready_says_why_not():
    parts = Parts()
    assert await parts.ask("GET", "/healthz/ready") == (200, "ready\n")
    parts.reason = "Envoy is not LIVE"
    assert await parts.ask("GET", "/healthz/ready") == (503, "Envoy is not LIVE\n")
    assert await parts.ask("GET", "/healthz/live") == (200, "ok\n")


@pytest.mark.parametrize("path", ["/metrics", "/stats/prometheus"])
async def test_metrics_are_the_agents_and_envoys(path):
    parts = Parts()
    status, text = await parts.ask("GET", path)
    assert status == 200
    assert "windward_agent_sample 5.0\n" in text
    assert text.endswith("\nenvoy_server_live 1\n")


@pytest.mark.parametrize("error", [ConnectionRefusedError(), TimeoutError()])
async def test_without_envoy_the_agents_own_metrics_remain(error):
    parts = Parts()
    parts.admin.error = error
    status, text = await parts.ask("GET", "/metrics")
    assert status == 200
    assert "windward_agent_sample 5.0\n" in text


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1"])
async def test_who_is_here_may_end_it(peer):
    parts = Parts()
    assert (await parts.ask("POST", "/quitquitquit", peer))[0] == 200
    assert parts.stopping.is_set()


@pytest.mark.parametrize("peer", ["10.0.0.9", "", "127.0.0.1.example", "fe80::1"])
async def test_nobody_else_may(peer):
    parts = Parts()
    assert (await parts.ask("POST", "/quitquitquit", peer))[0] == 403
    assert not parts.stopping.is_set()


def test_an_end_is_posted_not_fetched():
    assert ("GET", "/quitquitquit") not in Parts().routes
