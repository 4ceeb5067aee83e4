"""Spans: a sidecar whose ProxyConfig names a tracer sends them to its collector, and hands the trace on."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import ClientError, web

from tests.e2e.flags import with_flags
from tests.e2e.shop import Shop, until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]


async def test_spans_of_every_request_reach_the_collector_that_the_proxy_config_names(shop: Shop):
    spans: list[dict[str, Any]] = []

    async def collect(request: web.Request) -> web.Response:
        spans.extend(json.loads(await request.read()))
        return web.Response(status=202)

    app = web.Application()
    app.router.add_post("/api/v2/spans", collect)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        host = shop.mesh.plan.control_address
        site = web.TCPSite(runner, host, 0)
        await site.start()
        port = runner.addresses[0][1]
        zipkin = {"tracing": {"sampling": 100, "zipkin": {"address": f"{host}:{port}"}}}
        async with shop, with_flags(shop, "storefront-v1", "--proxy-config", json.dumps(zipkin)):

            async def came() -> bool:
                """Of one request: the storefront's own span, as a server and as a client."""
                try:
                    await shop.get("/1")
                except (ClientError, OSError, TimeoutError):
                    return False
                await asyncio.sleep(0.2)
                return {"SERVER", "CLIENT"} <= {span.get("kind") for span in spans}

            await until(came, "spans of both directions", deadline_s=30)
    finally:
        await runner.cleanup()
    assert {span["localEndpoint"]["serviceName"] for span in spans} == {"storefront-v1.bookshop"}
    called = {span["tags"]["upstream_cluster"] for span in spans if span["kind"] == "CLIENT"}
    assert any("catalog.bookshop" in name for name in called), called
