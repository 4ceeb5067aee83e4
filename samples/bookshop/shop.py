"""What the Bookshop's services have in common: a JSON answer, trace headers carried on, and a way to misbehave.

    GET  /...                 the service's answer
    GET  /health              200
    POST /behave?delay_ms=N&status=N&for=N    from now on: be slow, or fail; ``for`` requests only (default: for ever)

A service listens on BOOKSHOP_HOST:BOOKSHOP_PORT. In a mesh without interception the proxy is named by ``http_proxy``,
as for any program.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import ClientSession, ClientTimeout, web

TRACE_HEADERS = (
    "x-request-id",
    "traceparent",
    "tracestate",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "b3",
)
CARRIED_HEADERS = (*TRACE_HEADERS, "end-user")
"""``end-user`` is the shop's own: who is logged in."""

Answer = dict[str, object]
Handler = Callable[[web.Request], Awaitable[web.Response]]


@dataclass
class Behaviour:
    """How this instance behaves; set over POST /behave."""

    delay_s: float = 0.0
    status: int = 0
    left: int = -1
    """Requests this still applies to; -1: all."""

    async def act(self) -> web.Response | None:
        """Wait, if told to be slow; a response, if told to fail."""
        if self.left == 0:
            return None
        self.left -= self.left > 0
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.status:
            return web.json_response({"error": "told to fail"}, status=self.status)
        return None


class Downstream:
    """Calls another service by its name and carries the trace on."""

    def __init__(self) -> None:
        self.session: ClientSession | None = None

    async def get(self, request: web.Request, url: str) -> tuple[int, Answer | None]:
        """Status and answer of another service; (0, None) when it cannot be reached at all."""
        if self.session is None:
            self.session = ClientSession(timeout=ClientTimeout(total=10), trust_env=True)
        headers = {
            name: request.headers[name] for name in CARRIED_HEADERS if name in request.headers
        }
        try:
            async with self.session.get(url, headers=headers) as response:
                if response.status != 200:
                    return response.status, None
                return 200, await response.json()
        except (OSError, TimeoutError, ValueError):
            return 0, None

    async def close(self) -> None:
        if self.session is not None:
            await self.session.close()


def identity() -> Answer:
    return {
        "service": os.environ["BOOKSHOP_SERVICE"],
        "version": os.environ.get("BOOKSHOP_VERSION", "v1"),
    }


def run(path: str, answer: Callable[[web.Request, Downstream], Awaitable[Answer]]) -> None:
    """Serve one service until SIGTERM."""
    asyncio.run(serve(path, answer))


async def serve(path: str, answer: Callable[[web.Request, Downstream], Awaitable[Answer]]) -> None:
    behaviour, downstream = Behaviour(), Downstream()

    async def handle(request: web.Request) -> web.Response:
        refusal = await behaviour.act()
        if refusal is not None:
            return refusal
        body = await answer(request, downstream)
        peer = request.headers.get("x-forwarded-client-cert", "")
        seen = {"client_cert": peer, "client_address": request.remote}
        return web.json_response({**identity(), **body, **seen})

    async def behave(request: web.Request) -> web.Response:
        query = request.query
        behaviour.delay_s = float(query.get("delay_ms", "0")) / 1000
        behaviour.status = int(query.get("status", "0"))
        behaviour.left = int(query.get("for", "-1"))
        return web.json_response({"delay_s": behaviour.delay_s, "status": behaviour.status})

    async def health(_: web.Request) -> web.Response:
        return web.json_response(identity())

    app = web.Application()
    app.add_routes([web.get("/health", health), web.post("/behave", behave), web.get(path, handle)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    host, port = os.environ.get("BOOKSHOP_HOST", "0.0.0.0"), int(os.environ["BOOKSHOP_PORT"])
    await web.TCPSite(runner, host, port).start()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await stopping.wait()
    await runner.cleanup()
    await downstream.close()
