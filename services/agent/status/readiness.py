"""Readiness that means "can serve": what has once been true of an Envoy stays so, what may change is asked each time."""

from __future__ import annotations

from collections.abc import Callable

from services.agent.envoy.admin import NO_ANSWER, Admin


class Readiness:
    """``problem`` says why the sidecar cannot serve; empty when it can.

    CDS and LDS accepted and workers started are facts of one Envoy process (``pid``): known once, they are not asked
    again, so that a later refused update does not take the workload out. LIVE is asked each time.
    """

    def __init__(self, admin: Admin, pid: Callable[[], int | None]) -> None:
        self._admin = admin
        self._pid = pid
        self._configured: int | None = None

    async def problem(self) -> str:
        pid = self._pid()
        if pid is None:
            return "Envoy is not running"
        try:
            state = await self._admin.state()
        except (OSError, TimeoutError):
            return NO_ANSWER
        if self._configured == pid:
            return "" if state.live else "Envoy is not LIVE"
        if state.problem:
            return state.problem
        self._configured = pid
        return ""
