"""``--workers N``: N whole Pilots on the same ports, started, watched and ended by this process, which does nothing else.

    worker 0 ─► has a certificate, listens ─► its ports are everybody's ─► workers 1 .. N-1
    one dies ─► started again, ever later;  SIGTERM ─► all drain;  this process dies ─► their stdin ends, they drain

The kernel spreads connections over the processes (SO_REUSEPORT, socket(7)). What one of them is asked about all of them it
asks the others, by unix sockets in a folder that only this user may enter (siblings.py).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from time import monotonic

import msgspec

from services.pilot.settings import Settings
from windward.process import FatalError, Lifecycle
from windward.settings import as_flags
from windward.telemetry.logging import get_logger

log = get_logger()
PREFIX = "WINDWARD_PILOT_"
FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 5.0
STEADY_S = 10.0
"""A worker that ran this long has earned its first back-off again."""
GRACE_S = 20.0
LOOK_S = 0.05
ADDRESSES = ("mtls", "tls", "plaintext", "metrics")
"""Ports by name, as ports files have them."""


class Workers:
    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._stopping = False
        self._ports: dict[str, int] = {}
        self._processes: dict[int, asyncio.subprocess.Process] = {}

    async def run(self, lifecycle: Lifecycle) -> None:
        """Until told to stop, and all have ended. Raises FatalError when the first one cannot start."""
        for name in ADDRESSES:
            check_free(getattr(self._settings, f"{name}_address"), f"--{name}-address")
        async with asyncio.TaskGroup() as group:
            stop = group.create_task(self._stop(lifecycle))
            try:
                await self._keep_first(group)
                if not self._told_to_stop():
                    for number in range(1, self._settings.workers):
                        group.create_task(self._keep(number))
                    await self._listening(range(1, self._settings.workers))
                if not self._told_to_stop():
                    lifecycle.listening(**self._ports)
                    log.info("workers.listening", workers=self._settings.workers, **self._ports)
            except FatalError:
                stop.cancel()
                raise

    def _told_to_stop(self) -> bool:
        return self._stopping

    async def _keep_first(self, group: asyncio.TaskGroup) -> None:
        """The first worker's ports, those that were asked for as 0 among them, become the others'."""
        first = await self._spawn(0)
        keeping = group.create_task(self._keep(0, first))
        while not self._told_to_stop() and not self._ports_file(0).exists():
            if first.returncode is not None:
                self._stopping = True
                await keeping
                raise FatalError(
                    f"--workers: the first one ended with status {first.returncode}; see what it said"
                )
            await asyncio.sleep(LOOK_S)
        if not self._told_to_stop():
            self._ports = msgspec.json.decode(self._ports_file(0).read_bytes())

    async def _listening(self, numbers: range) -> None:
        while not self._told_to_stop() and not all(self._ports_file(n).exists() for n in numbers):
            await asyncio.sleep(LOOK_S)

    async def _stop(self, lifecycle: Lifecycle) -> None:
        await lifecycle.stopping.wait()
        self._stopping = True
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(GRACE_S):
                await asyncio.gather(*(process.wait() for process in self._processes.values()))
        except TimeoutError:
            for process in self._processes.values():
                with suppress(ProcessLookupError):
                    process.kill()

    async def _keep(self, number: int, process: asyncio.subprocess.Process | None = None) -> None:
        """Run one for ever: when it ends, start it again, ever later."""
        backoff_s = FIRST_BACKOFF_S
        while not self._told_to_stop():
            began = monotonic()
            process = process or await self._spawn(number)
            status = await process.wait()
            process = None
            if self._told_to_stop():
                return
            log.error("workers.died", worker=number, status=status, again_in_s=backoff_s)
            if monotonic() - began > STEADY_S:
                backoff_s = FIRST_BACKOFF_S
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)

    async def _spawn(self, number: int) -> asyncio.subprocess.Process:
        changes: dict[str, object] = {
            "workers": 1,
            "worker": f"{self._folder}:{number}",
            "ports_file": str(self._ports_file(number)),
        }
        for name, port in self._ports.items():
            address = getattr(self._settings, f"{name}_address")
            changes[f"{name}_address"] = f"{address.rpartition(':')[0]}:{port}"
        if number:
            changes["state_dir"] = str(self._state_dir(number))
        made = msgspec.structs.replace(self._settings, **changes)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.pilot.main",
            *as_flags(made),
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self._processes[number] = process
        if self._told_to_stop():
            process.terminate()
        return process

    def _state_dir(self, number: int) -> Path:
        """A folder of its own, with the certificate of the first: a join token may be good for one only."""
        theirs, mine = Path(self._settings.state_dir), self._folder / f"state-{number}"
        mine.mkdir(mode=0o700, exist_ok=True)
        for file in theirs.iterdir():
            if file.is_file():
                shutil.copy2(file, mine / file.name)
        return mine

    def _ports_file(self, number: int) -> Path:
        return self._folder / f"{number}.ports"


async def serve_workers(settings: Settings, lifecycle: Lifecycle) -> None:
    folder = Path(tempfile.mkdtemp(prefix="windward-pilot-"))
    try:
        await Workers(settings, folder).run(lifecycle)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_free(address: str, setting: str) -> None:
    """Raises FatalError for a port that somebody has: workers share theirs, and would share it with him too."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or port == "0":
        return
    try:
        found = socket.getaddrinfo(host.strip("[]") or None, int(port), type=socket.SOCK_STREAM)
        family, kind, protocol, _, place = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except (OSError, OverflowError) as error:
        raise FatalError(f"{setting} {address}: {error}") from error


def end_with_stdin(lifecycle: Lifecycle) -> None:
    """A worker whose supervisor is gone drains as if it were told to."""
    loop = asyncio.get_running_loop()

    def ended() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            lifecycle.stopping.set()

    loop.add_reader(0, ended)
