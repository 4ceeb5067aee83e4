"""The index: one task owns the mesh's state, takes in changes, and publishes snapshots.

    config feed ──┐
    endpoints ────┼─> what changed, by key -> quiet for a moment -> MeshState.apply -> snapshot, delta -> Groups.publish
    clock ────────┘

Removals and health go out at once, new endpoints within 5 ms, configuration after 10 ms of quiet and at most 100 ms (due.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from services.pilot.credentials.credential import Credential, CredentialName
from services.pilot.credentials.folder import Folder, follow
from services.pilot.credentials.wanted import absent
from services.pilot.due import Due, Timing
from services.pilot.groups import Groups
from services.pilot.model.position import Position
from services.pilot.push_log import PushLog
from services.pilot.reach import Reach
from services.pilot.registry.feed import with_registries
from services.pilot.registry.liveness import (
    Liveness,
    LivenessTable,
    Served,
    WorkloadBatch,
    WorkloadKey,
)
from services.pilot.registry.protocol import Sources
from services.pilot.registry.workloads import follow_workloads, forget
from services.pilot.snapshot import Delta, MeshSnapshot
from services.pilot.state import MeshState
from windward.config.feed import ConfigBatch, follow_config
from windward.config.object import ConfigObject, ObjectKey
from windward.slices import Work, in_slices
from windward.store.errors import StoreError
from windward.store.keys import ENDPOINTS
from windward.store.protocol import Store
from windward.telemetry.logging import get_logger

log = get_logger()
QUIET_S = 0.05
"""After a push, until the next one's copies are made."""
PROBE_S = 1.0
SLOW_S = 0.8
"""A store that takes this long to answer one read has been away."""


@dataclass(frozen=True, slots=True)
class Published:
    """One snapshot put in force."""

    snapshot: MeshSnapshot
    delta: Delta
    causes: tuple[ObjectKey, ...]
    """Objects that changed."""
    workloads: tuple[WorkloadKey, ...]
    groups: int
    """How many groups have other resources now."""
    seconds: float
    """From the first change to the last stream woken."""


class Index:
    def __init__(
        self,
        store: Store,
        groups: Groups,
        ttl_s: float,
        timing: Timing | None = None,
        sources: Sources | None = None,
        credentials: Folder | None = None,
    ) -> None:
        self._store = store
        self.groups = groups
        self._due = Due(timing or Timing())
        self._registries = sources or Sources()
        self._folder = credentials
        self._state = MeshState()
        self._objects: dict[ObjectKey, ConfigObject[Any] | None] = {}
        """What changed since the last snapshot; None: removed."""
        self._workloads: Served = {}
        self._credentials: dict[CredentialName, Credential | None] = {}
        self._absent: dict[str, str] = {}
        """Credentials that Gateways name and nobody has, as was said last."""
        self._refused: dict[ObjectKey, ConfigObject[Any]] = {}
        self.pushes = PushLog()
        self._liveness = LivenessTable(ttl_s)
        self._position = Position()
        """What was read; ``reach`` knows what of it is in force."""
        self.reach = Reach(store)
        self._wake = asyncio.Event()
        self._missing = 2 + (credentials is not None)
        """Sources that were not read whole yet."""
        self.ready = asyncio.Event()
        """Set once configuration and endpoints were read whole and are published."""
        self.on_changing: Callable[[tuple[ObjectKey, ...]], None] = lambda _: None
        """Told of the objects that changed before what they make is put in force."""
        self.on_push: Callable[[bool], None] = lambda _: None
        """Told when a push begins, and when it is over."""
        self.on_published: Callable[[Published], None] = lambda _: None

    @property
    def snapshot(self) -> MeshSnapshot:
        return self._state.snapshot

    def lease(self, key: WorkloadKey) -> Liveness | None:
        """How alive a registered workload is; None for one that is not registered."""
        return self._liveness.state(key)

    def objects(self) -> dict[ObjectKey, ConfigObject[Any]]:
        """Every object that ``snapshot`` is of; made anew with each call."""
        return self._state.in_force()

    def refuse(self, item: ConfigObject[Any]) -> None:
        """Envoy refuses an object as it is now: the last good one stays in force, for everybody."""
        self._refused[item.key] = item
        self._due.now(asyncio.get_running_loop().time())
        self._wake.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(
                self._read_config(with_registries(follow_config(self._store), self._registries))
            )
            group.create_task(self._read_endpoints(follow_workloads(self._store)))
            if self._folder is not None:
                group.create_task(self._read_credentials(self._folder))
            group.create_task(self._publish())
            group.create_task(self._watch_for_outages())

    async def _read_config(self, feed: AsyncIterator[ConfigBatch]) -> None:
        first = True
        loop = asyncio.get_running_loop()
        async for batch in feed:
            # Taken over at one stroke: what came together is published together.
            come = await in_slices(_by_key(batch))
            self._objects |= come  # not before: a snapshot may have taken the last ones meanwhile
            for key, findings in batch.invalid:
                log.warning(
                    "config.unreadable", object=str(key), findings=[f.message for f in findings]
                )
            self._read(config=batch.revision)
            self._missing -= first
            if first:
                self._due.now(loop.time())
            else:
                self._due.config(loop.time())
            self._wake.set()
            first = False

    async def _read_endpoints(self, feed: AsyncIterator[WorkloadBatch]) -> None:
        first = True
        loop = asyncio.get_running_loop()
        async for batch in feed:
            if first:
                self._liveness.outage(loop.time())
            changed = self._liveness.apply(batch, loop.time())
            self._workloads.update(changed)
            self._read(registrations=batch.revision)
            self._missing -= first
            if first or (changed and batch.urgent):
                self._due.now(loop.time())
            else:
                self._due.endpoints(loop.time())
            self._wake.set()
            first = False

    async def _read_credentials(self, folder: Folder) -> None:
        first = True
        async with aclosing(follow(folder)) as feed:
            async for changed in feed:
                self._credentials |= changed
                self._missing -= first
                self._due.now(asyncio.get_running_loop().time())
                self._wake.set()
                first = False

    def _read(self, config: int = 0, registrations: int = 0) -> None:
        had = self._position
        self._position = Position(max(had.config, config), max(had.registrations, registrations))

    async def _watch_for_outages(self) -> None:
        """A store or a Pilot that was away may have let leases run out: what lapses right after is doubted."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await asyncio.sleep(PROBE_S)
            if loop.time() - began > PROBE_S + SLOW_S:
                self._liveness.outage(loop.time())
            began = loop.time()
            try:
                await self._store.get(ENDPOINTS)
            except StoreError:
                self._liveness.outage(loop.time())
                continue
            if loop.time() - began > SLOW_S:
                self._liveness.outage(loop.time())
            await forget(self._store, self._liveness.forgotten)

    async def _publish(self) -> None:
        loop = asyncio.get_running_loop()
        ahead = loop.call_later(QUIET_S, self._look_ahead)
        while True:
            await self._wait()
            if expired := self._liveness.tick(loop.time()):
                self._workloads.update(expired)
                self._due.now(loop.time())
            due_s = self._due.at_s
            if due_s is None or loop.time() < due_s or self._missing:
                continue
            ahead.cancel()
            await self._publish_now(self._due.take(loop.time()))
            self._due.done(loop.time())
            ahead = loop.call_later(QUIET_S, self._look_ahead)

    async def _publish_now(self, began_s: float) -> None:
        """Everything that is known, whatever brought it: what is sent is never newer in one part than in another."""
        objects, workloads = self._objects, self._workloads
        self._objects, self._workloads = {}, {}
        refused, self._refused = self._refused, {}
        credentials, self._credentials = self._credentials, {}
        position = self._position
        delta = await in_slices(
            self._state.applying(
                objects,
                workloads,
                position.config,
                refused,
                position=str(position),
                credentials=credentials,
            )
        )
        snapshot = self._state.snapshot
        if delta.gateways or delta.credentials:
            self._say_absent(snapshot)
        push = None
        if delta:
            push = self.pushes.begin(
                snapshot.version,
                snapshot.revision,
                began_s,
                (*objects, *refused),
                tuple(workloads),
            )
        self.on_changing((*objects, *self._state.put_again))
        self.on_push(True)
        try:
            groups = await self.groups.publish(snapshot, delta, push)
        finally:
            self.on_push(False)
        self.reach.advance(position)
        self.ready.set()
        seconds = asyncio.get_running_loop().time() - began_s
        self.on_published(
            Published(snapshot, delta, tuple(objects), tuple(workloads), groups, seconds)
        )
        log.debug(
            "snapshot.published",
            version=snapshot.version,
            revision=snapshot.revision,
            groups=groups,
            seconds=seconds,
        )

    def _look_ahead(self) -> None:
        """After a push, when nothing has come for a moment."""
        self._state.look_ahead()
        self.groups.look_ahead()

    def _say_absent(self, snapshot: MeshSnapshot) -> None:
        """Once of each credential, as long as it lasts: a server without it refuses its clients."""
        now = absent(snapshot.gateways, snapshot.credentials)
        for name in now.keys() - self._absent.keys():
            log.warning(
                "credential.absent",
                credential=name,
                gateway=now[name],
                hint=f"put it into --gateway-secrets, as <namespace of the gateway's workload>/{name}/",
            )
        self._absent = now

    async def _wait(self) -> None:
        """Until something is due: a change's delay, a lease's grace, or news."""
        loop = asyncio.get_running_loop()
        moments = [
            moment
            for moment in (self._due.at_s, self._liveness.next_tick_s())
            if moment is not None
        ]
        if self._missing or not moments:
            await self._wake.wait()
        else:
            left = min(moments) - loop.time()
            if left > 0:
                try:
                    async with asyncio.timeout(left):
                        await self._wake.wait()
                except TimeoutError:
                    return
        self._wake.clear()


def _by_key(batch: ConfigBatch) -> Work[dict[ObjectKey, ConfigObject[Any] | None]]:
    made: dict[ObjectKey, ConfigObject[Any] | None] = {}
    for item in batch.upserts:
        made[item.key] = item
        yield
    return made | dict.fromkeys(batch.removed)
