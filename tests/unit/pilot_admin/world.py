"""A Pilot without ports over a store in memory: objects go in, proxies attach and answer, views read it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from services.pilot.admin.observed import Observed
from services.pilot.admin.views import read
from services.pilot.blame.judge import Engine, Judge
from services.pilot.due import Timing
from services.pilot.groups import Groups
from services.pilot.index import Index, Published
from services.pilot.model.proxy import Proxy
from services.pilot.xds.connected import Connected, ConnectedProxies
from tests.unit.pilot.mesh import OPTIONS
from tests.unit.pilot.test_index import put
from tests.unit.xds.meshes import deltas
from windward.config.object import ConfigObject
from windward.store.memory import MemoryStore
from windward.xds.resource import PUSH_ORDER, ResourceSet
from windward.xds.stream import DeltaRequest, DeltaStream

PILOT = "pilot.example:15012"


class Follower:
    """A connected proxy that asks for clusters, endpoints, listeners and routes."""

    def __init__(self, world: World, proxy: Proxy, view: Any) -> None:
        self._world = world
        self.proxy = proxy
        self.view = view
        self.stream = DeltaStream(view.current)
        self._synced = view.current.version
        world.connected.add(Connected(proxy, self.stream, datetime.now(UTC), view))
        for url in PUSH_ORDER[:4]:
            self.stream.request(DeltaRequest(url, subscribe=("*",)))

    def answer(self, error: str = "", of: str = "") -> None:
        """Take everything that is sent; refuse, in singles, what is of one type if there is an error."""
        current: ResourceSet = self.view.current
        if current is not self.stream.current:
            self.stream.update(current, {})
        while sent := self.stream.take():
            for response in deltas(sent):
                bad = error if response.type_url == of else ""
                request = DeltaRequest(response.type_url, nonce=response.nonce, error=bad)
                found = self.stream.request(request, 0.0)
                state = self.stream.types[response.type_url]
                self._world.judge.answered(self.proxy, state, found)
        now = asyncio.get_running_loop().time()
        self._world.index.pushes.accepted(self.stream.current, self._synced, now)
        self._synced = self.stream.current.version


class World:
    def __init__(self, ttl_s: float) -> None:
        self.store, self.groups = MemoryStore(), Groups(OPTIONS)
        self.index = Index(self.store, self.groups, ttl_s, Timing(0.001, 0.001, 0.01))
        self.connected = ConnectedProxies()
        self._published: asyncio.Queue[Published] = asyncio.Queue()
        self.index.on_published = self._published.put_nowait
        engine = Engine(
            OPTIONS,
            lambda: self.index.snapshot,
            self.index.objects,
            self.groups.resource,
            self.index.refuse,
            self._hold,
        )
        self.judge = Judge(engine, None)
        self.observed = Observed(
            PILOT,
            lambda: self.index.snapshot,
            self.index.lease,
            self.index.pushes,
            self.groups,
            self.connected,
            self.judge,
        )

    async def _hold(self, held: Any) -> None:
        """No streams here but those that tests drive."""

    async def put(self, *objects: ConfigObject[Any]) -> int:
        """Store, and wait until it is in force."""
        revision = await put(self.store, *objects)
        await self.reached(lambda: self.index.snapshot.revision >= revision)
        return revision

    async def reached(self, holds: Any) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await self._published.get()

    async def follow(self, proxy: Proxy) -> Follower:
        return Follower(self, proxy, await self.groups.attach(proxy, lambda: None))

    async def read(self, view: str, limit: int = 0, /, **query: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        async for chunk in read(self.observed, view, query, limit):
            rows += map(msgspec.json.decode, chunk.rows)
        return rows


@asynccontextmanager
async def running(ttl_s: float = 30.0) -> AsyncIterator[World]:
    world = World(ttl_s)
    task = asyncio.create_task(world.index.run())
    try:
        await asyncio.wait_for(world.index.ready.wait(), 10)
        yield world
    finally:
        task.cancel()
        await asyncio.wait({task})
