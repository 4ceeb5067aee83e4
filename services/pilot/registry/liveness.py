"""Which registered workloads are alive: leases, expiry, and mass expiry that is not believed at once. Pure.

record put               -> alive
record put, deregistered -> gone at once
record vanished          -> its lease expired: unhealthy at once, forgotten after three TTLs
many vanish together, or any within a TTL of an outage -> suspected: they stay alive until agents had one TTL to
                            re-claim them (measured: an etcd stopped for 8 s deletes every key of 5 s leases when it
                            resumes, live keep-alives or not)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from windward.registration import RegisteredWorkload

MASS_SHARE = 0.1
MASS_LEAST = 5
FORGOTTEN_AFTER_TTLS = 3.0
DOUBT_S = 0.5
"""How long a vanished workload is doubted before it is believed: others may follow it."""

WorkloadKey = tuple[str, str]
"""(namespace, name)."""


class Liveness(Enum):
    ALIVE = "alive"
    SUSPECTED = "suspected"
    """Vanished, but probably for the store's reasons: still served."""
    EXPIRED = "expired"
    """Vanished: unhealthy."""


@dataclass(slots=True)
class _Held:
    workload: RegisteredWorkload
    state: Liveness
    until_s: float = 0.0
    """When a suspicion ends, or an expired workload is forgotten."""


class LivenessTable:
    """One owner; time is an argument (seconds, monotonic)."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._held: dict[WorkloadKey, _Held] = {}
        self._doubt_until_s = 0.0
        self._vanished: dict[WorkloadKey, float] = {}

    def outage(self, now_s: float) -> None:
        """The store or this Pilot was away until now: what vanishes within a TTL is suspected."""
        self._doubt_until_s = max(self._doubt_until_s, now_s + self._ttl_s)

    def apply(
        self, put: Iterable[RegisteredWorkload], vanished: Iterable[WorkloadKey], now_s: float
    ) -> bool:
        """Take in one batch; True if anything that is served has changed."""
        before = self._view()
        for workload in put:
            key = (workload.namespace, workload.name)
            if workload.deregistered:
                self._held.pop(key, None)
            else:
                self._held[key] = _Held(workload, Liveness.ALIVE)
        for workload in put:
            self._vanished.pop((workload.namespace, workload.name), None)
        for key in vanished:
            if key in self._held:
                self._vanished[key] = now_s
                grace_s = self._ttl_s if now_s < self._doubt_until_s else DOUBT_S
                self._suspect(key, now_s + grace_s)
        self._suspect_many(now_s)
        return self._view() != before

    def _suspect_many(self, now_s: float) -> None:
        """More than a tenth, and five, within a TTL: that is the store, not the workloads."""
        recent = [key for key, at_s in self._vanished.items() if now_s - at_s <= self._ttl_s]
        self._vanished = {key: self._vanished[key] for key in recent}
        if len(recent) < MASS_LEAST or len(recent) <= len(self._held) * MASS_SHARE:
            return
        self.outage(now_s)
        for key in recent:
            if key in self._held:
                self._suspect(key, now_s + self._ttl_s)

    def _suspect(self, key: WorkloadKey, until_s: float) -> None:
        held = self._held[key]
        held.state, held.until_s = Liveness.SUSPECTED, until_s

    def tick(self, now_s: float) -> bool:
        """Let time pass: suspicions end, the expired are forgotten. True if anything that is served has changed."""
        before = self._view()
        for key, held in list(self._held.items()):
            if held.state is Liveness.ALIVE or now_s < held.until_s:
                continue
            if held.state is Liveness.SUSPECTED:
                held.state, held.until_s = (
                    Liveness.EXPIRED,
                    now_s + FORGOTTEN_AFTER_TTLS * self._ttl_s,
                )
            else:
                del self._held[key]
        return self._view() != before

    def next_tick_s(self) -> float | None:
        """When ``tick`` has something to do; None when nothing is pending."""
        due = [held.until_s for held in self._held.values() if held.state is not Liveness.ALIVE]
        return min(due) if due else None

    def workloads(self) -> list[tuple[RegisteredWorkload, bool]]:
        """(workload, healthy) of everything that is served, in key order."""
        return [
            (held.workload, held.state is not Liveness.EXPIRED and not held.workload.unhealthy)
            for _, held in sorted(self._held.items())
        ]

    def _view(self) -> list[tuple[WorkloadKey, RegisteredWorkload, bool]]:
        return [
            (key, held.workload, held.state is not Liveness.EXPIRED)
            for key, held in sorted(self._held.items())
        ]
