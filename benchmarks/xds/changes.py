"""Scenarios of single changes: one endpoint, one route; each timed to every stream's ACK."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from benchmarks.xds.scene import Figures, Scene, Wish, measured, scene

PAUSE_S = 0.3
"""Between two changes, so that each meets an idle Pilot."""


async def endpoint(wish: Wish) -> Figures:
    """One registered workload gets another address; only its service's endpoints may be sent."""
    async with scene(wish) as made:
        await _warm(made, made.move)
        figures = await measured(made, lambda: _one_by_one(made, made.move))
    return figures | _only(figures, "eds", wish)


async def route(wish: Wish) -> Figures:
    """One VirtualService changes; only its route configuration may be sent."""
    async with scene(wish) as made:
        await _warm(made, made.reroute)
        figures = await measured(made, lambda: _one_by_one(made, made.reroute))
    return figures | _only(figures, "rds", wish)


async def _warm(made: Scene, change: Callable[[int], Awaitable[int]]) -> None:
    """The first change is not timed: it pays for what later ones find done."""
    await made.fleet.acked(await change(0), made.wish.ack_timeout_s)
    await made.quiet()


async def _one_by_one(made: Scene, change: Callable[[int], Awaitable[int]]) -> int:
    for number in range(made.wish.changes):
        service = (number * 10) % made.wish.services  # every tenth has a VirtualService
        await made.fleet.acked(await change(service), made.wish.ack_timeout_s)
        await asyncio.sleep(PAUSE_S)
    return made.wish.changes


def _only(figures: Figures, kind: str, wish: Wish) -> Figures:
    """How many resources were sent beyond one a change and stream."""
    sent = sum(value for name, value in figures.items() if name.startswith("resources_"))
    due = figures["acks_timed"]
    return {
        "resources_due": due,
        "resources_in_excess": sent - due,
        "others_in_excess": sent - int(figures[f"resources_{kind}"]),
        "bytes_a_change_and_stream": round(figures["bytes_sent"] / max(1, due)),
        "streams_reached": due // max(1, wish.changes),
    }
