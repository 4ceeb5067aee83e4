"""Response bodies that were spliced once, for every stream that is sent the same resources at the same version."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from windward.xds.resource import Resource

BODIES_BYTES: Final = 8 * 1024 * 1024


Build = Callable[[str, "Iterable[Resource]", Iterable[str], str], bytes]
"""(type URL, resources, removed names, version) -> everything of a response but its nonce."""


class Bodies:
    """Bounded: begun anew when it is full.

    A body is found by the very resource objects in it, so that sharing one memo among proxy groups cannot show one group
    what belongs to another.
    """

    __slots__ = ("_found", "_limit", "_size")

    def __init__(self, limit_bytes: int = BODIES_BYTES) -> None:
        self._limit = limit_bytes
        self._size = 0
        self._found: dict[object, tuple[bytes, tuple[Resource, ...]]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def body(
        self,
        build: Build,
        type_url: str,
        resources: tuple[Resource, ...],
        removed: tuple[str, ...],
        version: str,
    ) -> tuple[bytes, tuple[Resource, ...]]:
        """The body, and the one tuple of these resources that all its streams may hold on to."""
        key = (build, type_url, version, removed, *map(id, resources))
        found = self._found.get(key)
        if found is None:
            made = build(type_url, resources, removed, version)
            if self._size + len(made) > self._limit:
                self._found.clear()
                self._size = 0
            self._size += len(made)
            # The resources stay alive as long as the entry: their ids cannot become another's.
            found = self._found[key] = (made, resources)
        return found
