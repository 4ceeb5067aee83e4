"""Which registered workloads are alive: leases, expiry, and mass expiry that is not believed at once. Pure.

record and lease         -> alive
record removed           -> deregistered: gone at once
lease lapsed             -> unhealthy after a moment's doubt, forgotten after three TTLs
many lapse together, or any soon after an outage -> suspected: they stay alive until agents had one TTL (and 5 s)
                            to re-claim them (measured: an etcd stopped for 8 s ends every lease of 5 s when it
                            resumes, live keep-alives or not), and as long as others are still coming back

A record outlives its lease, so that what lapsed while no Pilot was there is known to the next one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from windward.registration import RegisteredWorkload

MASS_SHARE = 0.1
MASS_LEAST = 5
FORGOTTEN_AFTER_TTLS = 3.0
PATIENCE_GRACES = 6.0
"""How long after an outage agents that come back one after the other may keep suspicions open."""
GRACE_LEAST_S = 5.0
"""Agents that come back to a Pilot wait for their channel's next try and for a handshake, however short a TTL is."""
DOUBT_S = 0.5
"""How long a lapsed lease is doubted before it is believed: others may follow it."""

WorkloadKey = tuple[str, str]
"""(namespace, name)."""
Living = tuple[RegisteredWorkload, bool]
"""What was registered, and whether it is healthy."""
Served = dict[WorkloadKey, Living | None]
"""None: not served."""


@dataclass(frozen=True, slots=True)
class WorkloadBatch:
    """What changed of registrations, each key's last word."""

    put: Mapping[WorkloadKey, RegisteredWorkload] = field(default_factory=dict)
    removed: frozenset[WorkloadKey] = frozenset()
    leased: frozenset[WorkloadKey] = frozenset()
    lapsed: frozenset[WorkloadKey] = frozenset()
    revision: int = 0
    """The store's, up to which this and the batches before tell everything."""

    @property
    def urgent(self) -> bool:
        """Whether it takes something away from those who call."""
        return bool(
            self.removed or self.lapsed or any(item.unhealthy for item in self.put.values())
        )


class Liveness(Enum):
    ALIVE = "alive"
    SUSPECTED = "suspected"
    """Lapsed, but probably for the store's reasons: still served."""
    EXPIRED = "expired"
    """Lapsed: unhealthy."""


@dataclass(slots=True)
class _Held:
    workload: RegisteredWorkload
    state: Liveness = Liveness.ALIVE
    until_s: float = 0.0
    """When a suspicion ends, or an expired workload is forgotten."""

    @property
    def served(self) -> Living:
        return self.workload, self.state is not Liveness.EXPIRED and not self.workload.unhealthy


class LivenessTable:
    """One owner; time is an argument (seconds, monotonic). What changes is told by key."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._grace_s = max(ttl_s, GRACE_LEAST_S)
        """How long agents have to claim again what lapsed in an outage."""
        self._held: dict[WorkloadKey, _Held] = {}
        self._leased: set[WorkloadKey] = set()
        self._doubted: set[WorkloadKey] = set()
        """Invariant: the held keys that are not ALIVE."""
        self._lapsed_at: dict[WorkloadKey, float] = {}
        self._before: Served = {}
        self._doubt_until_s = self._patience_until_s = self._reclaimed_s = -math.inf
        self.forgotten: set[WorkloadKey] = set()
        """Their records may leave the store."""

    def outage(self, now_s: float) -> None:
        """The store or this Pilot was away until now: what lapses within the grace is suspected."""
        self._doubt_until_s = max(self._doubt_until_s, now_s + self._grace_s)
        self._patience_until_s = max(
            self._patience_until_s, now_s + PATIENCE_GRACES * self._grace_s
        )
        for key in self._doubted:
            held = self._held[key]
            if held.state is Liveness.SUSPECTED:
                held.until_s = max(held.until_s, now_s + self._grace_s)

    def apply(self, batch: WorkloadBatch, now_s: float) -> Served:
        """Take in one batch; what is served otherwise than before."""
        self._leased = (self._leased | batch.leased) - batch.lapsed
        for key in batch.removed:
            self.forgotten.discard(key)
            self._drop(key)
        for key, workload in batch.put.items():
            self._touch(key)
            self.forgotten.discard(key)
            if key in self._held:
                self._held[key].workload = workload
                continue
            self._held[key] = _Held(workload)
            if key not in self._leased:
                self._lapse(key, now_s)
        for key in batch.leased & self._doubted:
            self._reclaimed_s = now_s
            self._set(key, Liveness.ALIVE)
        for key in batch.lapsed & self._held.keys():
            self._lapse(key, now_s)
        if batch.lapsed or batch.put:
            self._suspect_many(now_s)
        return self._changes()

    def _lapse(self, key: WorkloadKey, now_s: float) -> None:
        self._lapsed_at[key] = now_s
        doubted = now_s < max(self._doubt_until_s, self._coming_back_until_s)
        grace_s = self._grace_s if doubted else DOUBT_S
        self._set(key, Liveness.SUSPECTED, now_s + grace_s)

    def _suspect_many(self, now_s: float) -> None:
        """More than a tenth, and five, within a TTL: that is the store, not the workloads."""
        recent = {
            key: at_s
            for key, at_s in self._lapsed_at.items()
            if now_s - at_s <= self._ttl_s and key in self._doubted
        }
        self._lapsed_at = recent
        if len(recent) < MASS_LEAST or len(recent) <= len(self._held) * MASS_SHARE:
            return
        self.outage(now_s)
        for key in recent:
            self._set(key, Liveness.SUSPECTED, now_s + self._grace_s)

    def tick(self, now_s: float) -> Served:
        """Let time pass: suspicions end, the expired are forgotten. What is served otherwise than before."""
        late_s = self._coming_back_until_s
        for key in [key for key in self._doubted if self._held[key].until_s <= now_s]:
            held = self._held[key]
            if held.state is Liveness.EXPIRED:
                self._drop(key)
                self.forgotten.add(key)
            elif now_s < late_s:
                held.until_s = late_s
            else:
                self._set(key, Liveness.EXPIRED, now_s + FORGOTTEN_AFTER_TTLS * self._ttl_s)
        return self._changes()

    @property
    def _coming_back_until_s(self) -> float:
        """After an outage agents come back one after the other, and some that are back may be late once more."""
        return min(self._reclaimed_s + self._grace_s, self._patience_until_s)

    def next_tick_s(self) -> float | None:
        """When ``tick`` has something to do; None when nothing is pending."""
        return min((self._held[key].until_s for key in self._doubted), default=None)

    def served(self, key: WorkloadKey) -> Living | None:
        """A workload as it is served now; None when it is not."""
        held = self._held.get(key)
        return held.served if held is not None else None

    def state(self, key: WorkloadKey) -> Liveness | None:
        """How alive a workload is; None for one that is not known."""
        held = self._held.get(key)
        return held.state if held is not None else None

    def workloads(self) -> list[Living]:
        """Everything that is served, in key order."""
        return [held.served for _, held in sorted(self._held.items())]

    # ---- keeping account ----------------------------------------------------------------------

    def _set(self, key: WorkloadKey, state: Liveness, until_s: float = 0.0) -> None:
        self._touch(key)
        held = self._held[key]
        held.state, held.until_s = state, until_s
        if state is Liveness.ALIVE:
            self._doubted.discard(key)
        else:
            self._doubted.add(key)

    def _drop(self, key: WorkloadKey) -> None:
        self._touch(key)
        self._held.pop(key, None)
        self._doubted.discard(key)
        self._lapsed_at.pop(key, None)

    def _touch(self, key: WorkloadKey) -> None:
        self._before.setdefault(key, self.served(key))

    def _changes(self) -> Served:
        before, self._before = self._before, {}
        return {key: now for key, was in before.items() if (now := self.served(key)) != was}
