"""A process of the local mesh: started, watched, started again when it dies, stopped in good order.

    STARTING -> RUNNING -> (died: RESTARTING -> RUNNING ...) -> STOPPED

Children run in a session of their own, so that a Ctrl-C reaches the mesh alone and it can stop them in order; the
kernel kills them should the mesh itself be killed (PR_SET_PDEATHSIG, by ``setpriv``).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from windward.local.errors import LocalMeshError

FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 5.0
STEADY_S = 10.0
"""A process that ran this long has earned its first back-off again."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    namespace: str | None = None
    group: int | None = None
    """Numeric gid to run under."""
    directory: Path | None = None

    def argv(self) -> tuple[str, ...]:
        """The command with everything that must happen between fork and exec in front of it."""
        drop = ("--regid", str(self.group), "--clear-groups") if self.group is not None else ()
        setpriv = shutil.which("setpriv")
        guarded = (
            (setpriv, "--pdeathsig", "KILL", *drop, *self.command) if setpriv else self.command
        )
        if self.namespace is None:
            return guarded
        return ("ip", "netns", "exec", self.namespace, *guarded)


class Child:
    """One supervised process. ``kill`` is for tests: the supervisor brings the process back."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.restarts = 0
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._held = asyncio.Event()
        self._held.set()

    @property
    def pid(self) -> int | None:
        """Of the running process; None while there is none."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else None

    def _told_to_stop(self) -> bool:
        return self._stopping

    async def start(self) -> None:
        await self._spawn()
        self._task = asyncio.create_task(self._watch(), name=f"watch {self.spec.name}")

    async def stop(self, grace_s: float = 10.0) -> None:
        """SIGTERM, then SIGKILL once the grace is over."""
        self._stopping = True
        self._held.set()
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), grace_s)
            except TimeoutError:
                with suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def kill(self, *, keep_down: bool = False) -> None:
        """SIGKILL, as a crash would; with ``keep_down`` it stays dead until ``revive``."""
        if keep_down:
            self._held.clear()
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)

    def revive(self) -> None:
        self._held.set()

    def last_words(self, lines: int = 3) -> str:
        """The end of its log, for error messages."""
        try:
            text = self.spec.log.read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.strip().splitlines()[-lines:])

    async def _spawn(self) -> None:
        environment = {**os.environ, **self.spec.environment}
        try:
            with self.spec.log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *self.spec.argv(),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    cwd=self.spec.directory,
                    start_new_session=True,
                )
        except OSError as error:
            raise LocalMeshError(f"{self.spec.name} cannot be started: {error}") from error

    async def _watch(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        while True:
            assert self._process is not None
            began = monotonic()
            await self._process.wait()
            if self._told_to_stop():
                return
            if monotonic() - began > STEADY_S:
                backoff_s = FIRST_BACKOFF_S
            await self._held.wait()
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)
            if self._told_to_stop():
                return
            self.restarts += 1
            with suppress(LocalMeshError):
                await self._spawn()
