"""The status port: can it serve, does it live, what does it count; and drain, from this machine only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from services.agent.envoy.admin import Admin
from windward.rpc.http import Request, Response, Routes


def status_routes(
    admin: Admin,
    registry: CollectorRegistry,
    not_ready: Callable[[], Awaitable[str]],
    stop: Callable[[], None],
) -> Routes:
    async def ready(_: Request) -> Response:
        reason = await not_ready()
        return Response(503, reason.encode() + b"\n") if reason else Response(200, b"ready\n")

    async def live(_: Request) -> Response:
        return Response(200, b"ok\n")

    async def metrics(_: Request) -> Response:
        """Envoy's and the agent's own, one after the other."""
        own = generate_latest(registry)
        try:
            envoy = (await admin.get("/stats/prometheus"))[1]
        except (OSError, TimeoutError):
            envoy = b""
        return Response(200, own + envoy, CONTENT_TYPE_LATEST)

    async def quit_(request: Request) -> Response:
        if request.peer not in {"127.0.0.1", "::1"}:
            return Response(403, b"from this machine only\n")
        stop()
        return Response(200, b"stopping\n")

    return {
        ("GET", "/healthz/ready"): ready,
        ("GET", "/healthz/live"): live,
        ("GET", "/metrics"): metrics,
        ("GET", "/stats/prometheus"): metrics,
        ("POST", "/quitquitquit"): quit_,
    }
