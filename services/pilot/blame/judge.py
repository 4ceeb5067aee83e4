"""What becomes of a refusal: held for the one who refused it at once (by its stream), for all once it is proved.

    a proxy's NACK ─► Refused(type, name, version) ─► scratch Envoy refuses it too ─┬─► VirtualService: the last good one
                                                  └─► three identities refuse it ───┘   in force; else: version held
                                                      and the objects' status says which field is to blame

No single proxy can freeze others: without a scratch Envoy that agrees, three identities must.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from services.pilot.blame.blame import Blame, Inquiry
from services.pilot.blame.unbuilt import blame_unbuilt, suspects_of
from services.pilot.blame.workshop import Objects, Workshop
from services.pilot.envoy.options import Options
from services.pilot.envoy.outbound import Scope
from services.pilot.model.proxy import Proxy
from services.pilot.registry.mesh import origin_of
from services.pilot.scratch.envoy import ScratchEnvoy, Unanswered
from services.pilot.snapshot import MeshSnapshot
from windward.config.object import ConfigObject, ObjectKey
from windward.telemetry.logging import get_logger
from windward.xds.resource import Resource
from windward.xds.stream import HeldKey, Refusal, TypeState

log = get_logger()
AGREEING = 3
"""Identities that must refuse the same bytes before others are spared them."""
MOST_CASES = 1000
UNBUILT = "unbuilt"
"""In the place of a type URL: a host that could not be built."""
RELEASE: HeldKey = ("", "", "")
"""In the queue of cases: what is held has become less."""
MOST_IDENTITIES = 100
"""Of one case: beyond it nobody is counted any more."""


@dataclass(slots=True)
class Case:
    """One version of one resource that was refused."""

    refusal: Refusal
    resource: Resource
    proxy: Proxy | None
    """The first who refused it; None for what could not even be built."""
    identities: set[str] = field(default_factory=set)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    blames: tuple[Blame, ...] = ()
    proved: bool = False
    """Whether nobody else is sent it."""
    scope: Scope | None = None
    """Where a host cannot be built."""

    @property
    def key(self) -> HeldKey:
        return (self.refusal.type_url, self.refusal.name, self.refusal.version)

    def is_about(self, key: ObjectKey) -> bool:
        return any(
            (o.group, o.kind, o.namespace, o.name) == (key.group, key.kind, key.namespace, key.name)
            for o in self.resource.origins
        )


class Engine:
    """What the judge asks of the engine, as functions."""

    def __init__(
        self,
        options: Options,
        snapshot: Callable[[], MeshSnapshot],
        objects: Callable[[], Objects],
        resource: Callable[[Proxy, str, str], Resource | None],
        refuse: Callable[[ConfigObject[Any]], None],
        hold: Callable[[Mapping[HeldKey, object]], Awaitable[None]],
    ) -> None:
        self.options = options
        self.snapshot = snapshot
        self.objects = objects
        self.resource = resource
        self.refuse = refuse
        self.hold = hold


class Judge:
    """One task judges, one case at a time; ``answered`` is called by streams and does next to nothing."""

    def __init__(self, engine: Engine, scratch: ScratchEnvoy | None) -> None:
        self._engine = engine
        self._scratch = scratch
        self._cases: dict[HeldKey, Case] = {}
        self._waiting: asyncio.Queue[HeldKey] = asyncio.Queue(MOST_CASES)
        self._held: dict[HeldKey, object] = {}

    def answered(self, proxy: Proxy, _: TypeState, refusals: tuple[Refusal, ...]) -> None:
        """A proxy's ACK or NACK, with the resources that it proves bad."""
        for refusal in refusals:
            key = (refusal.type_url, refusal.name, refusal.version)
            case = self._cases.get(key)
            if case is None:
                case = self._open(key, proxy, refusal)
            if case is None or len(case.identities) >= MOST_IDENTITIES:
                continue
            case.identities.add(str(proxy.identity or proxy.id))
            if not case.proved and len(case.identities) in {1, AGREEING}:
                self._queue(key)

    def failed(self, scope: Scope, host: str, reason: str) -> None:
        """A host cannot be built as it is now: it stays as it was, and somebody is to blame."""
        key = (UNBUILT, host, reason)
        if key in self._cases:
            return
        suspects = suspects_of(self._engine.snapshot(), self._engine.objects(), host)
        resource = Resource(UNBUILT, host, b"", tuple(map(origin_of, suspects)), reason)
        refusal = Refusal(UNBUILT, host, reason, reason, self._engine.snapshot().revision, 0.0)
        self._room()
        self._cases[key] = Case(refusal, resource, None, proved=True, scope=scope)
        self._queue(key)

    def _room(self) -> None:
        while len(self._cases) >= MOST_CASES:
            self._close(next(iter(self._cases)))

    def _open(self, key: HeldKey, proxy: Proxy, refusal: Refusal) -> Case | None:
        resource = self._engine.resource(proxy, refusal.type_url, refusal.name)
        if resource is None or resource.version != refusal.version:
            return None  # it is another one already
        self._room()
        case = self._cases[key] = Case(refusal, resource, proxy)
        return case

    def _queue(self, key: HeldKey) -> None:
        if not self._waiting.full():
            self._waiting.put_nowait(key)

    def _close(self, key: HeldKey) -> bool:
        """Forget a case; whether its version was held."""
        del self._cases[key]
        return self._held.pop(key, None) is not None

    async def run(self) -> None:
        """Judge for ever."""
        try:
            while True:
                key = await self._waiting.get()
                if key == RELEASE:
                    await self._engine.hold(dict(self._held))
                case = self._cases.get(key)
                if case is not None and case.scope is not None:
                    await self._judge_unbuilt(case, case.scope)
                elif case is not None and not case.proved:
                    await self._judge(case)
        finally:
            if self._scratch is not None:
                await self._scratch.close()

    async def _judge_unbuilt(self, case: Case, scope: Scope) -> None:
        engine = self._engine
        found = await blame_unbuilt(
            engine.snapshot(), scope, engine.options, engine.objects(), case.refusal.name
        )
        case.blames = tuple(found)
        for blame in found:
            log.error(
                "config.cannot_be_built", object=str(blame.key), path=blame.path, words=blame.words
            )

    async def _judge(self, case: Case) -> None:
        agreed = len(case.identities) >= AGREEING
        if self._scratch is not None and not case.blames and case.proxy is not None:
            objects = self._engine.objects()
            workshop = Workshop(self._engine.snapshot(), case.proxy, self._engine.options)
            inquiry = Inquiry(case.resource, workshop, objects, self._scratch.refuses)
            try:
                case.blames = tuple(await inquiry.blames())
                agreed = agreed or bool(case.blames)
            except Unanswered as error:
                log.warning("nack.untried", resource=case.refusal.name, reason=str(error))
        if not agreed or case.key not in self._cases:
            return
        case.proved = True
        for blame in case.blames:
            log.error(
                "config.refused_by_envoy", object=str(blame.key), path=blame.path, words=blame.words
            )
        await self._spare_others(case)

    async def _spare_others(self, case: Case) -> None:
        """Routes are many objects' in one resource: there the object is taken back; elsewhere the version is held."""
        objects = self._engine.objects()
        routes = [objects.get(b.key) for b in case.blames if b.key.kind == "VirtualService"]
        present = [item for item in routes if item is not None]
        for item in present:
            self._engine.refuse(item)
        if not present:
            self._held[case.key] = case
            await self._engine.hold(dict(self._held))

    def changed(self, keys: Iterable[ObjectKey]) -> None:
        """Objects are others now: what was said of them, and held because of them, is over."""
        over = dict.fromkeys(
            case.key for key in keys for case in self._cases.values() if case.is_about(key)
        )
        released = [self._close(key) for key in over]
        if any(released):
            self._queue(RELEASE)

    def about(self, key: ObjectKey) -> list[Case]:
        """Cases that an object is to blame for, or, where nobody is found to blame, is part of."""
        found = []
        for case in self._cases.values():
            blamed = {blame.key for blame in case.blames}
            if key in blamed or (not blamed and case.is_about(key)):
                found.append(case)
        return found

    def __iter__(self) -> Iterator[Case]:
        return iter(list(self._cases.values()))
