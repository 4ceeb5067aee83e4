"""What changes in a scope's maps of resources: one object for all scopes in which the same changes.

a host's part before, and now ─► Exchange ─► swapped maps, names that differ
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from services.pilot.envoy.outbound import HostPart
from windward.xds.resource import Resource

Names = Mapping[str, frozenset[str]]
"""type URL -> names of resources."""
NO_NAMES: Final[Names] = {}
Swaps = Mapping[str, Mapping[str, Resource | None]]
"""type URL -> name -> what is there now; None: nothing."""


class Exchange(NamedTuple):
    """What other endpoints mean for every scope that had the same of their hosts."""

    parts: Mapping[str, HostPart]
    """Host -> what there is of it now."""
    swaps: Swaps
    keys: Mapping[str, Hashable]
    """type URL -> what tells its swaps from others, as long as this lives: other parts may mean the same for a type."""
    changed: Names
    """Of those that are swapped, the ones that are other bytes."""

    @classmethod
    def between(cls, host: str, before: HostPart, now: HostPart) -> Exchange:
        old = {(item.type_url, item.name): item for item in before.resources}
        new = {(item.type_url, item.name): item for item in now.resources}
        swaps: dict[str, dict[str, Resource | None]] = {}
        changed: dict[str, set[str]] = {}
        for key in (*new, *(key for key in old if key not in new)):
            had, has = old.get(key), new.get(key)
            if had is has:
                continue
            swaps.setdefault(key[0], {})[key[1]] = has
            if had is None or has is None or had.version != has.version:
                changed.setdefault(key[0], set()).add(key[1])
        return cls({host: now}, swaps, _keys(swaps), frozen(changed))

    @classmethod
    def of_all(cls, exchanges: Sequence[Exchange]) -> Exchange:
        """Several, of different hosts, as one."""
        parts: dict[str, HostPart] = {}
        swaps: dict[str, dict[str, Resource | None]] = {}
        changed = NO_NAMES
        for one in exchanges:
            parts |= one.parts
            changed = merged(changed, one.changed)
            for type_url, of_type in one.swaps.items():
                swaps.setdefault(type_url, {}).update(of_type)
        return cls(parts, swaps, _keys(swaps), changed)


def key_of(swaps: Mapping[str, Resource | None]) -> Hashable:
    return tuple((name, id(item)) for name, item in swaps.items())


def _keys(swaps: Swaps) -> Mapping[str, Hashable]:
    return {type_url: key_of(of_type) for type_url, of_type in swaps.items()}


def swapped(
    before: dict[str, Resource],
    swaps: Mapping[str, Resource | None],
    copy: Callable[[dict[str, Resource]], dict[str, Resource]] = dict,
) -> dict[str, Resource]:
    """A map that has these in place of those of before."""
    after = copy(before)
    for name, item in swaps.items():
        if item is None:
            after.pop(name, None)
        else:
            after[name] = item
    return after


def merged(one: Names, other: Names) -> Names:
    """One of them itself where the other is empty."""
    if not other or not one:
        return one or other
    nobody = frozenset[str]()
    return {url: one.get(url, nobody) | other.get(url, nobody) for url in {*one, *other}}


def frozen(changed: Mapping[str, AbstractSet[str]]) -> Names:
    return {url: frozenset(names) for url, names in changed.items()}
