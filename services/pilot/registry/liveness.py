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
Served = dict[WorkloadKey, tuple[RegisteredWorkload, bool] | None]
"""Workload -> (what it registered, whether it is healthy); None: not served."""


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
        self._doubtful: set[WorkloadKey] = set()
        """Those that are not alive: the only ones that time changes."""
        self._doubt_until_s = 0.0
        self._vanished: dict[WorkloadKey, float] = {}

    def outage(self, now_s: float) -> None:
        """The store or this Pilot was away until now: what vanishes within a TTL is suspected."""
        self._doubt_until_s = max(self._doubt_until_s, now_s + self._ttl_s)

    def apply(
        self, put: Iterable[RegisteredWorkload], vanished: Iterable[WorkloadKey], now_s: float
    ) -> Served:
        """Take in one batch; what is served otherwise than before."""
        before: Served = {}
        for workload in put:
            key = (workload.namespace, workload.name)
            before.setdefault(key, self._served(key))
            self._vanished.pop(key, None)
            self._doubtful.discard(key)
            if workload.deregistered:
                self._held.pop(key, None)
            else:
                self._held[key] = _Held(workload, Liveness.ALIVE)
        for key in vanished:
            if key in self._held:
                before.setdefault(key, self._served(key))
                self._vanished[key] = now_s
                grace_s = self._ttl_s if now_s < self._doubt_until_s else DOUBT_S
                self._suspect(key, now_s + grace_s)
        self._suspect_many(now_s, before)
        return self._changed(before)

    def _suspect_many(self, now_s: float, before: Served) -> None:
        """More than a tenth, and five, within a TTL: that is the store, not the workloads."""
        recent = [key for key, at_s in self._vanished.items() if now_s - at_s <= self._ttl_s]
        self._vanished = {key: self._vanished[key] for key in recent}
        if len(recent) < MASS_LEAST or len(recent) <= len(self._held) * MASS_SHARE:
            return
        self.outage(now_s)
        for key in recent:
            if key in self._held:
                before.setdefault(key, self._served(key))
                self._suspect(key, now_s + self._ttl_s)

    def _suspect(self, key: WorkloadKey, until_s: float) -> None:
        held = self._held[key]
        held.state, held.until_s = Liveness.SUSPECTED, until_s
        self._doubtful.add(key)

    def tick(self, now_s: float) -> Served:
        """Let time pass: suspicions end, the expired are forgotten. What is served otherwise than before."""
        before: Served = {}
        for key in sorted(k for k in self._doubtful if now_s >= self._held[k].until_s):
            held = self._held[key]
            before[key] = self._served(key)
            if held.state is Liveness.SUSPECTED:
                held.state, held.until_s = (
                    Liveness.EXPIRED,
                    now_s + FORGOTTEN_AFTER_TTLS * self._ttl_s,
                )
            else:
                del self._held[key]
                self._doubtful.discard(key)
        return self._changed(before)

    def next_tick_s(self) -> float | None:
        """When ``tick`` has something to do; None when nothing is pending."""
        return min((self._held[key].until_s for key in self._doubtful), default=None)

    def workloads(self) -> list[tuple[RegisteredWorkload, bool]]:
        """(workload, healthy) of everything that is served, in key order."""
        return [served for key in sorted(self._held) if (served := self._served(key))]

    def _served(self, key: WorkloadKey) -> tuple[RegisteredWorkload, bool] | None:
        held = self._held.get(key)
        if held is None:
            return None
        healthy = held.state is not Liveness.EXPIRED and not held.workload.unhealthy
        return held.workload, healthy

    def _changed(self, before: Served) -> Served:
        """Of the workloads looked at, those that are served otherwise now."""
        return {key: now for key, served in before.items() if (now := self._served(key)) != served}
