"""What one client has of one type, told as the difference from the set that its stream follows.

    set (shared by all) + overlay (this client's few differences) = what the client has

A synced stream remembers nothing of a type but its subscription, and equal subscriptions are one object.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

import msgspec

from windward.slices import Work
from windward.xds.resource import Resource, ResourceSet
from windward.xds.subscription import NOBODY, Subscription

BLOCK: Final = 1000
"""Names that are looked at in one step of long work."""
RUN: Final = 5000
"""Names that are sorted in one step."""

ABSENT: Final = ""
"""The version of what a client does not have."""

Have = Resource | str
"""What a client has under a name: the resource, its version alone (the client brought it along), or ABSENT."""


def version_of(have: Have) -> str:
    return have if isinstance(have, str) else have.version


def blocks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """All of them, a step's worth at a time."""
    if len(names) <= BLOCK:
        yield names
    else:
        for start in range(0, len(names), BLOCK):
            yield names[start : start + BLOCK]


def backwards(names: Collection[str]) -> Work[list[str]]:
    """Sorted, the last one first, in steps: runs, which are joined two and two."""
    if len(names) <= RUN:
        return sorted(names, reverse=True)
    rest = list(names)
    runs: list[list[str]] = []
    for start in range(0, len(rest), RUN):
        yield
        runs.append(sorted(rest[start : start + RUN]))
    while len(runs) > 1:
        pairs, odd = zip(runs[::2], runs[1::2], strict=False), runs[len(runs) // 2 * 2 :]
        runs = []
        for one, other in pairs:
            runs.append((yield from _joined(one, other)))
        runs += odd
    runs[0].reverse()
    return runs[0]


def _joined(one: list[str], other: list[str]) -> Work[list[str]]:
    made: list[str] = []
    at = 0
    for block in blocks(one):
        yield
        until = bisect_right(other, block[-1], at)
        made += sorted(chain(block, other[at:until]))
        at = until
    made += other[at:]
    return made


@dataclass(frozen=True, slots=True)
class Refusal:
    """A resource that a client refused: not sent to it again while its bytes stay the same."""

    type_url: str
    name: str
    version: str
    error: str
    """Envoy's words, for people: they are no stable format."""
    revision: int
    """The store's revision that the refused response reflected."""
    at: float
    """When, by the caller's clock."""


class Sent(msgspec.Struct, gc=False, eq=False):
    """A response that waits for its ACK."""

    resources: tuple[Resource, ...]
    """Those that the client did not have: an ACK makes them its own, a NACK is about one of them."""
    before: dict[str, Have]
    """What it had in their place and of what was removed; a name that is not in it was ABSENT."""
    removed: tuple[str, ...]
    version: int
    revision: int
    single: bool

    def had(self, name: str) -> Have:
        return self.before.get(name, ABSENT)

    def holds(self, name: str) -> bool:
        return any(resource.name == name for resource in self.resources)


@dataclass(slots=True)
class TypeState:
    """One type of one stream.

    Invariant: of every name that the client wants it was sent the version in the stream's set (or was told that there is
    none), except for the names in ``overlay``, of which it was sent what stands there. Every name of ``overlay`` is also in
    ``todo``, or is withheld, or waits for its removal.
    """

    subscription: Subscription
    overlay: dict[str, Have] = field(default_factory=dict)
    todo: list[str] = field(default_factory=list)
    """Names that may have to be sent, the last one first."""
    again: set[str] = field(default_factory=set)
    """Names to answer whatever the client has: it asked anew, or Envoy warms what it belongs to."""
    refused: dict[str, Refusal] = field(default_factory=dict)
    pending: dict[str, Sent] = field(default_factory=dict)
    """Nonce -> response, in the order sent."""
    split: set[str] = field(default_factory=set)
    """Delta: names of a refused chunk that still have to go one by one, as they are then."""
    trials: list[list[str]] = field(default_factory=list)
    """State of the world: groups of suspects of a refused response, to be tried one group at a time, the last one first."""
    rounds: int = 0
    """State of the world: refused trials since all was well."""
    answered: bool = False
    """Whether the latest first request was answered."""
    sent_revision: int = 0
    acked_revision: int = 0
    acked_version: int = 0
    """The newest snapshot of which the client has answered all that concerns it; what it refused is in ``refused``."""
    busy: bool = True
    """Whether ``at_rest`` may have something to do: false implies that nothing is sent, due or withheld."""
    last_error: str = ""
    last_nonce: str = ""
    rejects: int = 0

    type_url: str = field(init=False)
    tag: str = field(init=False)
    """What its nonces begin with."""

    def __post_init__(self) -> None:
        self.type_url = self.subscription.type_url
        self.tag = self.type_url.rpartition(".")[2][:3]

    @property
    def state(self) -> str:
        if self.last_error or self.refused:
            return "ERROR"
        return "SYNCED" if self.settled and not self.todo else "STALE"

    @property
    def settled(self) -> bool:
        """Nothing of this type waits for an ACK."""
        return not self.pending and not self.trials

    def queue(self, names: Iterable[str]) -> None:
        self.busy = True
        self.todo = sorted({*self.todo, *names}, reverse=True)

    def reconsider(self) -> None:
        """Look again at everything that the client does not have as it is in the set."""
        self.busy = True
        self.todo = sorted(self.overlay.keys() | self.again, reverse=True)

    def reconsidering(self, leaving: AbstractSet[str] = NOBODY) -> Work[None]:
        """The same in steps, for tables of any length. ``leaving``: names that only wait for their removal."""
        self.busy = True
        yield
        due = self.overlay.keys() | self.again
        if leaving:
            yield
            due -= leaving - self.again
        self.todo = yield from backwards(due)

    def forget(self, name: str) -> None:
        """The client no longer wants a name, and drops what it had."""
        self.overlay.pop(name, None)
        self.refused.pop(name, None)
        self.again.discard(name)
        self.split.discard(name)

    def synced(self, name: str) -> None:
        """The client has a name as it is in the set."""
        self.overlay.pop(name, None)
        self.refused.pop(name, None)
        self.split.discard(name)

    def advance(self, before: ResourceSet, after: ResourceSet, names: AbstractSet[str]) -> bool:
        """The stream follows another set, in which these names may differ. Whether one that is wanted does."""
        type_url, subscription, overlay = self.type_url, self.subscription, self.overlay
        if not subscription.wildcard:
            names = names & subscription.names
        touched = []
        for name in names:
            if name not in overlay:
                old, new = before.get(type_url, name), after.get(type_url, name)
                if old is new or (old and new and old.version == new.version):
                    continue
                overlay[name] = old or ABSENT
            touched.append(name)
        if touched:
            self.queue(touched)
        return bool(touched)

    def roll_back(self, resource: Resource, had: Have) -> None:
        """The client refused a response: what it had before that, it has still."""
        name = resource.name
        for later in self.pending.values():
            if later.holds(name):
                later.before[name] = had
                return
            if name in later.removed:
                return
        if self.subscription.wants(name) and (
            version_of(self.overlay.get(name, resource)) == resource.version
        ):
            self.overlay[name] = had

    def at_rest(self, current: ResourceSet) -> None:
        """Nothing can be said now: give back what busy tables took, and see how far the client is."""
        self.subscription.freeze()
        for table in (self.overlay, self.pending, self.again, self.split):
            if not table:
                table.clear()  # an empty table keeps its size until it is cleared
        if self.settled and not self.todo:
            self.follows(current)
            if not self.refused:
                self.last_error = ""
            self.busy = bool(self.overlay) or not self.answered

    def follows(self, current: ResourceSet) -> None:
        """The client has answered everything of this set that concerns it."""
        self.acked_version, revision = current.version, current.revision
        self.acked_revision = max(self.acked_revision, revision)
