"""What a fuzz target is. A new one is a class like those in ``targets`` and a line in ``targets/__init__.py``."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from random import Random
from types import ModuleType
from typing import Any, Protocol

Input = Any
"""Made of literals (bytes, text, numbers, tuples, lists, dicts), so that a failure's ``repr`` is enough to have it again."""


class Target(Protocol):
    """Stateless between executions, so that one input is enough to have a failure again."""

    @property
    def modules(self) -> Sequence[ModuleType]:
        """The code under test: an input that reaches new lines of it is kept and mutated further."""

    def seeds(self) -> Sequence[Input]:
        """Valid inputs of every shape."""

    def mutate(self, random: Random, chosen: Input, other: Input) -> Input:
        """A new input from two of the corpus; neither is changed."""

    def executions(self, given: Input) -> int:
        """How many inputs of the code under test a history of them holds; 1 where an input is one."""

    def execute(self, given: Input) -> Hashable:
        """Run the code. Returns what came of it in a word or a few: one that is new keeps the input. Raises for a failure."""

    def fertile(self, outcome: Hashable) -> bool:
        """Whether an input that came to this may be kept: what is refused at once leads to little but refusals."""


class Single:
    """An input is one execution; refusals are told in words, and are not fertile."""

    def executions(self, given: Input) -> int:  # noqa: ARG002  the protocol's
        return 1

    def fertile(self, outcome: Hashable) -> bool:
        return not isinstance(outcome, str)
