"""Objects that Envoy refuses as they are, and what they were before: that is in force in their place. Pure.

good, in force ─a user's change─► bad ─refused─► good again ─the next change, or that of a service it is about─► tried anew
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from collections.abc import Set as AbstractSet
from typing import Any

from windward.config.destination_rule import DestinationRule
from windward.config.hosts import resolve
from windward.config.object import ConfigObject, ObjectKey
from windward.config.virtual_service import VirtualService

Object = ConfigObject[Any]
Pair = tuple[Object | None, Object | None]
"""An object before and after."""
MOST_EARLIER = 2
"""Of an object: Envoy may not have answered the last change when the next one comes."""


def rule_hosts(item: ConfigObject[DestinationRule]) -> list[str]:
    return [resolve(item.spec.host, item.key.namespace)]


def route_hosts(item: ConfigObject[VirtualService]) -> list[str]:
    return [resolve(host, item.key.namespace) for host in item.spec.hosts]


ABOUT: Mapping[str, Callable[[Object], list[str]]] = {
    "VirtualService": route_hosts,
    "DestinationRule": rule_hosts,
}
"""Kinds that are about services of others -> the hosts of those."""
KINDS = frozenset({*ABOUT, "Gateway", "PeerAuthentication", "ServiceEntry", "WorkloadEntry"})
"""Kinds of which what was before is kept."""


class TakenBack:
    """Told of every change; takes the place of an object in the map of those in force."""

    def __init__(self) -> None:
        self._earlier: dict[ObjectKey, tuple[Object, ...]] = {}
        self._refused: dict[ObjectKey, Object] = {}

    def is_refused(self, item: Object) -> bool:
        """Whether this very object was taken back: to hear of it again changes nothing."""
        return self._refused.get(item.key) == item

    def forget(self, key: ObjectKey) -> None:
        """The user has changed it, or removed it."""
        self._refused.pop(key, None)

    def replaced(self, key: ObjectKey, gone: Object | None, come: Object | None) -> None:
        """One object is in force instead of another."""
        if come is None or gone is None or key.kind not in KINDS:
            self._earlier.pop(key, None)
        else:
            self._earlier[key] = (*self._earlier.get(key, ()), gone)[-MOST_EARLIER:]

    def take_back(self, kind: MutableMapping[ObjectKey, Object], item: Object) -> list[Pair]:
        """Put what was there before in a refused object's place, if that one is still what is in force."""
        present = kind.get(item.key)
        if present is None or present != item:
            return []
        earlier = self._earlier.pop(item.key, ())
        good = earlier[-1] if earlier else None
        if good is None:
            del kind[item.key]
        else:
            kind[item.key] = good
            self._earlier[item.key] = earlier[:-1]
        # Of two bad ones in a row it is the user's last that is tried again.
        self._refused.setdefault(item.key, present)
        return [(present, good)]

    def due(self, services: AbstractSet[str]) -> list[Object]:
        """Refused objects about services that are other ones now."""
        return [
            item
            for item in self._refused.values()
            if item.key.kind in ABOUT and not services.isdisjoint(ABOUT[item.key.kind](item))
        ]

    def put_again(self, kind: MutableMapping[ObjectKey, Object], item: Object) -> Pair:
        """A refused object into force once more."""
        del self._refused[item.key]
        good = kind.get(item.key)
        kind[item.key] = item
        if good is not None:
            self.replaced(item.key, good, item)
        return good, item
