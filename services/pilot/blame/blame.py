"""Whom to blame for a resource that Envoy refuses: tried with objects left out, then with their fields left out.

resource, snapshot, objects, scratch -> [Blame(object, field path, Envoy's words)]
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from services.pilot.blame.search import bad_ones, bad_path
from services.pilot.blame.workshop import (
    Change,
    Objects,
    Workshop,
    hosts_of,
    is_on_gateways,
    of_virtual_hosts,
    virtual_hosts,
)
from services.pilot.model.proxy import ProxyType
from windward.config.object import ConfigObject, ObjectKey
from windward.config.report import Report
from windward.config.walk import BAD, walk_partial
from windward.xds import resource as xds
from windward.xds.resource import Resource

Refuses = Callable[[Resource], Awaitable[str]]
"""The scratch Envoy's words about a resource; empty when it takes it."""
Build = Callable[..., "Resource | None"]
"""(changes...) -> the resource that they would make."""

SUSPECTS = ("VirtualService", "DestinationRule", "PeerAuthentication", "Gateway", "ServiceEntry")
"""Who is suspected first: without its service nothing is left to refuse, so that proves least."""

PLACING = frozenset({"hosts", "host", "gateways", "exportTo", "selector", "workloadSelector"})
"""Fields of a spec that say where it applies."""
LONGEST_WORDS = 400


@dataclass(frozen=True, slots=True)
class Blame:
    key: ObjectKey
    path: str
    """The smallest field without which Envoy takes it, e.g. ``spec.http[0].match[0].uri``; ``spec`` when it is no single one."""
    words: str
    """Envoy's."""


class Inquiry:
    """About one refused resource of one proxy."""

    def __init__(
        self, resource: Resource, workshop: Workshop, objects: Objects, refuses: Refuses
    ) -> None:
        self._resource = resource
        self._workshop = workshop
        self._objects = objects
        self._refuses = refuses

    async def blames(self) -> list[Blame]:
        """Everyone to blame; nobody when the scratch takes the resource. Raises Unanswered."""
        if not await self._refuses(self._resource):
            return []
        if self._resource.type_url != xds.ROUTE:
            return await self._of(self._build, self._origins())
        if self._workshop.proxy.type is ProxyType.ROUTER:
            return await self._of_gateway()
        return await self._of_routes()

    async def _of_routes(self) -> list[Blame]:
        """A sidecar's route configuration: the bad virtual hosts of it, each by itself."""
        name = self._resource.name

        async def refused(hosts: Sequence[Any]) -> bool:
            return bool(await self._refuses(of_virtual_hosts(name, hosts)))

        found: list[Blame] = []
        for item in await bad_ones(virtual_hosts(self._resource), refused):
            host, _, port = item.name.rpartition(":")

            def build(
                *changes: Change, host: str = host, port: int = int(port or 0)
            ) -> Resource | None:
                return self._workshop.virtual_host(host, port, *changes)

            made = build()
            if made is not None:
                found += await self._of(build, self._objects_of(made))
        return found

    async def _of_gateway(self) -> list[Blame]:
        """A gateway's: the bad VirtualServices of it, tried without all others."""
        routes = [item for item in self._origins() if item.key.kind == "VirtualService"]

        async def refused(kept: Sequence[ConfigObject[Any]]) -> bool:
            keys = {item.key for item in kept}
            made = self._build(*((item, None) for item in routes if item.key not in keys))
            return made is not None and bool(await self._refuses(made))

        found: list[Blame] = []
        for item in await bad_ones(routes, refused):
            others = [(other, None) for other in routes if other is not item]

            def build(*changes: Change, others: list[Any] = others) -> Resource | None:
                return self._build(*others, *changes)

            found += await self._of(build, [item])
        return found

    def _build(self, *changes: Change) -> Resource | None:
        url, name = self._resource.type_url, self._resource.name
        for host in hosts_of(self._objects, self._resource):
            made = self._workshop.of_host(host, url, name, *changes)
            if made is not None:
                return made
        return self._workshop.own(url, name, *changes)

    async def _of(self, build: Build, suspects: Sequence[ConfigObject[Any]]) -> list[Blame]:
        """The first suspect without whom all is well, and its field."""
        made = build()
        words = await self._refuses(made) if made is not None else ""
        if not words:
            return []
        for item in suspects:
            without = build((item, None))
            if without is None or not await self._refuses(without):
                return [Blame(item.key, await self._field(build, item), shortened(words))]
        # No single one: the object that is the most particular is the one to look at first.
        return [Blame(suspects[0].key, "spec", shortened(words))] if suspects else []

    async def _field(self, build: Build, item: ConfigObject[Any]) -> str:
        async def refused(changed: ConfigObject[Any]) -> bool | None:
            made = build((item, changed))
            # A field without which nothing is left to refuse says nothing of what is wrong with it.
            return bool(await self._refuses(made)) if made is not None else None

        return await field_of(item, refused)

    def _origins(self) -> list[ConfigObject[Any]]:
        return self._objects_of(self._resource)

    def _objects_of(self, resource: Resource) -> list[ConfigObject[Any]]:
        """The objects that a resource was built from, the likeliest first."""
        keys = dict.fromkeys(
            ObjectKey(o.group, o.kind, o.namespace, o.name) for o in resource.origins
        )
        known = [self._objects[key] for key in keys if key in self._objects]
        usable = [item for item in known if item.key.kind in SUSPECTS]
        if resource.type_url == xds.ROUTE and self._workshop.proxy.type is ProxyType.ROUTER:
            usable = [
                item for item in usable if item.key.kind != "VirtualService" or is_on_gateways(item)
            ]
        return sorted(usable, key=lambda item: (SUSPECTS.index(item.key.kind), -item.revision))


async def field_of(
    item: ConfigObject[Any], refused: Callable[[ConfigObject[Any]], Awaitable[bool | None]]
) -> str:
    """The path of the smallest field of an object without which it is not refused any more."""
    spec = item.raw.get("spec", {})
    # Without what says where it applies, nothing is left to refuse: that would explain nothing.
    placing = {name: value for name, value in spec.items() if name in PLACING}

    async def trial(rest: Any) -> bool | None:
        changed = walk_partial(type(item.spec), {**placing, **rest}, Report("spec"))
        return None if changed is BAD else await refused(replace(item, spec=changed))

    rest = {name: value for name, value in spec.items() if name not in PLACING}
    return await bad_path(rest, trial, "spec")


def shortened(words: str) -> str:
    """Envoy may print the whole resource before it says what is wrong with it."""
    return words if len(words) <= LONGEST_WORDS else f"... {words[-LONGEST_WORDS:]}"
