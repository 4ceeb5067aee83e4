"""One socket: how much of it is written at a stretch. All else is tried with real sockets in test_server."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from windward.rpc.http2.poller import READ, WRITE
from windward.rpc.http2.transport import BURST, FULL, RECORD, SocketTransport


class Greedy:
    """A socket whose peer reads as fast as it is written to."""

    def __init__(self) -> None:
        self.taken = bytearray()

    def fileno(self) -> int:
        return 7

    def send(self, data: bytes) -> int:
        self.taken += data
        return len(data)

    def recv(self, _: int) -> bytes:
        raise BlockingIOError

    def close(self) -> None:
        pass


class Poller:
    """What the transport asks to be told of, and how to tell it."""

    def __init__(self) -> None:
        self.ready: Callable[[int], None] = lambda _: None
        self.events = READ

    def register(self, _: int, ready: Callable[[int], None]) -> None:
        self.ready = ready

    def modify(self, _: int, events: int) -> None:
        self.events = events

    def unregister(self, _: int) -> None:
        pass


class Connection:
    """Gives its transport all that it has whenever that has room."""

    def __init__(self, frames: list[bytes], transport: Any) -> None:
        self._transport = transport
        self._frames = frames

    def drained(self) -> None:
        while self._frames and not self._transport.full:
            self._transport.write(self._frames.pop(0))


@pytest.mark.parametrize("size", [RECORD // 2, RECORD, 8 * BURST])
def test_a_client_that_takes_everything_lets_others_have_their_turn(size):
    sock: Any = Greedy()
    poller: Any = Poller()
    frames = [bytes([number % 251]) * size for number in range(16 * BURST // size)]
    whole = b"".join(frames)
    make: Any = partial(Connection, frames)
    transport: Any = SocketTransport(sock, "here", poller, make, lambda _: None, lambda: 0.0)
    transport.connection.drained()
    turns = 1
    while poller.events & WRITE:
        assert len(sock.taken) <= turns * (BURST + RECORD)
        assert transport._size <= FULL + size
        poller.ready(WRITE)
        turns += 1
    assert sock.taken == whole
    assert turns >= len(whole) // (BURST + RECORD)
