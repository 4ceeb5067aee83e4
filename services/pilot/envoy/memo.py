"""Resources built once: kept with what they were built from, and built again only when one of those is another object."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from windward.xds.resource import Resource


class Memo:
    """name -> (inputs, resource). Inputs are compared by identity (snapshots share what did not change), then equality."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[tuple[object, ...], Resource]] = {}
        self._used: set[Hashable] = set()
        self.built = 0

    def get(
        self, key: Hashable, inputs: tuple[object, ...], build: Callable[[], Resource]
    ) -> Resource:
        self._used.add(key)
        kept = self._kept.get(key)
        if kept is not None and _equal(kept[0], inputs):
            return kept[1]
        made = build()
        self.built += 1
        if kept is not None and kept[1] == made:
            made = kept[1]
        self._kept[key] = (inputs, made)
        return made

    def sweep(self) -> None:
        """Forget what nobody asked for since the last sweep."""
        self._kept = {key: value for key, value in self._kept.items() if key in self._used}
        self._used = set()


def _equal(before: tuple[object, ...], now: tuple[object, ...]) -> bool:
    return all(one is other or one == other for one, other in zip(before, now, strict=True))
