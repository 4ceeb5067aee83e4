"""How long a turn for reading is, and that what it leaves comes in the next one."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from windward.rpc.http2.poller import LITTLE_S, SLICE_S, Poller
from windward.rpc.http2.server import Http2Server


class Loop:
    """A loop whose time passes only where it is told to, and whose turn the test takes."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turn: Callable[[], None] = lambda: None

    def time(self) -> float:
        return self.now

    def add_reader(self, _: int, callback: Callable[[], None]) -> None:
        self.turn = callback

    def remove_reader(self, _: int) -> None:
        pass


@contextmanager
def ready_sockets(poller: Poller, count: int, ready: Callable[[int], None]) -> Iterator[None]:
    """So many with a byte to read; ``ready`` is told of each that got its turn, with its number."""
    pairs = [socket.socketpair() for _ in range(count)]
    try:
        for number, (ours, theirs) in enumerate(pairs):
            theirs.send(b"x")
            poller.register(ours.fileno(), partial(_take, ours, ready, number))
        yield
    finally:
        poller.close()
        for pair in pairs:
            for one in pair:
                one.close()


def _take(ours: socket.socket, ready: Callable[[int], None], number: int, _: int) -> None:
    ours.recv(1)
    ready(number)


@pytest.mark.parametrize(("slice_s", "turns"), [(SLICE_S, [5, 5, 2]), (LITTLE_S, [1] * 12)])
def test_a_turn_ends_with_its_slice_and_the_next_one_goes_on(slice_s: float, turns: list[int]):
    loop: Any = Loop()
    poller, taken = Poller(loop), list[int]()
    poller.slice_s = slice_s

    def work(number: int) -> None:
        taken.append(number)
        loop.now += LITTLE_S

    seen: list[int] = []
    with ready_sockets(poller, 12, work):
        while len(taken) < 12:
            before = len(taken)
            loop.turn()
            seen.append(len(taken) - before)
    assert seen == turns
    assert sorted(taken) == list(range(12))


async def test_a_server_reads_little_as_long_as_it_is_told_to():
    server = Http2Server()
    poller = server._poller
    server.read_little(True)
    assert poller.slice_s == LITTLE_S
    server.read_little(False)
    assert poller.slice_s == SLICE_S
    await server.stop(0)
