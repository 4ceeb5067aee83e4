"""The socket that workloads connect to: each connection is attested, then spliced to the server of its identity.

    accept -> Peer (kernel) -> decide -> private socket of that identity, or of nobody -> splice until either end closes,
              the process that connected ends, or it is another program than it was

Everything is bounded: connections in all, of a user, of a process; those without an identity have a smaller share.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client import Counter as Metric

from services.agent.workload_api.peer import Peer, UnattestedError, boot_time_s
from services.agent.workload_api.splice import splice
from windward.process import FatalError
from windward.telemetry.logging import get_logger

log = get_logger()
BACKLOG = 128
PATH_LIMIT_BYTES = 107


@dataclass(frozen=True, slots=True)
class Limits:
    """Connections at one time. Each costs four file descriptors: an end of the workload's socket, both of the private
    one, and a pidfd.
    """

    all: int = 128
    of_user: int = 128
    of_process: int = 16
    without_identity: int = 16
    without_identity_of_user: int = 4


OF_NODE = Limits(1024, 256, 16, 64, 8)
DESCRIPTORS_OF_NODE = 8192


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a peer's bytes go."""

    private: str
    """Path of the identity's own socket."""
    known: bool
    """False for those whose calls are all refused."""


Decide = Callable[[Peer], Destination]


class Acceptor:
    def __init__(
        self, path: Path, decide: Decide, registry: CollectorRegistry, limits: Limits | None = None
    ) -> None:
        self._path = path
        self._decide = decide
        self._limits = limits or Limits()
        self._open: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: set[int] = set()
        self._empty_at_s = 0.0
        """When nobody was waiting to be accepted: who is accepted next connected later."""
        self._connections = Metric(
            "windward_agent_workload_api_connections",
            "Connections to the Workload API's socket, by what was decided: known, unknown, unattested, over_limit",
            ["decision"],
            registry=registry,
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Accept while the block lasts. Raises FatalError for a path that cannot be listened on."""
        listening = _listen(self._path)
        self._empty_at_s = boot_time_s()
        try:
            async with asyncio.TaskGroup() as group:
                accepting = group.create_task(self._accept(listening, group))
                try:
                    yield
                finally:
                    accepting.cancel()
                    for task in tuple(self._tasks):
                        task.cancel()
        finally:
            listening.close()
            self._path.unlink(missing_ok=True)

    async def _accept(self, listening: socket.socket, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = listening.accept()
            except BlockingIOError:
                self._empty_at_s = boot_time_s()
                await _readable(loop, listening)
                continue
            except OSError as error:  # out of file descriptors, most likely: others will be closed
                log.warning("workload_api.not_accepted", reason=str(error))
                await asyncio.sleep(0.1)
                continue
            task = group.create_task(self._serve(connection, self._empty_at_s))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket, began_before_s: float) -> None:
        connection.setblocking(False)
        try:
            peer = Peer.of(connection, began_before_s)
        except (UnattestedError, OSError) as error:
            connection.close()
            self._connections.labels("unattested").inc()
            log.debug("workload_api.unattested", reason=str(error))
            return
        try:
            await self._serve_peer(connection, peer)
        finally:
            peer.close()

    async def _serve_peer(self, connection: socket.socket, peer: Peer) -> None:
        destination = self._decide(peer)
        self._tell(peer, destination)
        counted = self._counted(peer, destination)
        if not self._within(counted):
            self._connections.labels("over_limit").inc()
            connection.close()
            return
        self._connections.labels("known" if destination.known else "unknown").inc()
        self._open.update(counted.keys())
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(peer.pidfd, ended.set)
        try:
            await splice(
                connection,
                destination.private,
                lambda: peer.alive and self._decide(peer) == destination,
                ended,
            )
        except (OSError, TimeoutError) as error:
            log.warning("workload_api.connection_failed", reason=str(error))
        finally:
            loop.remove_reader(peer.pidfd)
            self._open.subtract(counted.keys())
            self._open += Counter()  # drops what is at zero

    def _counted(self, peer: Peer, destination: Destination) -> dict[str, int]:
        """What a connection counts for -> how many of it may be open at one time."""
        limits = self._limits
        counted: dict[str, int] = {
            "all": limits.all,
            f"uid {peer.uid}": limits.of_user,
        }
        if peer.pid:
            counted[f"pid {peer.pid}"] = limits.of_process
        if not destination.known:
            counted["unknown"] = limits.without_identity
            counted[f"unknown uid {peer.uid}"] = limits.without_identity_of_user
        return counted

    def _within(self, counted: dict[str, int]) -> bool:
        return all(self._open[name] < limit for name, limit in counted.items())

    def _tell(self, peer: Peer, destination: Destination) -> None:
        """Of users without an identity, once each: they might fill the log."""
        if destination.known or peer.uid in self._told or len(self._told) >= self._limits.all:
            return
        self._told.add(peer.uid)
        log.warning("workload_api.no_identity", uid=peer.uid, gid=peer.gid, pid=peer.pid)


async def _readable(loop: asyncio.AbstractEventLoop, listening: socket.socket) -> None:
    ready = asyncio.Event()
    loop.add_reader(listening, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(listening)


def _listen(path: Path) -> socket.socket:
    """A listening socket that every user may connect to: who they are is asked then."""
    if len(os.fsencode(path)) > PATH_LIMIT_BYTES:
        raise FatalError(f"{path}: a unix socket's path has at most {PATH_LIMIT_BYTES} bytes")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if path.is_socket():
            _check_unused(path)
            path.unlink()
        listening.bind(os.fspath(path))
        path.chmod(0o666)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise FatalError(f"--workload-api-socket {path}: {error.strerror}") from error
    except FatalError:
        listening.close()
        raise
    return listening


def _check_unused(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return
    raise FatalError(
        f"--workload-api-socket {path}: another process serves there; choose another path"
    )
