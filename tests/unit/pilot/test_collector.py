"""Collections by the clock, and what is set aside after a long one."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Callable

import pytest

from services.pilot.collector import LONG_S, Oldest, keep_collections_short


class Bench:
    """A collector whose full collections take a given time."""

    def __init__(self, length_s: float) -> None:
        self._now_s, self._length_s = 0.0, length_s
        self.frozen = self.collected = 0
        self.soon: list[Callable[[], None]] = []
        self.oldest = Oldest(self.soon.append, lambda: self._now_s, self._collect, self._freeze)

    def _collect(self) -> None:
        self.collected += 1
        self._now_s += self._length_s

    def _freeze(self) -> None:
        self.frozen += 1

    def collection(self, generation: int) -> None:
        self.oldest("start", {"generation": generation})
        self.oldest("stop", {"generation": generation})

    def turn(self) -> None:
        due, self.soon[:] = list(self.soon), []
        for call in due:
            call()


@pytest.mark.parametrize(("length_s", "frozen"), [(2 * LONG_S, 1), (LONG_S / 2, 0)])
def test_what_survives_a_long_full_collection_is_set_aside(length_s, frozen):
    bench = Bench(length_s)
    bench.collection(1)
    bench.turn()
    assert (bench.collected, bench.frozen) == (1, frozen)


def test_the_oldest_are_collected_after_the_middle_generation_and_in_a_turn_of_their_own():
    bench = Bench(0.0)
    bench.collection(0)
    bench.collection(2)
    assert not bench.soon
    bench.collection(1)
    bench.collection(1)
    assert bench.collected == 0
    bench.turn()
    assert bench.collected == 1
    bench.collection(1)
    bench.turn()
    assert bench.collected == 2


class Cyclic:
    def __init__(self) -> None:
        self.me = self


async def test_cycles_are_found_by_the_clock_and_nothing_is_left_behind():
    callbacks, thresholds = list(gc.callbacks), gc.get_threshold()
    task = asyncio.create_task(keep_collections_short())
    try:
        await asyncio.sleep(0)
        young, old = Cyclic(), Cyclic()
        gc.collect(0)
        gc.collect(1)
        refs = [weakref.ref(young), weakref.ref(old)]
        del young, old
        async with asyncio.timeout(10):
            while any(ref() is not None for ref in refs):
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.wait({task})
        gc.unfreeze()
    assert gc.callbacks == callbacks
    assert gc.get_threshold() == thresholds


async def test_a_collection_in_another_thread_is_followed_up_in_the_loops(monkeypatch):
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    asyncio.get_running_loop().set_debug(True)  # then it says who calls it from elsewhere
    task = asyncio.create_task(keep_collections_short())
    try:
        await asyncio.sleep(0)
        await asyncio.to_thread(gc.collect, 1)
    finally:
        task.cancel()
        await asyncio.wait({task})
        gc.unfreeze()
    assert not told
