"""Scenarios of many changes: a steady churn timed to every ACK, and memory over ten thousand changes."""

from __future__ import annotations

import asyncio
from statistics import median
from time import monotonic, monotonic_ns

from benchmarks.xds import probe
from benchmarks.xds.load import move_workloads
from benchmarks.xds.scene import Figures, Scene, Wish, measured, scene

SAMPLE_S = 1.0
MANY = 10_000
AT_ONCE = 50


async def churn(wish: Wish) -> Figures:
    """``rate`` endpoint changes a second for ``seconds``, whatever Pilot makes of them; each timed to the last ACK."""
    async with scene(wish) as made:
        await made.fleet.acked(await made.move(0), wish.ack_timeout_s)
        await made.quiet()
        run = _Churn(made)
        figures = await measured(made, run.run)
        return figures | run.figures()


class _Churn:
    def __init__(self, made: Scene) -> None:
        self._made = made
        self._last_ms: list[float] = []
        self._rss_mb: list[float] = []
        self._written_s = 0.0

    async def run(self) -> int:
        """An open loop: changes are due at their time, and late ones do not hold back later ones."""
        wish = self._made.wish
        count = int(wish.rate * wish.seconds)
        began = monotonic()
        async with asyncio.TaskGroup() as group:
            sampling = group.create_task(self._sample())
            tasks = []
            for number in range(count):
                wait_s = began + number / wish.rate - monotonic()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                tasks.append(group.create_task(self._change(number % wish.services)))
            await asyncio.wait(tasks)
            sampling.cancel()
        self._last_ms = [task.result() for task in tasks]
        return count

    async def _change(self, service: int) -> float:
        number = await self._made.move(service)
        self._written_s = monotonic()
        return await self._made.fleet.acked(number, self._made.wish.ack_timeout_s)

    async def _sample(self) -> None:
        while True:
            self._rss_mb.append(probe.rss_mb(self._made.bench.pilot_pid))
            await asyncio.sleep(SAMPLE_S)

    def figures(self) -> Figures:
        """Growth: the median time to the last ACK in the last fifth of the changes, less that in the first fifth."""
        fifth = max(1, len(self._last_ms) // 5)
        early, late = median(self._last_ms[:fifth]), median(self._last_ms[-fifth:])
        return {
            "rate": self._made.wish.rate,
            "seconds": self._made.wish.seconds,
            "last_early_ms": round(early, 1),
            "last_late_ms": round(late, 1),
            "queue_growth_ms": round(late - early, 1),
            "rss_growth_mb": round(self._rss_mb[-1] - self._rss_mb[0], 1),
        }


async def memory(wish: Wish) -> Figures:
    """RSS with N services and M streams, and what ten thousand endpoint changes add to it."""
    async with scene(wish) as made:
        samples: list[float] = []

        async def many() -> int:
            for at in range(0, MANY, AT_ONCE):
                await _move_some(made, at)
                if at % (MANY // 20) == 0:
                    samples.append(probe.rss_mb(made.bench.pilot_pid))
            return MANY

        figures = await measured(made, many)
        await made.quiet()
        settled = probe.rss_mb(made.bench.pilot_pid)
    half = samples[len(samples) // 2 :]
    return figures | {
        "rss_after_mb": round(settled, 1),
        "rss_slope_mb_per_1000": round(slope(half) * (20 * 1000 / MANY), 3),
        "kb_a_stream": round(
            (figures["rss_idle_mb"] - figures["rss_start_mb"]) * 1000 / wish.streams, 1
        ),
    }


async def _move_some(made: Scene, first: int) -> None:
    """One transaction of changes; the last of them is awaited, so that Pilot is never left behind."""
    people = made.population
    changes = [(change % people.services, change + 1) for change in range(first, first + AT_ONCE)]
    service, change = changes[-1]
    number = await made.fleet.expect(
        "eds", people.cluster(service), people.moved_address(service, change)
    )
    began = monotonic_ns()
    await move_workloads(made.bench.store, people, changes)
    made.fleet.wrote(number, began, monotonic_ns())
    await made.fleet.acked(number, made.wish.ack_timeout_s)


def slope(values: list[float]) -> float:
    """Least squares, a step of the list."""
    n = len(values)
    if n < 2:
        return 0.0
    middle, mean = (n - 1) / 2, sum(values) / n
    above = sum((index - middle) * (value - mean) for index, value in enumerate(values))
    return above / sum((index - middle) ** 2 for index in range(n))
