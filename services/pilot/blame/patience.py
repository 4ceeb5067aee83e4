"""How often somebody may be wrong: a proxy that refuses what a real Envoy takes is not believed for ever. Pure.

Every question costs the scratch Envoy time that others' questions wait for. Whoever is right loses nothing by asking.
"""

from __future__ import annotations

MOST = 20.0
"""Mistakes in a row."""
BACK_PER_S = 0.5
MOST_KNOWN = 1000
"""Of whom anything is remembered; those who were wrong the longest ago are forgotten first."""


class Patience:
    def __init__(self) -> None:
        self._lost: dict[str, tuple[float, float]] = {}
        """Who -> how much was lost, and when that was so; the latest last."""

    def has_any(self, who: str, now: float) -> bool:
        return self._lost_by(who, now) <= MOST - 1

    def lose(self, who: str, now: float) -> None:
        """They were wrong once more."""
        lost = self._lost_by(who, now) + 1
        self._lost.pop(who, None)
        self._lost[who] = (lost, now)
        while len(self._lost) > MOST_KNOWN:
            del self._lost[next(iter(self._lost))]

    def _lost_by(self, who: str, now: float) -> float:
        lost, at = self._lost.get(who, (0.0, now))
        return max(0.0, lost - BACK_PER_S * (now - at))
