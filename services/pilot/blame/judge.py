"""What becomes of a refusal: held for the one who refused it at once (by its stream), for all once it is proved.

    a proxy's NACK ─► Refused(type, name, version) ─► scratch Envoy refuses it too ─┬─► of many objects: the one to blame
                                                  └─► three identities refuse it ───┘   as it was before; else: version held
    what cannot be built ─► the object to blame as it was before                          and its status says which field

No single proxy can freeze others: without a scratch Envoy that agrees, three identities must.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from services.pilot.blame.blame import Blame
from services.pilot.blame.inquiry import Inquiry, about, of_unbuilt_host, of_unbuilt_own
from services.pilot.blame.patience import Patience
from services.pilot.blame.workshop import Objects, Workshop, key_of
from services.pilot.envoy.options import Options
from services.pilot.envoy.outbound import Scope
from services.pilot.model.proxy import Proxy
from services.pilot.registry.mesh import origin_of
from services.pilot.scratch.envoy import ScratchEnvoy, Unanswered
from services.pilot.snapshot import MeshSnapshot
from windward.config.object import ConfigObject, ObjectKey
from windward.telemetry.logging import get_logger
from windward.xds import resource as xds
from windward.xds.knowledge import Have
from windward.xds.resource import Origin, Resource
from windward.xds.stream import HeldKey, Refusal, TypeState

log = get_logger()
AGREEING = 3
"""Identities that must refuse the same bytes before others are spared them."""
MOST_CASES = 1000
UNBUILT = "unbuilt"
"""In the place of a type URL: what could not be built."""
MOST_OPEN = 200
"""Cases that one identity may open before others, or the scratch, agree with any of them."""
MANY = 8
"""Resources that an object is to blame for; one with so many is taken back, whatever they are."""
MOST_IDENTITIES = 100
"""Of one case: beyond it nobody is counted any more."""


@dataclass(slots=True)
class Case:
    """One version of one resource that was refused, or something that cannot be built."""

    refusal: Refusal
    resource: Resource
    proxy: Proxy | None
    """The first who refused it, or whose own it is; None for a host that cannot be built."""
    scope: Scope | None = None
    """Where a host cannot be built."""
    identities: set[str] = field(default_factory=set)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    blames: tuple[Blame, ...] = ()
    proved: bool = False
    """Whether nobody else is sent it."""
    opened_by: str = ""
    """The identity in whose count of open cases it is."""
    had: Resource | None = None
    """What the first who refused it has in its place: that it took."""
    taken_back: bool = False
    """Whether the objects to blame are not in force because of it."""
    objects: frozenset[ObjectKey] = field(init=False)
    """Those that it was built from."""

    def __post_init__(self) -> None:
        self.objects = frozenset(map(key_of, self.resource.origins))

    @property
    def key(self) -> HeldKey:
        return (self.refusal.type_url, self.refusal.name, self.refusal.version)

    @property
    def blamed(self) -> set[ObjectKey]:
        return {blame.key for blame in self.blames}

    @property
    def ends_with(self) -> AbstractSet[ObjectKey]:
        """Objects with whose next change it is over."""
        return self.blamed if self.taken_back else self.objects

    @property
    def is_of_many(self) -> bool:
        """Whether to hold it would hold back what others than those to blame have in it."""
        url = self.refusal.type_url
        if url in {xds.CLUSTER, xds.ENDPOINT}:
            return any(key.kind == "WorkloadEntry" for key in self.blamed)
        return url != xds.LISTENER or not self.objects <= self.blamed


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
        self._waiting: dict[HeldKey, None] = {}
        """Cases to judge, the oldest first; none but those of the table, so that it is bounded as that is."""
        self._woken = asyncio.Event()
        self._held: dict[HeldKey, object] = {}
        self._released = False
        """Whether what is held has become less."""
        self._patience = Patience()
        self._opened: Counter[str] = Counter()
        """Who opened how many cases that are not proved."""

    def answered(self, proxy: Proxy, state: TypeState, refusals: tuple[Refusal, ...]) -> None:
        """A proxy's ACK or NACK, with the resources that it proves bad; ``state`` knows what it has in their place."""
        for refusal in refusals:
            key = (refusal.type_url, refusal.name, refusal.version)
            case = self._cases.get(key)
            if case is None:
                case = self._open(proxy, refusal, state.overlay.get(refusal.name))
            if case is None or len(case.identities) >= MOST_IDENTITIES:
                continue
            before = len(case.identities)
            case.identities.add(_who(proxy))
            if not case.proved and before != len(case.identities) <= AGREEING:
                case.proxy = proxy
                self._queue(key)

    def failed(self, scope: Scope, host: str, reason: str) -> None:
        """A host cannot be built as it is now: it stays as it was, and somebody is to blame."""
        suspects = about(self._workshop(), self._engine.objects(), host)
        self._unbuilt(host, tuple(map(origin_of, suspects)), reason, None, scope)

    def own_failed(self, proxy: Proxy, origins: tuple[Origin, ...], reason: str) -> None:
        """A part of what is a proxy's alone cannot be built from these."""
        name = f"{origins[0].kind}/{origins[0].namespace}/{origins[0].name}"
        self._unbuilt(name, origins, reason, proxy, None)

    def _unbuilt(
        self,
        name: str,
        origins: tuple[Origin, ...],
        reason: str,
        proxy: Proxy | None,
        scope: Scope | None,
    ) -> None:
        key = (UNBUILT, name, reason)
        if key in self._cases:
            return
        refusal = Refusal(UNBUILT, name, reason, reason, self._engine.snapshot().revision, 0.0)
        resource = Resource(UNBUILT, name, b"", origins, reason)
        self._room()
        self._cases[key] = Case(refusal, resource, proxy, scope, proved=True)
        self._queue(key)

    def _room(self) -> None:
        """A table that is full loses its oldest case, of those that nobody else found true the oldest."""
        while len(self._cases) >= MOST_CASES:
            open_ones = (key for key, case in self._cases.items() if not case.proved)
            self._close(next(open_ones, next(iter(self._cases))))

    def _open(self, proxy: Proxy, refusal: Refusal, had: Have | None) -> Case | None:
        if self._opened[_who(proxy)] >= MOST_OPEN:
            return None
        resource = self._engine.resource(proxy, refusal.type_url, refusal.name)
        if resource is None or resource.version != refusal.version:
            return None  # it is another one already
        self._room()
        case = Case(refusal, resource, proxy, opened_by=_who(proxy))
        case.had = had if isinstance(had, Resource) else None
        self._cases[case.key] = case
        self._opened[case.opened_by] += 1
        return case

    def _queue(self, key: HeldKey) -> None:
        self._waiting[key] = None
        self._woken.set()

    def _close(self, key: HeldKey) -> None:
        """Forget a case; what it held is held no longer."""
        self._prove(self._cases.pop(key))
        self._waiting.pop(key, None)
        if self._held.pop(key, None) is not None:
            self._released = True
            self._woken.set()

    def _prove(self, case: Case) -> None:
        """It is no longer one that somebody may be wrong about."""
        case.proved = True
        if case.opened_by:
            self._opened[case.opened_by] -= 1
            if not self._opened[case.opened_by]:
                del self._opened[case.opened_by]
            case.opened_by = ""

    async def run(self) -> None:
        """Judge for ever."""
        try:
            while True:
                await self._woken.wait()
                if self._released:
                    self._released = False
                    await self._engine.hold(dict(self._held))
                if not self._waiting:
                    self._woken.clear()
                    continue
                key = next(iter(self._waiting))
                del self._waiting[key]
                try:
                    await self._hear(self._cases[key])
                except Exception as error:
                    # One case that cannot be judged must not be the last one.
                    log.exception("nack.untried", resource=key[1], reason=str(error))
        finally:
            if self._scratch is not None:
                await self._scratch.close()

    async def _hear(self, case: Case) -> None:
        if case.refusal.type_url == UNBUILT:
            await self._judge_unbuilt(case)
        elif self._is_over(case):
            self._close(case.key)
        elif not case.proved:
            await self._judge(case)

    def _is_over(self, case: Case) -> bool:
        """Whether nobody should have this version any more, before anything was found."""
        if case.proved or case.blames or case.proxy is None:
            return False
        now = self._engine.resource(case.proxy, case.refusal.type_url, case.refusal.name)
        return now is None or now.version != case.refusal.version

    async def _judge_unbuilt(self, case: Case) -> None:
        workshop, objects = self._workshop(), self._engine.objects()
        if case.scope is not None:
            found = await of_unbuilt_host(workshop, case.scope, objects, case.refusal.name)
        else:
            assert case.proxy is not None
            found = await of_unbuilt_own(workshop, case.proxy, objects, case.resource.origins)
        if self._cases.get(case.key) is not case:
            return
        case.blames = tuple(found)
        self._say("config.cannot_be_built", case)
        await self._spare_others(case)

    async def _judge(self, case: Case) -> None:
        agreed = len(case.identities) >= AGREEING
        if not case.blames:
            case.blames = await self._asked(case)
            agreed = agreed or bool(case.blames)
        if not agreed or self._cases.get(case.key) is not case:
            return
        self._prove(case)
        self._say("config.refused_by_envoy", case)
        await self._spare_others(case)

    async def _asked(self, case: Case) -> tuple[Blame, ...]:
        """Whom the scratch's answers put the blame on; who refuses what it takes is asked about less and less."""
        proxy = case.proxy
        if self._scratch is None or proxy is None:
            return ()
        now, who = asyncio.get_running_loop().time(), _who(proxy)
        if not self._patience.has_any(who, now):
            return ()
        inquiry = Inquiry(
            case.resource,
            proxy,
            self._workshop(),
            self._engine.objects(),
            self._scratch.refuses,
            case.had,
        )
        try:
            found = tuple(await inquiry.blames())
        except Unanswered as error:
            log.warning("nack.untried", resource=case.refusal.name, reason=str(error))
            return ()
        if not found:
            self._patience.lose(who, now)
        return found

    def _workshop(self) -> Workshop:
        return Workshop(self._engine.snapshot(), self._engine.options)

    def _say(self, event: str, case: Case) -> None:
        for blame in case.blames:
            log.error(event, object=str(blame.key), path=blame.path, words=blame.words)

    async def _spare_others(self, case: Case) -> None:
        """Where many objects are in one resource, the object is taken back; elsewhere the version is held."""
        objects = self._engine.objects()
        blamed = [objects[key] for key in sorted(case.blamed) if key in objects]
        if blamed and (case.is_of_many or self._has_many(case.blamed)):
            case.taken_back = True
            for item in blamed:
                self._engine.refuse(item)
        elif case.refusal.type_url != UNBUILT:
            self._held[case.key] = case
            await self._engine.hold(dict(self._held))

    def _has_many(self, keys: AbstractSet[ObjectKey]) -> bool:
        """A rule for every host is not worth a question a host."""
        blamed = Counter(key for case in self._cases.values() for key in case.blamed & keys)
        return any(count >= MANY for count in blamed.values())

    def changed(self, keys: Iterable[ObjectKey]) -> None:
        """Objects are others now: what was said of them, and held because of them, is over.

        What was taken back stays so until it changes itself, whatever else is in the same resource.
        """
        changed = set(keys)
        over = [key for key, case in self._cases.items() if not changed.isdisjoint(case.ends_with)]
        for key in over:
            self._close(key)

    def about(self, key: ObjectKey) -> list[Case]:
        """Cases that an object is to blame for, or, where nobody is found to blame, is part of."""
        return [case for case in self._cases.values() if key in (case.blamed or case.objects)]

    def __iter__(self) -> Iterator[Case]:
        return iter(list(self._cases.values()))


def _who(proxy: Proxy) -> str:
    return str(proxy.identity or proxy.id)
