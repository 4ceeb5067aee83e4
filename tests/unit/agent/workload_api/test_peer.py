"""What is known of a peer, on new kernels and old ones."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.agent.workload_api import peer as module
from services.agent.workload_api.peer import Peer, UnattestedError, boot_time_s


@pytest.fixture
def connection() -> Iterator[socket.socket]:
    one, other = socket.socketpair()
    with one, other:
        yield one


def test_the_kernel_says_who(connection: socket.socket):
    peer = Peer.of(connection, 0.0)
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert peer.alive
    program, status = peer.program(), Path(sys.executable).resolve().stat()
    assert program is not None
    assert (program.device, program.inode) == (status.st_dev, status.st_ino)
    cgroup = peer.cgroup()
    assert cgroup is None or cgroup.startswith("/")
    peer.close()
    peer.close()


def test_nothing_is_said_of_a_process_that_has_ended(connection: socket.socket):
    peer = Peer.of(connection, 0.0)
    child = subprocess.Popen(["sleep", "60"])
    gone = Peer(child.pid, 0, 0, os.pidfd_open(child.pid))
    try:
        assert (gone.alive, gone.program() is None) == (True, False)
        child.kill()
        child.wait()
        assert (gone.alive, gone.program()) == (False, None)
        # Its number may be anybody's now; that anybody is not described in its name.
        gone.pid = peer.pid
        assert gone.program() is None
        assert gone.cgroup() is None
    finally:
        gone.close()
        peer.close()


@pytest.fixture
def old_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not know SO_PEERPIDFD."""
    monkeypatch.setattr(module, "SO_PEERPIDFD", 9999)


@pytest.mark.usefixtures("old_kernel")
def test_on_an_old_kernel_a_process_must_be_older_than_its_connection(connection: socket.socket):
    peer = Peer.of(connection, boot_time_s())
    assert peer.pid == os.getpid()
    assert peer.alive
    peer.close()
    with pytest.raises(UnattestedError, match="another process"):
        Peer.of(connection, module._began_s(os.getpid()))


@pytest.mark.usefixtures("old_kernel")
def test_on_an_old_kernel_a_process_that_ended_is_nobody(
    connection: socket.socket, monkeypatch: pytest.MonkeyPatch
):
    child = subprocess.Popen(["true"])
    child.wait()
    ended = module._CREDENTIALS.pack(child.pid, 0, 0)
    monkeypatch.setattr(module, "_CREDENTIALS", Fixed(ended))
    with pytest.raises(UnattestedError, match="ended"):
        Peer.of(connection, boot_time_s())


@pytest.mark.parametrize("number", [0, -1])
@pytest.mark.usefixtures("old_kernel")
def test_a_pid_that_is_not_visible_proves_nothing(
    connection: socket.socket, monkeypatch: pytest.MonkeyPatch, number: int
):
    monkeypatch.setattr(module, "_CREDENTIALS", Fixed(module._CREDENTIALS.pack(number, 0, 0)))
    with pytest.raises(UnattestedError, match="not visible"):
        Peer.of(connection, boot_time_s())


def test_a_user_of_another_user_namespace_is_nobody(
    connection: socket.socket, monkeypatch: pytest.MonkeyPatch
):
    unknown = module._CREDENTIALS.pack(os.getpid(), module._overflow_uid(), 0)
    monkeypatch.setattr(module, "_CREDENTIALS", Fixed(unknown))
    with pytest.raises(UnattestedError, match="user namespace"):
        Peer.of(connection, boot_time_s())


class Fixed:
    """Credentials that the kernel might have given."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._struct = module._CREDENTIALS
        self.size = self._struct.size

    def unpack(self, _: bytes) -> tuple[int, ...]:
        return self._struct.unpack(self._raw)
