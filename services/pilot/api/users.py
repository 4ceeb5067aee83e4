"""Which of a client's resources an object is an origin of."""

from __future__ import annotations

from collections.abc import Mapping

from services.pilot.xds.requests import AnyStream
from windward.config.object import ObjectKey
from windward.xds.resource import Resource


class Users:
    """The resources that an object is an origin of; each map of resources is searched once, however many streams share it."""

    def __init__(self, key: ObjectKey) -> None:
        self._key = key
        self._found: dict[int, tuple[Mapping[str, Resource], tuple[str, ...]]] = {}

    def of(self, stream: AnyStream) -> list[Resource]:
        """Those that a client should have and has asked for."""
        found = []
        for url, state in stream.types.items():
            names = {
                name
                for layer in stream.current.layers
                if (named := layer.get(url))
                for name in self._in(named)
                if state.subscription.wants(name)
            }
            for name in sorted(names):
                resource = stream.current.get(url, name)
                if resource is not None and uses(resource, self._key):
                    found.append(resource)
        return found

    def _in(self, named: Mapping[str, Resource]) -> tuple[str, ...]:
        known = self._found.get(id(named))
        if known is None:
            names = tuple(name for name, item in named.items() if uses(item, self._key))
            known = self._found[id(named)] = (named, names)
        return known[1]


def uses(resource: Resource, key: ObjectKey) -> bool:
    return any(
        (o.group, o.kind, o.namespace, o.name) == (key.group, key.kind, key.namespace, key.name)
        for o in resource.origins
    )
