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
    since_s: float


class LivenessTable:
    """One owner; time is an argument (seconds, monotonic)."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._held: dict[WorkloadKey, _Held] = {}
        self._doubt_until_s = 0.0

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
                self._held[key] = _Held(workload, Liveness.ALIVE, now_s)
        gone = [key for key in vanished if key in self._held]
        alive = sum(held.state is Liveness.ALIVE for held in self._held.values())
        mass = len(gone) >= MASS_LEAST and len(gone) > alive * MASS_SHARE
        doubted = mass or now_s < self._doubt_until_s
        if mass:
            self.outage(now_s)
        for key in gone:
            held = self._held[key]
            held.state = Liveness.SUSPECTED if doubted else Liveness.EXPIRED
            held.since_s = now_s
        return self._view() != before

    def tick(self, now_s: float) -> bool:
        """Let time pass: suspicions end, the expired are forgotten. True if anything that is served has changed."""
        before = self._view()
        for key, held in list(self._held.items()):
            waited_s = now_s - held.since_s
            if (
                held.state is Liveness.SUSPECTED
                and waited_s >= self._ttl_s
                and now_s >= self._doubt_until_s
            ):
                held.state, held.since_s = Liveness.EXPIRED, now_s
            elif held.state is Liveness.EXPIRED and waited_s >= FORGOTTEN_AFTER_TTLS * self._ttl_s:
                del self._held[key]
        return self._view() != before

    def next_tick_s(self) -> float | None:
        """When ``tick`` has something to do; None when nothing is pending."""
        due = [
            max(held.since_s + self._ttl_s, self._doubt_until_s)
            if held.state is Liveness.SUSPECTED
            else held.since_s + FORGOTTEN_AFTER_TTLS * self._ttl_s
            for held in self._held.values()
            if held.state is not Liveness.ALIVE
        ]
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
