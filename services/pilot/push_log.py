"""What was pushed, why, and how far it is: the last pushes with their causes, and how long proxies took to accept them.

    Index publishes (snapshot, delta, causes) ─► Push ─► a stream has ACKed a version ─► counted in every Push up to it

Times are the loop's, seconds. "Commit" is the moment that this Pilot saw the first change of a push; the store tells all
Pilots within a few milliseconds.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from services.pilot.registry.liveness import WorkloadKey
from windward.config.object import ObjectKey
from windward.xds.resource import ResourceSet

REMEMBERED = 500
MOST_SAMPLES = 500
"""Of one push; beyond it every second one is dropped, and of later ones every second taken: percentiles stay what they were."""
MOST_OBJECTS = 20_000


@dataclass(slots=True)
class Push:
    """One snapshot that made a difference."""

    version: int
    revision: int
    began_s: float
    at: datetime
    causes: tuple[ObjectKey, ...]
    workloads: tuple[WorkloadKey, ...]
    resources: dict[str, set[str]] = field(default_factory=dict)
    """type URL -> names that differ for anybody."""
    proxies: int = 0
    """Streams that were told."""
    accepted: int = 0
    samples_s: array[float] = field(default_factory=lambda: array("f"))
    """Commit to ACK, sorted; four bytes each, since hundreds of pushes to thousands of streams are remembered."""
    longest_s: float = field(default=0.0, init=False)
    _told: Mapping[str, frozenset[str]] | None = field(default=None, init=False, repr=False)
    _every: int = field(default=1, init=False)
    """Of so many ACKs one is a sample."""

    def tell(self, proxies: int, changed: Mapping[str, frozenset[str]]) -> None:
        """So many streams are woken for these names."""
        self.proxies += proxies
        if changed is self._told:
            return  # as the scopes do that share a change
        self._told = changed
        for url, names in changed.items():
            known = self.resources.setdefault(url, set())
            if not names <= known:
                known |= names

    def accept(self, now_s: float) -> float:
        took_s = now_s - self.began_s
        samples = self.samples_s
        if not self.accepted % self._every:
            insort(samples, took_s)
            if len(samples) > MOST_SAMPLES:
                del samples[::2]
                self._every *= 2
        self.accepted += 1
        self.longest_s = max(self.longest_s, took_s)
        return took_s

    def percentile_s(self, share: float) -> float | None:
        if not self.samples_s:
            return None
        return self.samples_s[min(len(self.samples_s) - 1, int(share * len(self.samples_s)))]

    def cause(self) -> str:
        """In words: ``VirtualService shop/reviews changed``; several are counted after the first."""
        named = [f"{key.kind} {key.namespace}/{key.name}" for key in self.causes]
        named += [f"workload {namespace}/{name}" for namespace, name in self.workloads]
        if not named:
            return "time passed"
        more = f" and {len(named) - 1} more" if len(named) > 1 else ""
        return f"{named[0]}{more} changed"

    def effect(self) -> str:
        """In words: ``1 route, 12 proxies, 8 ms``."""
        kinds = [
            f"{len(names)} {short_name(url)}{'' if len(names) == 1 else 's'}"
            for url, names in sorted(self.resources.items())
        ]
        took = f"{self.longest_s * 1000:.0f} ms" if self.accepted else "not accepted yet"
        told = f"{self.proxies} {'proxy' if self.proxies == 1 else 'proxies'}"
        if not (self.proxies or self.accepted):
            return ", ".join([*kinds, told])
        return ", ".join([*kinds, told, took])


class PushLog:
    """One owner opens pushes; streams say what they accepted."""

    def __init__(self) -> None:
        self._pushes: deque[Push] = deque(maxlen=REMEMBERED)
        self._latest: OrderedDict[ObjectKey, Push] = OrderedDict()

    def begin(
        self,
        version: int,
        revision: int,
        began_s: float,
        causes: tuple[ObjectKey, ...],
        workloads: tuple[WorkloadKey, ...],
    ) -> Push:
        """A snapshot is about to be put in force: streams may answer before all of them were told."""
        push = Push(version, revision, began_s, datetime.now(UTC), causes, workloads)
        self._pushes.append(push)
        for key in causes:
            self._latest[key] = push
            self._latest.move_to_end(key)
        while len(self._latest) > MOST_OBJECTS:
            self._latest.popitem(last=False)
        return push

    def accepted(self, current: ResourceSet, since: int, now_s: float) -> list[float]:
        """A stream that was at version ``since`` has accepted a set; seconds for each push that concerned it."""
        versions = [current.version]
        for change in current.changes:
            if change.since <= since:
                break
            versions.append(change.since)
        return [
            push.accept(now_s)
            for version in versions
            if version > since and (push := self._find(version)) is not None
        ]

    def _find(self, version: int) -> Push | None:
        if self._pushes and self._pushes[-1].version == version:
            return self._pushes[-1]
        at = bisect_left(self._pushes, version, key=lambda push: push.version)
        if at < len(self._pushes) and self._pushes[at].version == version:
            return self._pushes[at]
        return None

    def of(self, key: ObjectKey) -> Push | None:
        """The last push that an object's change caused."""
        return self._latest.get(key)

    def latest(self, most: int) -> Iterator[Push]:
        """The newest first; of this moment, however long the caller takes."""
        yield from list(self._pushes)[::-1][:most]


def short_name(type_url: str) -> str:
    """``route`` for a route configuration; what Istio's tools call the types."""
    name = type_url.rpartition(".")[2]
    known = {
        "Cluster": "cluster",
        "ClusterLoadAssignment": "endpoint set",
        "Listener": "listener",
        "RouteConfiguration": "route",
        "Secret": "secret",
        "TypedExtensionConfig": "filter",
        "NameTable": "name",
    }
    return known.get(name, name)
