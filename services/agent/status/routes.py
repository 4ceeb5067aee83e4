"""The status port: can it serve, does it live, what do all here count; drain and end, for this machine only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from windward.rpc.http import Handler, Request, Response, Routes


def status_routes(
    *,
    not_ready: Callable[[], Awaitable[str]],
    metrics: Handler,
    drain: Callable[[], None],
    end: Callable[[], None],
) -> Routes:
    """``drain`` begins to drain and leaves the process running; ``end`` ends it at once."""

    async def ready(_: Request) -> Response:
        reason = await not_ready()
        return Response(503, reason.encode() + b"\n") if reason else Response(200, b"ready\n")

    async def live(_: Request) -> Response:
        return Response(200, b"ok\n")

    def from_here(act: Callable[[], None]) -> Handler:
        async def answer(request: Request) -> Response:
            if not request.local:
                return Response(403, b"from this machine only\n")
            act()
            return Response(200, b"OK\n")

        return answer

    return {
        ("GET", "/healthz/ready"): ready,
        ("GET", "/healthz/live"): live,
        ("GET", "/metrics"): metrics,
        ("GET", "/stats/prometheus"): metrics,
        ("POST", "/quitquitquit"): from_here(end),
        ("POST", "/drain"): from_here(drain),
    }
