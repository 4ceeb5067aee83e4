"""Pilot's engine in this process, given objects that no validator saw, and real Envoys that take or refuse what it makes.

change(objects) -> MeshState -> Groups -> DiscoveryServer -> Envoy: ACK, NACK -> Judge -> status of the objects
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.nacks.envoys import MESSAGES, LeanEnvoy
from services.pilot.api.progress import Progress
from services.pilot.blame.judge import Engine, Judge
from services.pilot.envoy.options import Options
from services.pilot.groups import Groups
from services.pilot.model.proxy import Proxy
from services.pilot.push_log import PushLog
from services.pilot.scratch.envoy import ScratchEnvoy, find_envoy
from services.pilot.scratch.secrets import ScratchSecrets
from services.pilot.state import MeshState
from services.pilot.xds.connected import Connected, ConnectedProxies
from services.pilot.xds.server import DiscoveryServer
from windward.api.config.v1 import config_pb2
from windward.config.object import ConfigObject, ObjectKey
from windward.rpc.http2.server import Http2Server
from windward.xds import resource as xds
from windward.xds.stream import HeldKey, Refusal, TypeState

BORN = datetime(2030, 1, 1, tzinfo=UTC)
CHECKED = (xds.CLUSTER, xds.ENDPOINT, xds.LISTENER, xds.ROUTE)
Behind = tuple[str, str, str]
"""(node id, type URL, name) of a resource that a proxy has not as it is now."""


class Pilot:
    """Everything of Pilot between its index and its port."""

    def __init__(self, binary: str) -> None:
        options = Options("cluster.local", allow_any=True, mixer_addresses=())
        self.state, self.groups = MeshState(), Groups(options)
        self.connected = ConnectedProxies()
        self.server = DiscoveryServer(self.groups, self.connected)
        self.held: Mapping[HeldKey, object] = {}
        engine = Engine(
            options,
            lambda: self.state.snapshot,
            self.state.in_force,
            self.groups.resource,
            self._refuse,
            self._hold,
        )
        self.judge = Judge(engine, ScratchEnvoy(binary) if binary else None)
        self.groups.on_failed = self._noting(self.judge.failed)
        self.groups.on_own_failed = self._noting(self.judge.own_failed)
        self.first_said: float | None = None
        """When something was first said against anything, by the loop's clock."""
        self._progress = Progress(PushLog(), self.judge)
        self._refused: dict[ObjectKey, ConfigObject[Any]] = {}
        self._publishing = asyncio.Lock()
        self._stirred = asyncio.Event()
        self._born = 0
        self.server.tell(self._answered)

    # ---- what comes in ------------------------------------------------------------------------------------------------

    async def change(
        self, objects: Iterable[ConfigObject[Any]] = (), removed: Iterable[ObjectKey] = ()
    ) -> None:
        """Put these in force, with what was refused since."""
        changed: dict[ObjectKey, ConfigObject[Any] | None] = {
            item.key: replace(item, created_at=BORN + timedelta(seconds=self._born))
            for item in objects
        }
        changed.update(dict.fromkeys(removed))
        self._born += 1
        async with self._publishing:
            refused, self._refused = self._refused, {}
            delta = self.state.apply(changed, {}, self._born, refused)
            self.judge.changed((*changed, *self.state.put_again))
            await self.groups.publish(self.state.snapshot, delta)
        self._stirred.set()

    def _refuse(self, item: ConfigObject[Any]) -> None:
        self._refused[item.key] = item
        self._stirred.set()

    async def _hold(self, held: Mapping[HeldKey, object]) -> None:
        self.held = held
        await self.server.hold(held)
        self._stirred.set()

    def _answered(self, proxy: Proxy, state: TypeState, found: tuple[Refusal, ...]) -> None:
        if found:
            self._note()
        self.judge.answered(proxy, state, found)
        self._stirred.set()

    def _noting(self, told: Callable[..., None]) -> Callable[..., None]:
        def note(*said: Any) -> None:
            self._note()
            told(*said)

        return note

    def _note(self) -> None:
        if self.first_said is None:
            self.first_said = asyncio.get_running_loop().time()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.judge.run())
            group.create_task(self._take_back())

    async def _take_back(self) -> None:
        """As the index does: what the judge refuses is published without it."""
        while True:
            await self.stirred()
            if self._refused:
                await self.change()

    # ---- what is known ------------------------------------------------------------------------------------------------

    async def stirred(self) -> None:
        """Until something happens; what happened is looked at again at least every 20 ms, since answers are many."""
        self._stirred.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.02):
                await self._stirred.wait()

    def refusals(self, key: ObjectKey) -> list[config_pb2.Refusal]:
        """What the status of an object says, as ``windward describe`` shows it."""
        status = config_pb2.ObjectStatus()
        self._progress.add_to(status, key)
        return list(status.refusals)

    def behind(self) -> list[Behind]:
        """What proxies have not accepted as it is now."""
        return [
            (item.proxy.id, url, name)
            for item in self.connected
            for url in CHECKED
            for name in _wanted(item, url)
            if not _has(item, url, name)
        ]

    def settled(self, streams: int) -> bool:
        """Whether so many are connected, and all have answered all that there is for them."""
        items = list(self.connected)
        return len(items) == streams and all(
            item.stream.settled
            and item.stream.current.version == item.view.current.version
            and all(not state.todo for state in item.stream.types.values())
            and len(item.stream.types) == len(CHECKED)
            for item in items
        )


def _wanted(item: Connected, url: str) -> set[str]:
    """Names that exist, or that the proxy still has."""
    state = item.stream.types.get(url)
    gone = set() if state is None else {name for name, have in state.overlay.items() if have != ""}
    return gone | {
        name
        for name in item.view.current.names(url)
        if state is not None and state.subscription.wants(name)
    }


def _has(item: Connected, url: str, name: str) -> bool:
    now = item.view.current.get(url, name)
    return item.stream.accepted(url, name) == (now.version if now is not None else "")


class Lab:
    """One Pilot, one sidecar and one gateway."""

    def __init__(self, pilot: Pilot, envoys: list[LeanEnvoy]) -> None:
        self.pilot = pilot
        self.envoys = envoys

    async def until_settled(self, limit_s: float = 30.0) -> None:
        """Until every proxy has answered everything, and nothing more happens for it."""
        async with asyncio.timeout(limit_s):
            while not self.pilot.settled(len(self.envoys)):
                await self.pilot.stirred()

    async def until_in_force(self, limit_s: float = 30.0) -> None:
        async with asyncio.timeout(limit_s):
            while not self.pilot.settled(len(self.envoys)) or self.pilot.behind():
                await self.pilot.stirred()

    async def start(self) -> None:
        for envoy in self.envoys:
            await envoy.start()

    async def stop(self) -> None:
        for envoy in self.envoys:
            await envoy.stop()
        async with asyncio.timeout(10):
            while len(self.pilot.connected):
                await self.pilot.stirred()

    async def differing(self) -> set[Behind]:
        """What Envoys' config dumps show otherwise than it is now; what they have and should not have is in it too."""
        found: set[Behind] = set()
        for envoy in self.envoys:
            has = await envoy.in_force()
            item = next(item for item in self.pilot.connected if item.proxy.id == envoy.node)
            for url, message in MESSAGES.items():
                names = _wanted(item, url) | {name for had, name in has if had == url}
                for name in names:
                    now = item.view.current.get(url, name)
                    wanted = message.FromString(now.body) if now is not None else None
                    if has.get((url, name)) != wanted:
                        found.add((envoy.node, url, name))
        return found


SECRETS = "SecretDiscoveryService"


@asynccontextmanager
async def laboratory(*, sotw: bool, binary: str = "") -> AsyncIterator[Lab]:
    """A Pilot that runs, and Envoys that are not started yet."""
    found = binary or find_envoy("")
    with TemporaryDirectory(prefix="ww-nacks-") as text:
        folder = Path(text)
        pilot = Pilot(found)
        server = Http2Server()
        # Pilot itself has a service of that name, which knows none.
        server.add_generic_rpc_handlers((ScratchSecrets().handlers(),))
        behaviours = pilot.server.behaviours().items()
        server.add_behaviours({name: made for name, made in behaviours if SECRETS not in name})
        server.listen_plaintext(f"unix:{folder / 'ads'}", setting="ads")
        await server.start()
        running = asyncio.create_task(pilot.run())
        lab = Lab(
            pilot, [LeanEnvoy(found, kind, folder, sotw=sotw) for kind in ("sidecar", "router")]
        )
        try:
            yield lab
        finally:
            for envoy in lab.envoys:
                await envoy.stop()
            running.cancel()
            await asyncio.wait({running})
            await server.stop(None)
