"""What a client has asked for of one type: by name, everything, or everything because it named nothing.

Source: xDS protocol, "How the client specifies what resources to return" and "Subscribing to resources":
a client that never named anything of a wildcard type gets everything (legacy wildcard); naming ``*`` asks for it
outright; naming anything else without ``*`` ends a legacy wildcard.
"""

from __future__ import annotations

from collections.abc import Iterable

from windward.xds.resource import WILDCARD_TYPES

WILDCARD = "*"


class Subscription:
    """Invariant: ``wildcard`` implies that every resource of the type is wanted, whatever ``names`` holds."""

    def __init__(self, type_url: str) -> None:
        self.type_url = type_url
        self.names: set[str] = set()
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
            self.names |= named - {WILDCARD}
        self._asked = True

    def unsubscribe(self, names: Iterable[str]) -> None:
        for name in names:
            if name == WILDCARD:
                self.wildcard = self._legacy = False
            self.names.discard(name)

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
        self.names = named - {WILDCARD}
        self._asked = True

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.names
