"""Leaving without breaking a request: what follows one another between SIGTERM and Envoy's end, under one deadline.

    readiness says no, deregistered   peers stop choosing this workload; what still comes is served
    nothing comes any more            Envoy says so to those connected (GOAWAY, connection: close)
    no connection left, or deadline   Envoy may be ended

Source: https://www.envoyproxy.io/docs/envoy/latest/operations/admin#post--drain_listeners
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from services.agent.envoy.admin import Admin
from services.agent.settings import Settings
from windward.telemetry.logging import get_logger

log = get_logger()
POLL_S = 0.1
QUIET_S = 0.5
"""Nobody calls any more when nothing has come for so long."""
MOST_ERRORS = 5


class Drain:
    """``run`` goes through all of it once; who calls again waits for the same end. ``started`` makes readiness fail."""

    def __init__(
        self, settings: Settings, admin: Admin, deregister: Callable[[], Awaitable[bool]]
    ) -> None:
        """``deregister`` takes the workload out of everybody's endpoints; it tells whether it was in."""
        self._settings = settings
        self._admin = admin
        self._deregister = deregister
        self._task: asyncio.Task[str] | None = None
        self._uncounted = frozenset(
            {
                settings.envoy_status_port,
                settings.prometheus_port,
                settings.secure_metrics_port,
                settings.secure_merged_metrics_port,
            }
        )

    @property
    def started(self) -> bool:
        return self._task is not None

    def start(self) -> asyncio.Task[str]:
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return self._task

    async def run(self) -> None:
        """Until it is over, or abandoned."""
        await asyncio.wait({self.start()})

    def abandon(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> str:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.drain_time
        log.info("agent.draining", deadline_s=float(self._settings.drain_time))
        try:
            async with asyncio.timeout_at(deadline):
                if await self._deregister() or self._settings.proxy_type == "router":
                    await self._noticed()
                ended = await self._connections_gone()
        except TimeoutError:
            ended = "the deadline came"
        log.info("agent.drained", how=ended)
        return ended

    async def _noticed(self) -> None:
        """Serve for the notice time, and on until it is quiet; callers who never notice get half of the deadline."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        latest = began + max(self._settings.notice_time, self._settings.drain_time / 2)
        seen, since = -1, began
        while loop.time() < latest:
            await asyncio.sleep(POLL_S)
            try:
                arrived = await self._admin.arrivals()
            except (OSError, TimeoutError):
                return
            if arrived != seen:
                seen, since = arrived, loop.time()
            enough = loop.time() - began >= self._settings.notice_time
            if enough and loop.time() - since >= min(QUIET_S, self._settings.notice_time):
                return

    async def _connections_gone(self) -> str:
        """Outbound listeners of a sidecar stay: its application may still be finishing its work."""
        inbound = "inboundonly&" if self._settings.proxy_type == "sidecar" else ""
        errors = 0
        asked = False
        while errors < MOST_ERRORS:
            try:
                if not asked:
                    asked = (await self._admin.post(f"/drain_listeners?{inbound}graceful"))[
                        0
                    ] == 200
                if await self._admin.active_connections(self._uncounted) == 0:
                    return "no connection is left"
                errors = 0
            except (OSError, TimeoutError):
                errors += 1
            await asyncio.sleep(POLL_S)
        return "Envoy does not answer"
