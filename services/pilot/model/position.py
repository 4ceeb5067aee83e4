"""How much of the store something reflects: up to which revision of configuration, and up to which of registrations.

The two come by watches of their own, each in order, so each has a number. Positions of different Pilots on one store compare;
versions of snapshots, which each process counts for itself, do not.
"""

from __future__ import annotations

from typing import NamedTuple, Self

LONGEST = 19
"""Digits of a revision: etcd's are 64 bits, signed."""


class Position(NamedTuple):
    config: int = 0
    registrations: int = 0

    def __str__(self) -> str:
        """As it travels: what agents are told with every response, and say when they come to another Pilot."""
        return f"{self.config}.{self.registrations}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError for what ``str`` does not make.

        In the versions of state-of-the-world responses a third number follows, which counts the snapshots of the process
        that made them and says nothing elsewhere.
        """
        parts = text.split(".")
        if len(parts) not in {2, 3} or not all(
            part.isascii() and part.isdigit() and len(part) <= LONGEST for part in parts
        ):
            raise ValueError(f"{text[:100]!r} is no position in the store, such as 1034.998")
        return cls(int(parts[0]), int(parts[1]))

    def includes(self, other: Position) -> bool:
        """Whether everything that the other reflects is reflected here."""
        return self.config >= other.config and self.registrations >= other.registrations

    def common(self, revision: int) -> Position:
        """What of this there is up to a revision of the store."""
        return Position(min(self.config, revision), min(self.registrations, revision))
