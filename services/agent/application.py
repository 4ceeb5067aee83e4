"""The application of ``windward-agent run -- CMD``: a child that has stdin, stdout and stderr to itself.

It starts when the sidecar can serve and gets the signals that the agent gets; SIGTERM only after the inbound side was
drained. Its end is the agent's end, with its exit status.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from windward.process import FatalError
from windward.telemetry.logging import get_logger

log = get_logger()
FORWARDED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGCONT)
NOT_FOUND, NOT_STARTED = 127, 143
KILL_GRACE_S = 2.0


class Application:
    """``ended`` is set when it has ended; ``status`` is then the exit status to pass on, as a shell tells it."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)
        self._process: asyncio.subprocess.Process | None = None
        self.ended = asyncio.Event()
        self.status = NOT_STARTED
        """Until it was started: told to stop before."""

    async def run(self) -> None:
        """Start it and wait for its end. Raises FatalError when it cannot be started."""
        try:
            self._process = await asyncio.create_subprocess_exec(*self._command)
        except OSError as error:
            self.status = NOT_FOUND
            raise FatalError(f"{self._command[0]}: {error.strerror}") from error
        log.info("application.started", pid=self._process.pid)
        loop = asyncio.get_running_loop()
        for number in FORWARDED:
            loop.add_signal_handler(number, self._forward, number)
        code = await self._process.wait()
        for number in FORWARDED:
            loop.remove_signal_handler(number)
        self.status = code if code >= 0 else 128 - code
        log.info("application.ended", status=self.status)
        self.ended.set()

    def _forward(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            if self._process is not None:
                self._process.send_signal(number)

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL for what has not gone after the grace."""
        if self._process is None or self.ended.is_set():
            return
        self._forward(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.ended.wait(), max(grace_s, KILL_GRACE_S))
        except TimeoutError:
            log.warning("application.killed", after_s=round(grace_s, 1))
            self._forward(signal.SIGKILL)
            await self.ended.wait()


def split_command(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(agent's flags, application's command) around ``--``; the command is empty without one."""
    words = list(argv)
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


def no_command() -> int:
    sys.stderr.write(
        "windward-agent run: what to run is missing: windward-agent run [flags] -- CMD\n"
    )
    return 2
