"""Proxy groups: proxies that must get the same resources share one set, kept up to date by what changed.

    snapshot, delta -> scopes (what namespaces share) -> groups (what is one identity's own) -> streams are woken

The key of a group holds everything that its output depends on, the identity among it, so nothing of one identity can
reach another by way of a shared set. Work goes in slices: the event loop is never held for the whole of a mesh.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Any

from services.pilot.credentials.refusals import Refusals
from services.pilot.envoy.exchange import NO_NAMES, Names, merged
from services.pilot.envoy.gateway import refused
from services.pilot.envoy.gateway_routes import GATEWAYS
from services.pilot.envoy.memo import Memo
from services.pilot.envoy.options import Options
from services.pilot.envoy.outbound import Scope
from services.pilot.envoy.own import concerns, making, may_move, scope_of
from services.pilot.envoy.scope import ScopeResources
from services.pilot.group import ByType, Group, History, SharedScope, Wake, group_key
from services.pilot.model.proxy import Proxy, ProxyType
from services.pilot.push_log import Push
from services.pilot.snapshot import Delta, MeshSnapshot
from windward.slices import Slices, Turns, Work, at_once
from windward.telemetry.logging import get_logger
from windward.xds.bodies import Bodies
from windward.xds.resource import CLUSTER, ENDPOINT, Origin, Resource, ResourceSet

log = get_logger()
PUSH_SLICE_S = 0.004
"""How long a push may hold the event loop: meanwhile no answers are read, which others who wait for the change would pay for."""
FEW = 64
"""Hosts whose endpoints change at once, up to which scopes exchange them without giving way."""
AHEAD = 8
"""Maps that are copied before somebody changes them."""


class View:
    """One stream's hold on its group."""

    __slots__ = ("_group", "_groups")

    def __init__(self, groups: Groups, group: Group) -> None:
        self._groups = groups
        self._group: Group | None = group

    @property
    def current(self) -> ResourceSet:
        assert self._group is not None
        return self._group.current

    def detach(self) -> None:
        if self._group is not None:
            self._groups.release(self._group, self)
            self._group = None


class Groups:
    """See services.pilot.model.source.ResourceSource. One owner publishes; streams read."""

    def __init__(self, options: Options, linger_s: float = 0.0) -> None:
        """``linger_s``: how long a proxy keeps clusters of its own that are gone; as long as its listeners drain."""
        self.options = options
        self._linger_s = linger_s
        self._memo = Memo()
        self._bodies = Bodies()
        self._history = History()
        self._failed: dict[str, set[str]] = {}
        self._refusals = Refusals()
        self._turns = Turns()
        self._building = asyncio.Lock()
        self._scopes: dict[Scope, SharedScope] = {}
        self._groups: dict[Hashable, Group] = {}
        self.snapshot = MeshSnapshot()
        self.on_failed: Callable[[Scope, str, str], None] = lambda *_: None
        """Told once of a host that cannot be built as it is now, and why."""
        self.on_own_failed: Callable[[Proxy, tuple[Origin, ...], str], None] = lambda *_: None
        """Told whenever a part of what is one proxy's alone cannot be built: the objects that it is made of, and why."""

    # ---- streams ----------------------------------------------------------------------------------------------------

    async def attach(self, proxy: Proxy, wake: Wake) -> View:
        key = group_key(proxy)
        while (group := self._groups.get(key)) is None:
            shared = await self._scope(scope_of(self.snapshot, proxy))
            try:
                own = await self._first_own(shared, proxy)
            except BaseException:
                self._leave(shared)
                raise
            if (
                key not in self._groups
                and scope_of(shared.snapshot, proxy) == shared.resources.scope
            ):
                self._groups[key] = shared.groups[key] = Group(proxy, shared, own)
            else:
                self._leave(shared)
        view = View(self, group)
        group.wakes[view] = wake
        return view

    async def _first_own(self, shared: SharedScope, proxy: Proxy) -> dict[str, dict[str, Resource]]:
        """What is the proxy's own at the very snapshot that its scope is at when this returns."""
        snapshot = shared.snapshot
        own = await self._turns.run(self._own(snapshot, proxy, {}))
        # Of what was made a moment ago little is made again.
        return (
            own if shared.snapshot is snapshot else at_once(self._own(shared.snapshot, proxy, {}))
        )

    def _own(
        self, snapshot: MeshSnapshot, proxy: Proxy, before: dict[str, dict[str, Resource]]
    ) -> Work[dict[str, dict[str, Resource]]]:
        """A proxy's own resources, without what cannot be built; as they were, when that cannot be told apart."""

        def failed(origins: tuple[Origin, ...], error: Exception) -> None:
            self.on_own_failed(proxy, origins, f"{type(error).__name__}: {error}")

        if proxy.type is ProxyType.ROUTER:
            self._refusals.tell(proxy, refused(snapshot, proxy, self.options))
        try:
            made = yield from making(snapshot, proxy, self.options, failed, self._memo)
        except Exception as error:
            log.exception("build.failed", proxy=proxy.id, reason=f"{type(error).__name__}: {error}")
            return before
        return _by_type(made)

    def resource(self, proxy: Proxy, type_url: str, name: str) -> Resource | None:
        """What a connected proxy should have of a name."""
        group = self._groups.get(group_key(proxy))
        return group.current.get(type_url, name) if group is not None else None

    def scopes(self) -> list[SharedScope]:
        """Everything that is shared now, in no order."""
        return list(self._scopes.values())

    def release(self, group: Group, view: View) -> None:
        del group.wakes[view]
        if not group.wakes:
            key = group_key(group.proxy)
            del self._groups[key]
            del group.scope.groups[key]
            self._leave(group.scope)

    def _leave(self, shared: SharedScope) -> None:
        shared.users -= 1
        if shared.users == 0:
            del self._scopes[shared.resources.scope]

    async def _scope(self, scope: Scope, *, pushed: bool = False) -> SharedScope:
        """The scope's resources, one more user counted; built, in turns, if nobody has them yet.

        ``pushed``: a push waits for them, and with it everybody's next change.
        """
        shared = self._scopes.get(scope)
        if shared is None:
            shared = SharedScope(
                scope, self.options, self._memo, self.snapshot, self._bodies, self._history
            )
            self._scopes[scope] = shared
        shared.users += 1
        try:
            if not shared.ready and pushed:
                await self._build(shared)
            elif not shared.ready:
                # One at a time: the next one can take most from the one before, see ``_base``.
                async with self._building:
                    await self._build(shared)
        except BaseException:
            self._leave(shared)
            raise
        return shared

    async def _build(self, shared: SharedScope) -> None:
        """A first build takes long; what is published meanwhile is caught up with at its end."""
        async with shared.building:
            if shared.ready:
                return
            await self._turns.run(self._from_nothing(shared))
            while shared.backlog:
                snapshot, delta = shared.backlog.pop(0)
                await self._turns.run(shared.resources.advance(snapshot, delta))
                shared.snapshot = snapshot
            self._report(shared)
            shared.made = shared.resources.made
            shared.ready = True

    def _from_nothing(self, shared: SharedScope) -> Work[None]:
        """Its moment, and what is taken from another scope, are of the first turn: while it waits for that, a push goes on."""
        shared.resources = ScopeResources(shared.resources.scope, self.options, self._memo)
        shared.snapshot = self.snapshot
        shared.backlog.clear()
        yield from shared.resources.build(shared.snapshot, self._base(shared))

    def _base(self, wanted: SharedScope) -> ScopeResources | None:
        """Resources of this very moment that most of a new scope's can be taken from."""
        for shared in self._scopes.values():
            if shared.ready and shared.snapshot is wanted.snapshot:
                resources = shared.resources
                if not resources.moving and resources.is_like(wanted.resources.scope):
                    return resources
        return None

    def _report(self, shared: SharedScope) -> None:
        """Say once of each host that it cannot be built as it is now, and why; again when it is for another reason."""
        failed = shared.resources.failed
        for host, reason in failed.items():
            said = self._failed.setdefault(host, set())
            if reason not in said:
                said.add(reason)
                log.error("build.failed", host=host, reason=reason)
                self.on_failed(shared.resources.scope, host, reason)
        for host in shared.resources.touched & self._failed.keys() - failed.keys():
            del self._failed[host]

    # ---- publishing -------------------------------------------------------------------------------------------------

    async def publish(self, snapshot: MeshSnapshot, delta: Delta, push: Push | None = None) -> int:
        """Put a snapshot in force, scope by scope, waking streams as their scopes are done. How many groups it changed."""
        before, self.snapshot = self.snapshot, snapshot
        self._memo.version = snapshot.version
        self._bodies.age(asyncio.get_running_loop().time())
        slices = Slices(PUSH_SLICE_S)
        waking, moving, touched = _Waking(push), list[Group](), set(delta.hosts)
        differs, only_endpoints = bool(delta), delta.only_endpoints
        few = None
        if differs and only_endpoints and len(delta.endpoints) <= FEW:
            few = sorted(delta.endpoints)
        for shared in list(self._scopes.values()):
            if not shared.ready:
                shared.backlog.append((snapshot, delta))
                continue
            resources, names = shared.resources, NO_NAMES
            if few is not None:
                resources.exchange(snapshot, few)
                names = resources.changed
            elif differs:
                await slices.run(resources.advance(snapshot, delta))
                names = resources.changed
                touched |= resources.touched
            if differs and (resources.failed or self._failed):
                self._report(shared)
            shared.made, shared.snapshot = resources.made, snapshot
            for group in list(shared.groups.values()):
                changed = names
                if differs and not (only_endpoints and group.place not in delta.addresses):
                    if may_move(delta, group.proxy):
                        moving.append(group)
                    if concerns(delta, before, group.proxy):
                        changed = merged(names, await slices.run(self._renew_own(group)))
                if not changed:
                    group.still()
                    continue
                group.renew(changed)
                for wake in waking.told(group, changed):
                    wake()
                    if slices.over:
                        await slices.pause()
        await self._move_all(moving, waking, slices)
        await slices.run(self._memo.sweep(touched))
        if delta.gateways or delta.credentials:
            self._memo.keep_used(GATEWAYS)
        self._memo.forget(delta.services - snapshot.services.keys())
        return waking.groups

    def look_ahead(self) -> None:
        """In a quiet moment, so that the next change of endpoints finds copies of the maps that it exchanges something in."""
        found = (shared.made.get(ENDPOINT) for shared in self._scopes.values())
        maps = {id(made): made for made in found if made}
        self._memo.ahead.prepare(islice(maps.values(), AHEAD))

    def _renew_own(self, group: Group) -> Work[Names]:
        """Make what is the group's own again; the names that differ."""
        own = yield from self._own(group.scope.snapshot, group.proxy, group.own)
        # At one stroke: meanwhile the time of what lingers may be up.
        self._linger(group, own)
        differing = at_once(_differing(group.own, own))
        if own != group.own:
            group.own = own
        return differing

    def _linger(self, group: Group, own: dict[str, dict[str, Resource]]) -> None:
        """Keep the clusters that a proxy is to lose as long as its listeners drain.

        A filter chain that is gone finishes the requests of its connections, which another proxy may have sent before it heard
        of the change: to them the cluster has to be there. Source: Envoy "Draining", filter chain update in place.
        """
        kept = group.own.get(CLUSTER, {})
        going = kept.keys() - own.get(CLUSTER, {}).keys()
        if not self._linger_s or not going:
            group.lingering &= going
            return
        own[CLUSTER] = {**own.get(CLUSTER, {}), **{name: kept[name] for name in going}}
        fresh = going - group.lingering
        group.lingering = set(going)
        if fresh:
            loop = asyncio.get_running_loop()
            loop.call_later(self._linger_s, self._let_go, group, fresh)

    def _let_go(self, group: Group, names: AbstractSet[str]) -> None:
        """The listeners have drained."""
        going = frozenset(names & group.lingering)
        if not going or self._groups.get(group_key(group.proxy)) is not group:
            return
        group.lingering -= going
        clusters = group.own.get(CLUSTER, {})
        group.own = {
            **group.own,
            CLUSTER: {name: item for name, item in clusters.items() if name not in going},
        }
        group.renew(None)
        for wake in list(group.wakes.values()):
            wake()

    async def _move_all(self, groups: list[Group], waking: _Waking, slices: Slices) -> None:
        """To the scopes that are theirs now. Many go the same way: what differs between two scopes is found once."""
        moves: dict[tuple[int, int], tuple[ByType, ByType, Names]] = {}
        for group in groups:
            left = group.scope.made
            if await self._move(group):
                now = group.scope.made
                way = (id(left), id(now))
                if way not in moves:
                    moves[way] = (left, now, await slices.run(_differing(left, now)))
                for wake in waking.told(group, moves[way][2]):
                    wake()
                    if slices.over:
                        await slices.pause()

    async def _move(self, group: Group) -> bool:
        """To the scope that is the group's now, if it is another one: anything may differ there."""
        left, key = group.scope, group_key(group.proxy)
        scope = scope_of(self.snapshot, group.proxy)
        if scope == left.resources.scope or self._groups.get(key) is not group:
            return False
        shared = await self._scope(scope, pushed=True)
        if self._groups.get(key) is not group:
            self._leave(shared)
            return False
        del left.groups[key]
        self._leave(left)
        group.scope = shared
        shared.groups[key] = group
        group.renew(None)
        return True


class _Waking:
    """Whom a push wakes; each stream makes and sends its response before its ``wake`` returns."""

    def __init__(self, push: Push | None) -> None:
        self.groups = 0
        self._push = push

    def told(self, group: Group, changed: Names) -> list[Wake]:
        self.groups += 1
        if self._push is not None:
            self._push.tell(len(group.wakes), changed)
        return list(group.wakes.values())


def _by_type(resources: list[Resource]) -> dict[str, dict[str, Resource]]:
    made: dict[str, dict[str, Resource]] = {}
    for item in resources:
        made.setdefault(item.type_url, {}).setdefault(item.name, item)
    return made


def _differing(before: ByType, now: ByType) -> Work[dict[str, frozenset[str]]]:
    """The names that differ, a type a step."""
    found: dict[str, frozenset[str]] = {}
    nothing: dict[str, Any] = {}
    for type_url in before.keys() | now.keys():
        yield
        old, new = before.get(type_url, nothing), now.get(type_url, nothing)
        names = frozenset(
            name
            for name in old.keys() | new.keys()
            if name not in old or name not in new or old[name].version != new[name].version
        )
        if names:
            found[type_url] = names
    return found
