"""Long work in slices: what it returns, who else runs meanwhile, and in what order many go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from windward.slices import Turns, Work, at_once, in_slices


def counting(steps: int, seen: Callable[[int], None] = lambda _: None) -> Work[int]:
    for step in range(steps):
        seen(step)
        yield
    return steps


def test_at_once_gives_what_the_work_returns():
    assert at_once(counting(5)) == 5
    assert at_once(counting(0)) == 0


async def test_others_run_between_slices():
    others: list[int] = []

    async def other() -> None:
        for number in range(3):
            others.append(number)
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    assert await in_slices(counting(5), slice_s=0.0) == 5
    assert others == [0, 1, 2]
    await task


async def test_work_shorter_than_a_slice_lets_nobody_run():
    ran: list[int] = []
    asyncio.get_running_loop().call_soon(ran.append, 1)
    assert await in_slices(counting(3), slice_s=60.0) == 3
    assert not ran


async def test_of_many_one_goes_on_in_each_round_and_all_in_order():
    turns, rounds = Turns(slice_s=0.0), [0]
    seen: list[tuple[str, int]] = []

    async def worker(name: str) -> None:
        for _ in range(2):
            await turns.next()
            seen.append((name, rounds[0]))

    async def clock(workers: list[asyncio.Task[None]]) -> None:
        while not all(task.done() for task in workers):
            rounds[0] += 1
            await asyncio.sleep(0)

    workers = [asyncio.create_task(worker(name)) for name in "abc"]
    await clock(workers)
    assert [name for name, _ in seen] == ["a", "b", "c", "a", "b", "c"]
    assert len({at for _, at in seen}) == len(seen)


async def test_short_callbacks_share_a_round_and_long_ones_do_not():
    def order(slice_s: float) -> tuple[Turns, list[str]]:
        turns, seen = Turns(slice_s), list[str]()
        for name in "ab":
            turns.call(lambda name=name: seen.append(name))  # type: ignore[misc]
        asyncio.get_running_loop().call_soon(seen.append, "other")
        return turns, seen

    _, together = order(60.0)
    await asyncio.sleep(0)
    assert together == ["a", "b", "other"]
    _, apart = order(0.0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert apart == ["a", "other", "b"]


async def test_a_worker_that_is_cancelled_does_not_hold_up_the_others():
    turns = Turns()
    first, second = (asyncio.create_task(turns.next()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait_for(second, 10)
    assert first.cancelled()


async def test_a_callback_that_raises_does_not_hold_up_the_others():
    turns, ran = Turns(), asyncio.Event()
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: failures.append(told))

    def fail() -> None:
        raise ValueError("broken")

    turns.call(fail)
    turns.call(ran.set)
    await asyncio.wait_for(ran.wait(), 10)
    assert len(failures) == 1


async def test_a_callback_may_ask_for_another_turn():
    turns, seen, done = Turns(), list[int](), asyncio.Event()

    def again() -> None:
        seen.append(len(seen))
        if len(seen) < 3:
            turns.call(again)
        else:
            done.set()

    turns.call(again)
    await asyncio.wait_for(done.wait(), 10)
    assert seen == [0, 1, 2]


async def test_work_in_turns_goes_on_beside_other_work():
    turns, seen = Turns(slice_s=0.0), list[str]()

    async def run(name: str) -> int:
        return await turns.run(counting(2, lambda step: seen.append(f"{name}{step}")))

    assert list(await asyncio.gather(run("a"), run("b"))) == [2, 2]
    assert sorted(seen) == ["a0", "a1", "b0", "b1"]


async def test_what_work_raises_its_caller_gets():
    def broken() -> Work[None]:
        yield
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await in_slices(broken())
    with pytest.raises(ValueError, match="broken"):
        await Turns().run(broken())
