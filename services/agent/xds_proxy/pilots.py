"""Which of several Pilots, and when to try again: spread, away at once from one that leaves, ever slower if none answers.

Thousands of agents follow these rules at the same time: each has an order of its own, and every wait is jittered.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 5.0
SPREAD_S = 0.25
"""Agents of a Pilot that leaves come to the others within this time."""


def in_random_order(addresses: Sequence[str], chance: random.Random) -> tuple[str, ...]:
    return tuple(chance.sample(list(addresses), len(addresses)))


class Attempts:
    """Waits between attempts at ``count`` Pilots, which are tried in turn."""

    def __init__(self, count: int, chance: random.Random) -> None:
        self._count = count
        self._chance = chance
        self._failed = 0

    def served(self) -> None:
        """The present Pilot has answered."""
        self._failed = 0

    def wait_s(self) -> float:
        """The present attempt is over: how long until the next Pilot is tried.

        One that served is left at once, and so is one that does not answer, until all have been tried; then the waits
        double, up to LONGEST_BACKOFF_S.
        """
        self._failed += 1
        rounds, within = divmod(self._failed, self._count)
        if rounds == 0 or within:
            return self._chance.uniform(0, SPREAD_S)
        longest = min(FIRST_BACKOFF_S * float(1 << min(rounds - 1, 16)), LONGEST_BACKOFF_S)
        return longest * self._chance.uniform(0.5, 1.5)
