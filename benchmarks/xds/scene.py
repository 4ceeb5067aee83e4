"""A mesh that is up, with a fleet that is in sync and quiet; and the figures of what happens to it then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import Any

from benchmarks.fleet.process import Fleet
from benchmarks.xds import probe
from benchmarks.xds.bench import OURS, Bench
from benchmarks.xds.contents import unreadable
from benchmarks.xds.load import apply_objects, load_objects, load_workloads, move_workload
from benchmarks.xds.population import Population

Figures = dict[str, Any]
HOLD = "pilot_loop_longest_hold_seconds"
MOST_CONTENTS = 5000
"""Distinct resources that are read by Envoy's own types."""
QUIET_S = 0.5
LONGEST_QUIET_S = 60.0
FAULTS = (
    "versions_back", "missing_references", "removed_in_use", "malformed", "changed_under_version", "unknown_type",
    "unasked", "protocol_errors", "nacks",
)  # fmt: skip
"""What the fleet counts and a correct server never causes."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What to measure, and on how large a mesh."""

    services: int = 1000
    streams: int = 1000
    scopes: int = 100
    ports: int = 20
    plaintext: bool = False
    sotw: bool = False
    changes: int = 20
    """Changes to time."""
    rate: float = 100.0
    """Churn: changes a second."""
    seconds: float = 60.0
    """Churn: for how long."""
    sync_timeout_s: float = 400.0
    ack_timeout_s: float = 120.0
    checkout: Path = OURS
    """Whose Pilot runs."""
    pilot_flags: tuple[str, ...] = ()

    @property
    def population(self) -> Population:
        return Population(self.services, self.streams, self.scopes, self.ports)


@dataclass(slots=True)
class Scene:
    wish: Wish
    bench: Bench
    fleet: Fleet
    facts: Figures = field(default_factory=dict)
    """What bringing it up showed."""
    _changes: int = 0

    @property
    def population(self) -> Population:
        return self.wish.population

    async def move(self, service: int) -> int:
        """One endpoint change: announced, written; returns the expectation's number."""
        self._changes += 1
        change, people = self._changes, self.population
        number = await self.fleet.expect(
            "eds", people.cluster(service), people.moved_address(service, change)
        )
        began = monotonic_ns()
        await move_workload(self.bench.store, people, service, change)
        self.fleet.wrote(number, began, monotonic_ns())
        return number

    async def reroute(self, service: int) -> int:
        """One VirtualService changes; likewise."""
        self._changes += 1
        revision = f"rev-{self._changes}-"
        people = self.population
        number = await self.fleet.expect("rds", str(people.port(service)), revision)
        began = monotonic_ns()
        await apply_objects(self.bench.store, [people.virtual_service(service, revision)])
        self.fleet.wrote(number, began, monotonic_ns())
        return number

    async def hold_ms(self) -> float | None:
        """Longest hold of Pilot's event loop since it was asked for last; None for a Pilot that does not tell."""
        return hold_ms_of(await probe.metrics(self.bench.ports["metrics"]))

    async def quiet(self) -> None:
        """Wait until Pilot uses next to no CPU: what was asked of it is done."""
        deadline = monotonic() + LONGEST_QUIET_S
        while monotonic() < deadline:
            before = probe.cpu_s(self.bench.pilot_pid)
            await asyncio.sleep(QUIET_S)
            if probe.cpu_s(self.bench.pilot_pid) - before < 0.05 * QUIET_S:
                return


@asynccontextmanager
async def scene(wish: Wish) -> AsyncIterator[Scene]:
    """Everything up, in sync and quiet. Raises FleetError when it does not come in sync in time."""
    people = wish.population
    async with Bench(checkout=wish.checkout, flags=wish.pilot_flags) as bench:
        await load_workloads(bench.store, people)
        objects = await load_objects(bench.store, people.objects())
        ready_s = await bench.start_pilot()
        started_cpu = probe.cpu_s(bench.pilot_pid)
        rss_start = probe.rss_mb(bench.pilot_pid)
        fleet = bench.fleet(
            people.members(), plaintext=wish.plaintext, sotw=wish.sotw, bodies=bodies_file(bench)
        )
        async with fleet:
            made = Scene(wish, bench, fleet)
            began = monotonic()
            fleet.say("connect")
            synced_ns = await fleet.synced(wish.sync_timeout_s)
            synced_s = synced_ns / 1e9 - began
            await made.quiet()
            made.facts = {
                "objects": objects,
                "ready_s": round(ready_s, 2),
                "start_cpu_s": round(started_cpu, 3),
                "all_synced_s": round(synced_s, 2),
                "sync_cpu_s": round(probe.cpu_s(bench.pilot_pid) - started_cpu, 3),
                "rss_start_mb": round(rss_start, 1),
                "rss_idle_mb": round(probe.rss_mb(bench.pilot_pid), 1),
            }
            yield made


def bodies_file(bench: Bench) -> Path:
    return bench.folder / "bodies.bin"


async def measured(made: Scene, body: Callable[[], Awaitable[int]]) -> Figures:
    """Run ``body``, which says how many changes it made, and tell what it cost Pilot and what the fleet saw."""
    fleet_cpu = (await made.fleet.report())["fleet_cpu_s"]
    made.fleet.say("reset")
    await made.hold_ms()
    pid = made.bench.pilot_pid
    probe.reset_peak(pid)
    load_before, cpu_before, began = probe.load(), probe.cpu_s(pid), monotonic()
    changes = await body()
    took_s = monotonic() - began
    await asyncio.sleep(0.2)  # the last ACKs are still being read
    cpu = probe.cpu_s(pid) - cpu_before
    seen = await made.fleet.report()
    hold = await made.hold_ms()
    contents, bad = unreadable(bodies_file(made.bench), MOST_CONTENTS)
    kinds = ("cds", "eds", "lds", "rds", "ecds")
    figures: Figures = {
        "p50_ms": seen.get("ack_ms_p50"),
        "p90_ms": seen.get("ack_ms_p90"),
        "p99_ms": seen.get("ack_ms_p99"),
        "last_ms": seen.get("last_ms_max"),
        "last_p50_ms": seen.get("last_ms_p50"),
        "from_write_begin_p50_ms": seen.get("whole_ms_p50"),
        "from_write_begin_p99_ms": seen.get("whole_ms_p99"),
        "changes": changes,
        "acks_timed": seen["ack_ms_count"],
        "server_cpu_s": round(cpu / max(1, changes), 4),
        "server_cpu_whole_s": round(cpu, 3),
        "took_s": round(took_s, 2),
        "fleet_cpu_s": round(seen["fleet_cpu_s"] - fleet_cpu, 3),
        "bytes_sent": seen["bytes"],
        "messages": sum(seen[f"messages_{kind}"] for kind in kinds),
        **{f"resources_{kind}": seen[f"resources_{kind}"] for kind in kinds},
        "rss_peak_mb": round(probe.peak_mb(pid), 1),
        "loop_hold_ms": hold,
        "contents_read": contents,
        "faults": {name: seen[name] for name in FAULTS if seen[name]}
        | ({"unreadable": bad} if bad else {}),
        "streams_ended": seen["ended_with_error"],
        "statuses": seen["statuses"],
        "last_error": seen["last_error"],
        "load_before": load_before,
        "load_after": probe.load(),
    }
    return made.facts | figures


def hold_ms_of(metrics: Mapping[str, float]) -> float | None:
    return round(metrics[HOLD] * 1000, 1) if HOLD in metrics else None


def percentile(values: Sequence[float], share: int) -> float:
    """The smallest value that ``share`` per cent of them do not exceed."""
    ordered = sorted(values)
    return round(ordered[max(0, -(-share * len(ordered) // 100) - 1)], 3)


def flat(scenario: str, wish: Wish, figures: Mapping[str, Any]) -> Figures:
    """The scenario's one flat object: what was asked, what was seen, faults as numbers and as words."""
    faults = figures.get("faults") or {}
    rest = {name: value for name, value in figures.items() if name != "faults"}
    return {
        "scenario": scenario,
        "services": wish.services,
        "streams": wish.streams,
        "scopes": min(wish.scopes, wish.services, wish.streams),
        "ports": wish.ports,
        "mtls": not wish.plaintext,
        "protocol": "sotw" if wish.sotw else "delta",
        **rest,
        "faults": sum(faults.values()),
        "faults_seen": " ".join(f"{name}:{count}" for name, count in faults.items()),
    }
