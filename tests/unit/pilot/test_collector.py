"""Collections by the clock, and what is set aside after a long one."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from services.pilot.collector import LONG_S, YOUNG, keep_collections_short, watch


def collections(*ends: tuple[int, float]) -> int:
    """How often survivors are set aside after full or younger collections of these lengths (generation, seconds)."""
    now_s, frozen = [0.0], []
    collected = watch(lambda: now_s[0], lambda: frozen.append(1))
    for generation, length_s in ends:
        collected("start", {"generation": generation})
        now_s[0] += length_s
        collected("stop", {"generation": generation})
    return len(frozen)


@pytest.mark.parametrize(
    ("generation", "length_s", "times"), [(2, 2 * LONG_S, 1), (2, LONG_S / 2, 0), (1, 1.0, 0)]
)
def test_what_survives_a_long_full_collection_is_set_aside(generation, length_s, times):
    assert collections((generation, length_s)) == times
    assert collections((generation, length_s), (2, 1.0)) == times + 1


class Cyclic:
    def __init__(self) -> None:
        self.me = self


async def test_cycles_are_found_by_the_clock_and_nothing_is_left_behind():
    callbacks, thresholds = list(gc.callbacks), gc.get_threshold()
    task = asyncio.create_task(keep_collections_short())
    try:
        await asyncio.sleep(0)
        made = [Cyclic() for _ in range(2 * YOUNG)]
        last = weakref.ref(made[-1])
        made.clear()
        async with asyncio.timeout(10):
            while last() is not None:
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.wait({task})
        gc.unfreeze()
    assert gc.callbacks == callbacks
    assert gc.get_threshold() == thresholds
