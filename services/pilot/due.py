"""When the next snapshot is due. Pure; times are seconds of one clock.

endpoints, urgent        -> now
endpoints                -> now after a quiet moment, else ``endpoint_s`` after the last snapshot: a single one waits for
nobody, many in quick succession go together
all of it                -> not before a Pilot that is busy has had time to read what else came
configuration            -> after ``quiet_s`` without another change, at most ``longest_s`` after the first
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds."""

    endpoint_s: float = 0.005
    quiet_s: float = 0.010
    longest_s: float = 0.100


REST: Final = 0.5
"""How long after a snapshot was put in force the next one may be at the earliest, as a part of how long that took.

Without it a Pilot that changes reach faster than it can send them makes a snapshot of each, for ever later: only in a pause does
it read what has come, so that it goes together.
"""


class Due:
    """One owner. Invariant: ``at_s`` is None exactly when nothing waits."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._first_s: float | None = None
        self._config_s: float | None = None
        self._endpoint_s: float | None = None
        self._published_s = self._free_s = float("-inf")

    @property
    def at_s(self) -> float | None:
        moments = [at for at in (self._config_s, self._endpoint_s) if at is not None]
        return max(min(moments), self._free_s) if moments else None

    def now(self, now_s: float) -> None:
        """Something that waits for nothing."""
        self._begin(now_s)
        self._endpoint_s = now_s

    def endpoints(self, now_s: float) -> None:
        self._begin(now_s)
        wanted = max(now_s, self._published_s + self._timing.endpoint_s)
        self._endpoint_s = wanted if self._endpoint_s is None else min(wanted, self._endpoint_s)

    def config(self, now_s: float) -> None:
        """Configuration waits for more of its kind, and never holds up an endpoint that is due already."""
        first_s = self._begin(now_s)
        self._config_s = min(now_s + self._timing.quiet_s, first_s + self._timing.longest_s)

    def take(self, now_s: float) -> float:
        """Everything that waits goes now; when the first of it came."""
        first_s = self._begin(now_s)
        self._first_s = self._config_s = self._endpoint_s = None
        self._published_s = now_s
        return first_s

    def done(self, now_s: float) -> None:
        """What was taken last is in force, and every stream was told."""
        self._free_s = now_s + REST * (now_s - self._published_s)

    def _begin(self, now_s: float) -> float:
        self._first_s = now_s if self._first_s is None else self._first_s
        return self._first_s
