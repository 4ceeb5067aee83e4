"""Who is at the other end of a unix socket: what the kernel says, never what the peer says.

    SO_PEERCRED (uid, gid, pid at connect) ─┐
    SO_PEERPIDFD, or pidfd_open + start time ┴─> Peer ── program(), cgroup() from /proc while the process lives

A pid alone proves nothing: its process may end and another get the number. A pidfd names one process for ever, so what
/proc/PID says counts only if that process still lived after it was read. Linux has SO_PEERPIDFD since 6.5; before, a
pidfd is opened by number and believed only if the process began before the connection can have been made.
Source: unix(7), pidfd_open(2), proc(5).
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path

SO_PEERPIDFD = 77
_CREDENTIALS = struct.Struct("3i")
PROC = Path("/proc")


class UnattestedError(Exception):
    """Nothing sure can be said of this peer; says why."""


@dataclass(frozen=True, slots=True)
class Program:
    """An executable: its path, and which file that was when it was started."""

    path: str
    device: int
    inode: int


class Peer:
    """One connection's peer; holds a pidfd until it is closed.

    ``pid`` is 0 for a process of another pid namespace (a container beside this one): then its user is all that is known.
    """

    def __init__(self, pid: int, uid: int, gid: int, pidfd: int) -> None:
        self.pid, self.uid, self.gid = pid, uid, gid
        self.pidfd = pidfd

    @classmethod
    def of(cls, connection: socket.socket, began_before_s: float) -> Peer:
        """Raises UnattestedError. ``began_before_s``: CLOCK_BOOTTIME before the connection can have been made."""
        size = _CREDENTIALS.size
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        pid, uid, gid = _CREDENTIALS.unpack(raw)
        if uid in {-1, _overflow_uid()}:
            raise UnattestedError("the peer's user is not one of this user namespace")
        peer = cls(pid, uid, gid, _pidfd(connection, pid, began_before_s))
        if not peer.alive:
            peer.close()
            raise UnattestedError("the peer has ended")
        return peer

    @property
    def alive(self) -> bool:
        """Whether the process that connected still runs: until then, its pid is nobody else's."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return not poll.poll(0)

    def program(self) -> Program | None:
        """What it runs now; None where that cannot be said: no right to ask, the process gone.

        The path of a deleted file ends with `` (deleted)``; its inode is nobody else's while it runs.
        """
        link = PROC / str(self.pid) / "exe"
        try:
            path, status = str(link.readlink()), link.stat()
        except OSError:
            return None
        if not self.alive:
            return None
        return Program(path, status.st_dev, status.st_ino)

    def cgroup(self) -> str | None:
        """Its place in the unified cgroup hierarchy, as ``/system.slice/a.service``; None where that cannot be said."""
        try:
            lines = (PROC / str(self.pid) / "cgroup").read_text().splitlines()
        except (OSError, UnicodeDecodeError):
            return None
        found = [line[3:] for line in lines if line.startswith("0::/")]
        return found[0] if found and self.alive else None

    def close(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def boot_time_s() -> float:
    """The clock in which the kernel says when a process began."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _pidfd(connection: socket.socket, pid: int, began_before_s: float) -> int:
    try:
        return connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError:
        pass  # an older kernel, or the process is gone: the number decides, or nobody does
    if pid <= 0:
        raise UnattestedError("the peer is in a pid namespace that is not visible from here")
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        raise UnattestedError("the peer has ended") from error
    try:
        began_s = _began_s(pid)
    except (OSError, ValueError, IndexError) as error:
        os.close(pidfd)
        raise UnattestedError("the peer has ended") from error
    if began_s >= began_before_s:
        os.close(pidfd)
        raise UnattestedError(
            "the peer's pid may have been given to another process since it connected"
        )
    return pidfd


def _began_s(pid: int) -> float:
    """When a process began: field 22 of stat; the name before may hold spaces and brackets. Rounded up to a tick."""
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[19]) + 1) / os.sysconf("SC_CLK_TCK")


def _overflow_uid() -> int:
    try:
        return int((PROC / "sys/kernel/overflowuid").read_text())
    except (OSError, ValueError):
        return 65534
