"""What a client has asked for of one type: by name, everything, or everything because it named nothing.

Source: xDS protocol, "How the client specifies what resources to return" and "Subscribing to resources":
a client that never named anything of a wildcard type gets everything (legacy wildcard); naming ``*`` asks for it
outright; naming anything else without ``*`` ends a legacy wildcard.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final
from weakref import WeakKeyDictionary, ref

from windward.xds.resource import WILDCARD_TYPES

WILDCARD = "*"
NOBODY: Final[frozenset[str]] = frozenset()

_interned: WeakKeyDictionary[frozenset[str], ref[frozenset[str]]] = WeakKeyDictionary()


def interned(names: AbstractSet[str]) -> frozenset[str]:
    """The one object of all equal sets that are alive: thousands of proxies name the same thousand clusters."""
    frozen = frozenset(names)
    known = _interned.get(frozen)
    found = known() if known is not None else None
    if found is None:
        found = frozen
        _interned[frozen] = ref(frozen)
    return found


class Subscription:
    """Invariant: ``wildcard`` implies that every resource of the type is wanted, whatever ``names`` holds."""

    __slots__ = ("_asked", "_legacy", "names", "type_url", "wildcard")

    def __init__(self, type_url: str) -> None:
        self.type_url = type_url
        self.names: AbstractSet[str] = NOBODY
        """Shared and frozen at rest, this subscription's own set while it changes: see ``freeze``."""
        self.wildcard = False
        self._legacy = False
        self._asked = False

    def subscribe(self, names: Iterable[str]) -> None:
        """A delta request's ``resource_names_subscribe`` (an empty first request is a legacy wildcard)."""
        named = set(names)
        if not named and not self._asked and self.type_url in WILDCARD_TYPES:
            self.wildcard = self._legacy = True
        if named:
            if self._legacy and WILDCARD not in named:
                self._legacy = False
                self.wildcard = False
            if WILDCARD in named:
                self.wildcard, self._legacy = True, False
            self._own().update(named - {WILDCARD})
        self._asked = True

    def unsubscribe(self, names: Iterable[str]) -> None:
        for name in names:
            if name == WILDCARD:
                self.wildcard = self._legacy = False
            if name in self.names:
                self._own().discard(name)

    def replace(self, names: Iterable[str]) -> None:
        """A state-of-the-world request's ``resource_names``: the whole list, each time."""
        named = set(names)
        if not named:
            if self.type_url in WILDCARD_TYPES and (not self._asked or self._legacy):
                self.wildcard = self._legacy = True
            elif not self._legacy:
                self.wildcard = False
        else:
            self.wildcard = WILDCARD in named
            self._legacy = False
        named.discard(WILDCARD)
        self.names = named
        self._asked = True

    def repeats(self, names: Sequence[str]) -> bool:
        """Whether ``replace`` with these names would change nothing."""
        if not self._asked:
            return False
        if self.wildcard or not names:
            return self._legacy and not names
        return len(names) == len(self.names) and all(name in self.names for name in names)

    def freeze(self) -> None:
        """Share the names with everybody who named the same; the next change copies them."""
        if type(self.names) is set:
            self.names = interned(self.names)

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.names

    def _own(self) -> set[str]:
        if type(self.names) is not set:
            self.names = set(self.names)
        return self.names
