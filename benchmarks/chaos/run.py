"""Kills at random under load: Envoys, agents, Pilot and Citadel, and what every failed request was due to.

    client -> gateway -> peer-a, peer-b (retries as they are by default) | solo (none)

Nobody mends anything by hand: the local mesh starts Pilot, Citadel and agents again, an agent its Envoy.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.chaos.blame import GATEWAY, Kill, Part, Verdict, outages, verdict
from benchmarks.chaos.scene import (
    BACK_S,
    SERVICES,
    WORKLOADS,
    Strike,
    back,
    schedule,
    strike,
    write_topology,
)
from benchmarks.own_mesh import own_mesh
from benchmarks.requests import Ended, Requests
from benchmarks.rows import Row
from windward.local.mesh import Mesh

RATE = 50.0
"""Requests a second, of each service."""
MOST_TOLD = 20


def measure(seconds: float, seed: int) -> dict[str, Any]:
    """A mesh of its own, struck for so long."""
    before = os.getloadavg()[0]
    figures = asyncio.run(_measure(seconds, seed))
    return figures | {"load_before": round(before, 2), "load_after": round(os.getloadavg()[0], 2)}


async def _measure(seconds: float, seed: int) -> dict[str, Any]:
    async with own_mesh(write_topology) as mesh:
        return await chaos(mesh, tuple(schedule(seed, seconds))) | {"seed": seed}


async def chaos(mesh: Mesh, strikes: Sequence[Strike], rate: float = RATE) -> dict[str, Any]:
    """Carry out the strikes under load; the load goes on until everything is back and in sync."""
    gateway, stop = mesh.topology.gateway, asyncio.Event()
    assert gateway is not None
    host = mesh.plan.place(gateway.name).address
    heard: dict[str, list[Ended]] = {path: [] for path in SERVICES}
    loop = asyncio.get_running_loop()
    kills: list[Kill] = []
    async with asyncio.TaskGroup() as group:
        for path in SERVICES:
            load = Requests(host, gateway.port, rate, path=path, heard=heard[path].append)
            group.create_task(load.run(stop))
        await _all_answer(heard)
        began, returns = loop.time(), []
        for due in strikes:
            await asyncio.sleep(due.after_s)
            kills.append(await strike(mesh, due.part, due.name))
            returns.append(group.create_task(back(mesh, kills[-1])))
        took = await asyncio.gather(*returns)
        in_sync = await _in_sync(mesh)
        await asyncio.sleep(1.0)
        stop.set()
    return {
        "mode": mesh.mode.value,
        "seconds": round(loop.time() - began, 1),
        "kills": dict(Counter(f"{kill.part.value} {kill.name}" for kill in kills)),
        **_came_back(kills, took),
        "in_sync_at_the_end": in_sync,
        **_requests(heard, kills, began),
    }


async def _all_answer(heard: dict[str, list[Ended]]) -> None:
    async with asyncio.timeout(BACK_S):
        while {one.body for ended in heard.values() for one in ended if one.good} < {*WORKLOADS}:
            await asyncio.sleep(0.05)
    for ended in heard.values():
        ended.clear()


async def _in_sync(mesh: Mesh) -> bool:
    """Whether every proxy has accepted its configuration, within BACK_S."""
    names = (GATEWAY, *WORKLOADS)
    loop = asyncio.get_running_loop()
    until = loop.time() + BACK_S
    while loop.time() < until:
        proxies = await mesh.administrator.proxies()
        kinds = [kind.state for proxy in proxies for kind in proxy.types.values()]
        if len(proxies) == len(names) and all(state == "SYNCED" for state in kinds):
            return True
        await asyncio.sleep(0.1)
    return False


def _came_back(kills: Sequence[Kill], took: Sequence[float | None]) -> dict[str, Any]:
    """Seconds from a kill until the part was ready again, a kind of part."""
    result: dict[str, Any] = {"not_back": sum(seconds is None for seconds in took)}
    for part in Part:
        of_part = [
            s for kill, s in zip(kills, took, strict=True) if kill.part is part and s is not None
        ]
        if of_part:
            result[f"{part.value}_back_p50_s"] = round(median(of_part), 2)
            result[f"{part.value}_back_max_s"] = round(max(of_part), 2)
    return result


def _requests(heard: dict[str, list[Ended]], kills: Sequence[Kill], began: float) -> dict[str, Any]:
    """How many there were, how many failed, and why."""
    downs = outages(kills, heard)
    counts: Counter[Verdict] = Counter()
    words: dict[str, Counter[str]] = {item.value: Counter() for item in Verdict}
    told: list[str] = []
    of_service: Counter[str] = Counter()
    for path, ended in heard.items():
        for one in ended:
            if one.good:
                continue
            why = verdict(one, SERVICES[path], kills, downs)
            counts[why] += 1
            words[why.value][one.said] += 1
            of_service[f"{path} {why.value}"] += 1
            if why is Verdict.UNEXPLAINED and len(told) < MOST_TOLD:
                told.append(_tell(path, one, kills, began))
    return {
        "requests": sum(map(len, heard.values())),
        **{f"failed_{item.value}": counts[item] for item in Verdict},
        "failed_by_service": dict(of_service),
        "said": {name: dict(said.most_common(5)) for name, said in words.items() if said},
        "unexplained": told,
    }


def _tell(path: str, one: Ended, kills: Sequence[Kill], began: float) -> str:
    """One line: when, what, and the kill before it."""
    before = [kill for kill in kills if kill.at <= one.ended]
    last = (
        f"{before[-1].part.value} {before[-1].name} at {before[-1].at - began:.3f}"
        if before
        else "none"
    )
    span = f"{one.sent - began:.3f}..{one.ended - began:.3f} s"
    return f"{path} {span}: {one.said}; kill before: {last}"


def rows(figures: dict[str, Any]) -> list[Row]:
    kills, requests = sum(figures["kills"].values()), figures["requests"]
    in_flight = figures["failed_in_flight"]
    return [
        Row(
            f"chaos, {kills} kills, failed of {requests} requests without a reason",
            figures["failed_unexplained"],
            0,
            f"in flight on a killed Envoy: {in_flight}",
        ),
        Row("chaos, parts that did not come back", figures["not_back"], 0),
        Row("chaos, proxies not in sync at the end", float(not figures["in_sync_at_the_end"]), 0),
    ]
