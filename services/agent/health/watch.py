"""The application's health as it changes: whichever probe Pilot last named, again and again.

Pilot's probe -> follow -> ask every period -> Verdict -> healthy, changed
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from services.agent.health.probes import ProbeFailed, ask
from services.agent.health.verdict import Verdict, timing
from windward.api.registry.v1 import registry_pb2
from windward.telemetry.logging import get_logger

log = get_logger()


class HealthWatch:
    """``healthy`` without a probe; with one, unhealthy until it has succeeded. ``run`` asks for ever."""

    def __init__(self, host: str, *, commands: bool, resumed: bool = False) -> None:
        """``host``: where the application is. ``commands``: whether probes may be commands.

        ``resumed``: the agent is another one, not the application. Then what peers hold it for stays until the first answer,
        which is asked for at once and decides alone.
        """
        self._host = host
        self._commands = commands
        self._resumed = resumed
        self._probe: registry_pb2.ReadinessProbe | None = None
        self._replaced = asyncio.Event()
        self.healthy = True
        self.problem = ""
        """Why the last question failed; empty after a success."""
        self.changed = asyncio.Event()
        """Set when ``healthy`` has changed; for its one reader to clear."""

    def follow(self, probe: registry_pb2.ReadinessProbe | None) -> None:
        """From now on this probe, or none. The same as before goes on undisturbed."""
        if probe == self._probe:
            return
        self._probe = probe
        self._replaced.set()
        self.problem = ""
        self._say(healthy=probe is None or self._resumed)

    async def run(self) -> None:
        while True:
            self._replaced.clear()
            if self._probe is None:
                await self._replaced.wait()
                continue
            asking = asyncio.create_task(self._ask_for_ever(self._probe))
            replaced = asyncio.create_task(self._replaced.wait())
            try:
                await asyncio.wait({asking, replaced}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                asking.cancel()
                replaced.cancel()
                await asyncio.gather(asking, replaced, return_exceptions=True)

    async def _ask_for_ever(self, probe: registry_pb2.ReadinessProbe) -> None:
        times, verdict = timing(probe), Verdict.of(probe)
        if not self._resumed:
            await asyncio.sleep(times.initial_delay_s)
        while True:
            try:
                await ask(
                    probe, host=self._host, timeout_s=times.timeout_s, commands=self._commands
                )
                self.problem = ""
            except ProbeFailed as failure:
                self.problem = str(failure)
            if self._resumed:
                verdict, self._resumed = replace(verdict, healthy=not self.problem), False
            else:
                verdict = verdict.after(success=not self.problem)
            self._say(healthy=verdict.healthy)
            await asyncio.sleep(times.period_s)

    def _say(self, *, healthy: bool) -> None:
        if healthy == self.healthy:
            return
        self.healthy = healthy
        self.changed.set()
        log.info("workload.health", healthy=healthy, reason=self.problem)
