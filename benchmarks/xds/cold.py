"""Scenarios of beginnings: a Pilot that knows nobody yet, one that was killed, one with a full store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic, monotonic_ns
from typing import Any

from benchmarks.fleet.identities import Member
from benchmarks.xds import probe
from benchmarks.xds.bench import Bench
from benchmarks.xds.load import load_objects, load_workloads, move_workload
from benchmarks.xds.population import Population
from benchmarks.xds.scene import FAULTS, Figures, Scene, Wish, hold_ms_of, scene

SETTLE_S = 1.0
OBJECTS = 30_000
OBJECTS_A_SERVICE = 2.2
"""A ServiceEntry, a WorkloadEntry, and every tenth a VirtualService or DestinationRule of its own."""
DOWN_S = 2.0


async def cold(wish: Wish) -> Figures:
    """What the first proxy of a fresh Pilot costs, the second of its scope, and all of them at once."""
    people = wish.population
    async with Bench(checkout=wish.checkout, flags=wish.pilot_flags) as bench:
        await load_workloads(bench.store, people)
        await load_objects(bench.store, people.objects())
        load_before = probe.load()
        ready_s = await bench.start_pilot()
        start_cpu = probe.cpu_s(bench.pilot_pid)
        members = people.members()
        first, second = neighbours(members)
        firsts = [await _connect(bench, wish, [member]) for member in (first, second)]
        await bench.restart_pilot()
        rss_start = probe.rss_mb(bench.pilot_pid)
        await probe.metrics(bench.ports["metrics"])
        whole = await _connect(bench, wish, members)
        seen = await probe.metrics(bench.ports["metrics"])
    return whole | {
        "generate_cpu_s": firsts[0]["server_cpu_s"],
        "generate_cpu_ms": round(firsts[0]["server_cpu_s"] * 1000, 1),
        "second_cpu_s": firsts[1]["server_cpu_s"],
        "first_synced_s": firsts[0]["all_synced_s"],
        "ready_s": round(ready_s, 2),
        "start_cpu_s": round(start_cpu, 3),
        "rss_start_mb": round(rss_start, 1),
        "loop_hold_ms": hold_ms_of(seen),
        "load_before": load_before,
        "load_after": probe.load(),
    }


def neighbours(members: Sequence[Member]) -> tuple[Member, Member]:
    """The first member, and another of its namespace if there is one."""
    first = members[0]
    other = next((m for m in members[1:] if m.namespace == first.namespace), first)
    return first, other


async def _connect(bench: Bench, wish: Wish, members: Sequence[Member]) -> Figures:
    """A fleet of these connects at once; until all are in sync, and what that cost."""
    pid = bench.pilot_pid
    async with bench.fleet(members, plaintext=wish.plaintext, sotw=wish.sotw) as fleet:
        await asyncio.sleep(SETTLE_S)
        probe.reset_peak(pid)
        before, began = probe.cpu_s(pid), monotonic()
        fleet.say("connect")
        synced_s = await fleet.synced(wish.sync_timeout_s) / 1e9 - began
        await asyncio.sleep(0.2)
        cpu = probe.cpu_s(pid) - before
        report = await fleet.report()
        return {
            "p50_ms": None,
            "p99_ms": None,
            "all_synced_s": round(synced_s, 3),
            "server_cpu_s": round(cpu, 4),
            "bytes_sent": report["bytes"],
            "messages": _messages(report),
            "rss_idle_mb": round(probe.rss_mb(pid), 1),
            "rss_peak_mb": round(probe.peak_mb(pid), 1),
            "faults": {name: report[name] for name in FAULTS if report[name]},
            "streams_ended": report["ended_with_error"],
            "statuses": report["statuses"],
            "last_error": report["last_error"],
        }


def _messages(report: Figures) -> int:
    return sum(value for name, value in report.items() if name.startswith("messages_"))


async def storm(wish: Wish) -> Figures:
    """Pilot is killed under M streams and comes back; an endpoint changes meanwhile, and everybody must ACK that."""
    async with scene(wish) as made:
        await made.fleet.report()
        made.fleet.say("reset")
        load_before = probe.load()
        number, began, killed_s = await _kill_and_revive(made)
        last_ms = await made.fleet.acked(number, wish.sync_timeout_s)
        pid = made.bench.pilot_pid
        report = await made.fleet.report()
        await made.quiet()
        figures: Figures = {
            "p50_ms": report.get("ack_ms_p50"),
            "p99_ms": report.get("ack_ms_p99"),
            "all_synced_again_s": round(last_ms / 1000, 2),
            "down_s": round(began - killed_s, 2),
            "server_cpu_s": round(probe.cpu_s(pid), 3),
            "bytes_sent": report["bytes"],
            "messages": _messages(report),
            "rss_peak_mb": round(probe.peak_mb(pid), 1),
            "rss_after_mb": round(probe.rss_mb(pid), 1),
            "rss_ratio": round(probe.peak_mb(pid) / made.facts["rss_idle_mb"], 3),
            "connects": report["connects"],
            "refused_connections": report["refused_connections"],
            "tls_failures": report["tls_failures"],
            "streams_ended": report["ended_with_error"],
            "statuses": report["statuses"],
            "last_error": report["last_error"],
            "faults": {name: report[name] for name in FAULTS if report[name]},
            "load_before": load_before,
            "load_after": probe.load(),
        }
        return made.facts | figures


async def _kill_and_revive(made: Scene) -> tuple[int, float, float]:
    """(expectation, when Pilot was started again, when it was killed): times in seconds of the monotonic clock."""
    people, change = made.population, 1
    number = await made.fleet.expect("eds", people.cluster(0), people.moved_address(0, change))
    made.bench.pilot.kill(keep_down=True)
    killed_s = monotonic()
    await asyncio.sleep(DOWN_S)
    await move_workload(made.bench.store, people, 0, change)
    made.bench.pilot.revive()
    began_ns = monotonic_ns()
    made.fleet.wrote(number, began_ns, began_ns)
    await made.bench.pilot_ready()
    return number, began_ns / 1e9, killed_s


async def store(wish: Wish) -> Figures:
    """A Pilot on a store of 30,000 objects: from its start to ready."""
    services = int(OBJECTS / OBJECTS_A_SERVICE) + 1
    people = Population(services, services, wish.scopes, wish.ports)
    async with Bench(checkout=wish.checkout, flags=wish.pilot_flags) as bench:
        objects = await load_objects(bench.store, people.objects())
        load_before = probe.load()
        ready_s = await bench.start_pilot()
        pid = bench.pilot_pid
        figures: dict[str, Any] = {
            "p50_ms": None,
            "p99_ms": None,
            "objects": objects,
            "ready_s": round(ready_s, 2),
            "server_cpu_s": round(probe.cpu_s(pid), 3),
            "bytes_sent": 0,
            "messages": 0,
            "rss_idle_mb": round(probe.rss_mb(pid), 1),
            "rss_peak_mb": round(probe.peak_mb(pid), 1),
            "load_before": load_before,
            "load_after": probe.load(),
        }
    return figures | {"store_services": services}
