"""One group's set of resources, and what it shares with the others of its scope.

SharedScope (made, snapshot) ─┐
own resources ────────────────┴─► Group.renew ─► ResourceSet, which names what differs from the one before
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping
from operator import is_

from msgspec.structs import replace

from services.pilot.envoy.exchange import Names
from services.pilot.envoy.memo import Memo
from services.pilot.envoy.options import Options
from services.pilot.envoy.outbound import Scope
from services.pilot.envoy.own import place_of
from services.pilot.envoy.scope import ScopeResources
from services.pilot.model.proxy import Proxy
from services.pilot.snapshot import Delta, MeshSnapshot
from windward.xds.bodies import Bodies
from windward.xds.resource import Changes, Resource, ResourceSet

REMEMBERED = 16
"""Changes that a set remembers; who is further behind compares everything."""
ByType = Mapping[str, Mapping[str, Resource]]
Wake = Callable[[], None]


def group_key(proxy: Proxy) -> Hashable:
    """Everything of a proxy but its own name."""
    return (
        proxy.type,
        proxy.namespace,
        proxy.service_account,
        proxy.address,
        proxy.labels,
        proxy.interception,
        proxy.app_address,
        proxy.identity,
        proxy.proxyless,
        proxy.vips,
        proxy.ipv6,
    )


class History:
    """How sets came about, of all scopes: those that change alike share one tuple of it."""

    def __init__(self) -> None:
        self._version = -1
        self._before: tuple[Changes, ...] = ()
        self._names: Names = {}
        self._made: tuple[Changes, ...] = ()

    def after(self, before: ResourceSet, names: Names) -> tuple[Changes, ...]:
        """The history of a set that differs from the one before in these names."""
        known = before.changes
        if (
            self._version != before.version
            or not (self._names is names or self._names == names)
            or not (self._before is known or self._before == known)
        ):
            self._version, self._before, self._names = before.version, known, names
            self._made = (Changes(before.version, names), *known[: REMEMBERED - 1])
        return self._made


class SharedScope:
    """A scope's resources, the moment of the mesh that they are of, and what has to be caught up with."""

    def __init__(
        self,
        scope: Scope,
        options: Options,
        memo: Memo,
        snapshot: MeshSnapshot,
        bodies: Bodies,
        history: History,
    ) -> None:
        self.resources = ScopeResources(scope, options, memo)
        self.history = history
        self.bodies = bodies
        """Of responses: one memo for all scopes, which share most of what they are sent."""
        self.made: ByType = {}
        """What is in force; ``resources`` may be half-way to the next."""
        self.snapshot = snapshot
        self.groups: dict[Hashable, Group] = {}
        self.users = 0
        """Groups, and attachments in hand."""
        self.ready = False
        self.building = asyncio.Lock()
        self.backlog: list[tuple[MeshSnapshot, Delta]] = []


class Group:
    """Proxies that get the same."""

    __slots__ = ("current", "lingering", "moved", "own", "place", "proxy", "scope", "wakes")

    def __init__(
        self, proxy: Proxy, scope: SharedScope, own: dict[str, dict[str, Resource]]
    ) -> None:
        self.proxy = proxy
        self.scope = scope
        self.own = own
        self.lingering: set[str] = set()
        """Clusters of its own that are no longer wanted, and that connections may still need."""
        self.place = place_of(proxy)
        self.wakes: dict[Hashable, Wake] = {}
        """Of each stream that holds on to it."""
        self.moved = -1
        """The version at which the group changed its scope: two sets have it, and changes since then would mean either."""
        snapshot = scope.snapshot
        self.current = ResourceSet(
            snapshot.version,
            snapshot.revision,
            (own, scope.made),
            (),
            scope.bodies,
            snapshot.position,
        )

    def renew(self, names: Names | None) -> None:
        """A newer set, which differs from the one before in these names (None: in any)."""
        snapshot, before = self.scope.snapshot, self.current
        changes: tuple[Changes, ...] = ()
        if names is None:
            self.moved = snapshot.version
        elif before.version != self.moved:
            changes = self.scope.history.after(before, names)
        layers = (self.own, self.scope.made)
        self.current = ResourceSet(
            snapshot.version,
            snapshot.revision,
            layers,
            changes,
            self.scope.bodies,
            snapshot.position,
        )

    def still(self) -> None:
        """Nothing that is sent differs; the set holds at the newer revision too, and says of which objects things are now."""
        revision, layers = self.scope.snapshot.revision, (self.own, self.scope.made)
        known = self.current
        if known.revision != revision or not all(map(is_, known.layers, layers)):
            self.current = replace(known, revision=revision, layers=layers)
