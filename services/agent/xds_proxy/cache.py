"""What Envoy has accepted, of each type: name -> version and bytes. It outlives Envoy's streams, Pilot's, and the process.

    Envoy's ACK -> Cache -> an Envoy that comes back is answered at once
                         -> a Pilot that comes back is told the versions, and sends differences only
                         -> last_good.py keeps it on disk

Nothing is in here that Envoy has not accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Held:
    version: str
    entry: bytes
    """A whole ``Resource`` message, serialised; opaque."""


@dataclass(slots=True)
class Accepted:
    """Of one type. Invariant: no name is in both ``resources`` and ``missing``."""

    resources: dict[str, Held] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    """Names that were asked for and do not exist."""
    answered: bool = False
    """Whether Pilot has ever answered: without it, no resources means that nothing is known."""


class Cache:
    """One agent's."""

    def __init__(self, types: Mapping[str, Accepted] | None = None, revision: str = "") -> None:
        self._types: dict[str, Accepted] = dict(types or {})
        self.revision = revision
        """How far the Pilot was that told of the mesh last, in its words."""
        self.changes = 0
        """Rises with every change of what would be kept."""
        self.on_change: Callable[[], None] = lambda: None

    def of(self, type_url: str) -> Accepted:
        return self._types.setdefault(type_url, Accepted())

    def accept(
        self, type_url: str, brought: Mapping[str, Held], removed: Iterable[str], missing: set[str]
    ) -> None:
        """Envoy has accepted a response. ``missing``: the removed names that it still wants."""
        known = self.of(type_url)
        changed = not known.answered
        known.answered = True
        for name, held in brought.items():
            changed |= known.resources.get(name) != held or name in known.missing
            known.resources[name] = held
            known.missing.discard(name)
        for name in removed:
            changed |= known.resources.pop(name, None) is not None
        changed |= not missing <= known.missing
        known.missing |= missing
        self._count(changed)

    def forget(self, type_url: str, names: Iterable[str]) -> None:
        """These are no longer wanted, or were refused after all."""
        known, changed = self.of(type_url), False
        for name in list(names):
            changed |= known.resources.pop(name, None) is not None or name in known.missing
            known.missing.discard(name)
        self._count(changed)

    def _count(self, changed: bool) -> None:
        if changed:
            self.changes += 1
            self.on_change()

    def saw(self, revision: str) -> None:
        """How far a Pilot is. One that is behind what was seen here does not answer: what seems less is of a restored store."""
        if revision:
            self.revision = revision

    def frozen(self) -> dict[str, Accepted]:
        """A copy that does not change any more; resources are shared."""
        return {
            url: Accepted(dict(known.resources), set(known.missing), known.answered)
            for url, known in self._types.items()
            if known.answered
        }
