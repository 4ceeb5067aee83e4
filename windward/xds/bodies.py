"""Response bodies that were spliced once, for every stream that is sent the same resources at the same version."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from windward.xds.resource import Resource

BODIES_BYTES: Final = 8 * 1024 * 1024
"""Of two generations together."""
GENERATION_S: Final = 1.0
Body = tuple[bytes, "tuple[Resource, ...]"]


Build = Callable[[str, "Iterable[Resource]", Iterable[str], str], bytes]
"""(type URL, resources, removed names, version) -> everything of a response but its nonce."""


class Bodies:
    """Bounded, and of the last while: what nobody asks for goes with the generation after the one that it was used in.

    A body keeps alive the resources in it, which are older and older versions of what is in force: without an age a memo
    that is far from full would hold on to thousands of them.

    A body is found by the very resource objects in it, so that sharing one memo among proxy groups cannot show one group
    what belongs to another.
    """

    __slots__ = ("_before", "_due_s", "_found", "_limit", "_size")

    def __init__(self, limit_bytes: int = BODIES_BYTES) -> None:
        self._limit = limit_bytes
        self._size = 0
        self._due_s = 0.0
        self._found: dict[object, Body] = {}
        self._before: dict[object, Body] = {}

    def __len__(self) -> int:
        return len(self._found.keys() | self._before.keys())

    def body(
        self,
        build: Build,
        type_url: str,
        resources: tuple[Resource, ...],
        removed: tuple[str, ...],
        version: str,
    ) -> Body:
        """The body, and the one tuple of these resources that all its streams may hold on to."""
        key = (build, type_url, version, removed, *map(id, resources))
        found = self._found.get(key)
        if found is None:
            found = self._before.get(key)
            if found is None:
                # The resources stay alive as long as the entry: their ids cannot become another's.
                found = build(type_url, resources, removed, version), resources
            if self._size + len(found[0]) > self._limit // 2:
                self._begin()
            self._size += len(found[0])
            self._found[key] = found
        return found

    def age(self, now_s: float) -> None:
        """Called now and then, with a clock that only goes forward."""
        if now_s >= self._due_s:
            self._due_s = now_s + GENERATION_S
            self._begin()

    def _begin(self) -> None:
        """A generation."""
        self._before, self._found, self._size = self._found, {}, 0
