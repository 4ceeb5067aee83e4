"""Copies of maps, made before somebody needs one to change: of a thousand references it is the longest part of a small push.

    push ─► a quiet moment ─► prepare(the maps in force) ... the next change ─► copy(of one) ─► changed, and in force

Nobody else sees a copy before it is in force, so maps in force are as immutable as ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Ahead:
    def __init__(self) -> None:
        self._made: dict[int, tuple[Mapping[Any, Any], dict[Any, Any]]] = {}

    def prepare(self, maps: Iterable[Mapping[Any, Any]]) -> None:
        """Copies of these, and of no others any more."""
        # Each map is kept beside its copy, so that its id stays its own.
        self._made = {id(item): (item, dict(item)) for item in maps}

    def copy(self, of: Mapping[K, V]) -> dict[K, V]:
        """One that is the caller's own."""
        prepared = self._made.pop(id(of), None)
        return dict(of) if prepared is None else prepared[1]
