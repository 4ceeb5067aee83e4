"""A dead endpoint costs nobody a request as long as another one lives: the retries of every route, in a real Envoy."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web
from google.protobuf.json_format import MessageToDict

from services.agent.envoy.process import find_envoy
from services.pilot.envoy.route import retry_policy

HOST, ALIVE, DEAD = "127.94.0.1", "127.94.0.2", "127.94.0.3"
PORT = 8080
BUSY, REQUESTS = 8, 200


def bootstrap() -> dict[str, Any]:
    """A listener to a cluster of two, picked by least requests as it is when nothing is said."""
    policy = retry_policy(None)
    assert policy is not None
    to = {
        "cluster": "two",
        "timeout": "0s",
        "retry_policy": MessageToDict(policy, preserving_proto_field_name=True),
    }
    hosts = [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": to}]}]
    router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    connection = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    manager = {
        "@type": connection,
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": hosts},
        "http_filters": [{"name": "router", "typed_config": {"@type": router}}],
    }
    endpoints = [{"endpoint": {"address": address(host)}} for host in (ALIVE, DEAD)]
    cluster = {
        "name": "two",
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [{"max_retries": BUSY + 1}]},
        "load_assignment": {"cluster_name": "two", "endpoints": [{"lb_endpoints": endpoints}]},
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    listener = {"name": "in", "address": address(HOST), "filter_chains": [chain]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def address(host: str) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": PORT}}


@asynccontextmanager
async def envoy(folder: Path) -> AsyncIterator[None]:
    with (folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen(
            [
                find_envoy(""),
                *("--config-yaml", json.dumps(bootstrap())),
                *("--concurrency", "1", "-l", "warning", "--disable-hot-restart"),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 20)


@asynccontextmanager
async def upstream(release: asyncio.Event) -> AsyncIterator[Counter[str]]:
    """The one that lives; how many requests to each path it was sent. Those to /held wait."""
    seen: Counter[str] = Counter()

    async def handle(request: web.Request) -> web.Response:
        seen[request.path] += 1
        if request.path == "/held":
            await release.wait()
        return web.Response(text="here")

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, ALIVE, PORT).start()
    try:
        yield seen
    finally:
        release.set()
        await runner.cleanup()


async def test_no_request_fails_while_one_of_two_is_dead_and_the_other_busy(tmp_path):
    """Least-request prefers the dead one, which has nothing to do; a retry must find the other all the same."""
    release = asyncio.Event()

    async def status(session: ClientSession, path: str) -> int:
        async with session.get(f"http://{HOST}:{PORT}{path}") as answer:
            await answer.read()
            return answer.status

    async with (
        upstream(release) as seen,
        envoy(tmp_path),
        ClientSession(connector=TCPConnector(limit=0), timeout=ClientTimeout(30)) as session,
    ):
        async with asyncio.timeout(20):
            while True:
                try:
                    await status(session, "/first")
                    break
                except OSError:
                    await asyncio.sleep(0.05)
        held = [asyncio.create_task(status(session, "/held")) for _ in range(BUSY)]
        async with asyncio.timeout(20):
            while seen["/held"] < BUSY:
                await asyncio.sleep(0.01)
        answered = Counter([await status(session, "/") for _ in range(REQUESTS)])
        release.set()
        assert await asyncio.gather(*held) == [200] * BUSY
    assert answered == {200: REQUESTS}
