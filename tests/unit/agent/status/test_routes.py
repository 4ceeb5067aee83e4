"""The status port: readiness with its reason, and drain and end asked for from this machine only."""

from __future__ import annotations

from typing import Any

import pytest

from services.agent.status.routes import status_routes
from windward.rpc.http import Request, Response, serve_http


class Parts:
    def __init__(self) -> None:
        self.reason = ""
        self.done: list[str] = []
        self.routes = status_routes(
            not_ready=self.not_ready,
            metrics=self.metrics,
            drain=lambda: self.done.append("drain"),
            end=lambda: self.done.append("end"),
        )

    async def not_ready(self) -> str:
        return self.reason

    async def metrics(self, _: Request) -> Response:
        return Response(200, b"up 1\n")

    async def ask(self, method: str, path: str, peer: str = "10.0.0.9") -> Response:
        return await self.routes[method, path](Request(method, path, {}, peer))


@pytest.fixture
def parts() -> Parts:
    return Parts()


async def test_ready_or_why_not(parts):
    assert (await parts.ask("GET", "/healthz/ready")).status == 200
    parts.reason = "Envoy has not received its clusters"
    response = await parts.ask("GET", "/healthz/ready")
    assert (response.status, response.body) == (503, b"Envoy has not received its clusters\n")
    assert (await parts.ask("GET", "/healthz/live")).status == 200


@pytest.mark.parametrize("path", ["/metrics", "/stats/prometheus"])
async def test_metrics_have_both_names(parts, path):
    assert (await parts.ask("GET", path)).body == b"up 1\n"


@pytest.mark.parametrize(("path", "done"), [("/quitquitquit", "end"), ("/drain", "drain")])
@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
async def test_this_machine_may_end_and_drain(parts, path, done, peer):
    assert (await parts.ask("POST", path, peer)).status == 200
    assert parts.done == [done]


@pytest.mark.parametrize("path", ["/quitquitquit", "/drain"])
@pytest.mark.parametrize("peer", ["10.0.0.9", "", "127.0.0.6", "::2"])
async def test_others_may_not(parts, path, peer):
    assert (await parts.ask("POST", path, peer)).status == 403
    assert parts.done == []


@pytest.mark.parametrize("path", ["/quitquitquit", "/drain"])
async def test_it_must_be_a_post(parts: Parts, path: str):
    from services.agent.asking.http import get

    server = await serve_http("127.0.0.1", 0, parts.routes)
    port: Any = server.sockets[0].getsockname()[1]
    async with server:
        answer = await get("127.0.0.1", port, path, {}, timeout_s=2, limit_bytes=100)
    assert answer.status == 405
    assert parts.done == []
