import asyncio

from services.pilot.loop_watch import LoopWatch


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_hold_is_the_time_between_two_selects_and_not_within_one():
    clock = Clock()
    watch = LoopWatch(clock)

    def select(_timeout):
        clock.now_s += 100.0
        return []

    watched = watch.around(select)
    clock.now_s = 50.0
    watched(None)
    assert watch.take_longest_s() == 0.0  # what came before the first select is no hold
    for held_s in (2.0, 7.0, 3.0):
        clock.now_s += held_s
        watched(None)
    assert watch.take_longest_s() == 7.0


def test_reading_begins_anew():
    clock = Clock()
    watch = LoopWatch(clock)
    watched = watch.around(lambda _timeout: [])
    watched(None)
    clock.now_s += 5.0
    watched(None)
    assert watch.take_longest_s() == 5.0
    clock.now_s += 1.0
    watched(None)
    assert watch.take_longest_s() == 1.0


def test_it_hands_on_the_timeout_and_what_is_ready():
    seen = []

    def select(timeout):
        seen.append(timeout)
        return ["ready"]

    assert LoopWatch().around(select)(1.5) == ["ready"]
    assert seen == [1.5]


async def test_it_sees_a_callback_that_holds_a_real_loop():
    watch = LoopWatch()
    assert watch.attach(asyncio.get_running_loop())
    await asyncio.sleep(0)
    watch.take_longest_s()
    held = asyncio.Event()

    def hold():
        until = asyncio.get_running_loop().time() + 0.05
        while asyncio.get_running_loop().time() < until:
            pass
        held.set()

    asyncio.get_running_loop().call_soon(hold)
    await held.wait()
    await asyncio.sleep(0)
    assert watch.take_longest_s() >= 0.05


def test_a_loop_without_a_selector_is_not_watched():
    loop = asyncio.new_event_loop()
    selector = loop.__dict__.pop("_selector")
    assert not LoopWatch().attach(loop)
    loop.__dict__["_selector"] = selector
    loop.close()
