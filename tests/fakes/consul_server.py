"""Consul's HTTP API as far as a registry reads it: the catalog, health by service, blocking queries, restarts, failures."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from windward.local.addresses import free_port


@dataclass
class FakeConsul:
    """``services``: name -> instances as (address, port, status, service fields)."""

    services: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    index: int = 10
    status: dict[str, int] = field(default_factory=dict)
    """Path prefix -> status to answer with instead."""
    bodies: dict[str, bytes] = field(default_factory=dict)
    """Path prefix -> body to answer with instead."""
    sends_index: bool = True
    token: str = ""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        self._changed = asyncio.Event()
        self.port = free_port("127.0.0.1")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/v1/catalog/services", self._catalog)
        app.router.add_get("/v1/health/service/{name}", self._health)
        self._runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        await self._runner.cleanup()

    def put(self, name: str, *instances: dict[str, Any]) -> None:
        self.services[name] = list(instances)
        self.moved()

    def remove(self, name: str) -> None:
        del self.services[name]
        self.moved()

    def moved(self, index: int = 0) -> None:
        """Something changed; questions that wait are answered."""
        self.index = index or self.index + 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _answer(self, request: web.Request, body: Any) -> web.Response:
        self.requests.append((request.path, dict(request.query)))
        if self.token and request.headers.get("X-Consul-Token") != self.token:
            return web.Response(status=403, text="Permission denied")
        for prefix, status in self.status.items():
            if request.path.startswith(prefix):
                return web.Response(status=status, text="rpc error")
        if request.query.get("index") == str(self.index):
            wait_s = float(request.query["wait"].removesuffix("s"))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait_s)
        headers = {"X-Consul-Index": str(self.index)} if self.sends_index else {}
        for prefix, instead in self.bodies.items():
            if request.path.startswith(prefix):
                return web.Response(body=instead, headers=headers)
        return web.json_response(body(), headers=headers)

    async def _catalog(self, request: web.Request) -> web.Response:
        return await self._answer(request, lambda: {name: [] for name in self.services})

    async def _health(self, request: web.Request) -> web.Response:
        def body() -> list[dict[str, Any]]:
            found = self.services.get(request.match_info["name"], [])
            if "passing" in request.query:
                found = [item for item in found if item["Checks"][0]["Status"] == "passing"]
            return found

        return await self._answer(request, body)


def instance(
    address: str = "10.0.0.1", port: int = 8080, *, status: str = "passing", **service: Any
) -> dict[str, Any]:
    return {
        "Node": {"Node": "n1", "Address": "10.9.9.9", "Datacenter": "dc1"},
        "Service": {"ID": "x", "Service": "web", "Address": address, "Port": port, **service},
        "Checks": [{"Node": "n1", "CheckID": "c", "Status": status}],
    }
