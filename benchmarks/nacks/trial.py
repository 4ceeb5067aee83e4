"""One seed at a time: bad objects go in with good ones; who is blamed, how soon, what good is held back, and mended again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.nacks.lab import Behind, Lab, laboratory
from benchmarks.nacks.seeds import (
    EDGE,
    Seed,
    at_gateway,
    destination,
    destination_rule,
    gateway,
    service,
    unchecked,
    virtual_service,
)
from windward.config.object import ConfigObject, ObjectKey
from windward.xds import resource as xds

LIMIT_S = 1.0
PATIENCE_S = 10.0
MANY = 1000
Object = ConfigObject[Any]


@dataclass(slots=True)
class Outcome:
    seed: str
    sotw: bool
    first: bool
    seconds: float | None = None
    """From the change until every bad object's status names its field; None: never."""
    by_envoy: bool = False
    """Whether a connected Envoy refused it; else it could not even be built."""
    said: dict[str, list[str]] = field(default_factory=dict)
    """Object -> paths that its status names."""
    wrongly: list[str] = field(default_factory=list)
    """Good objects that are blamed."""
    held_back: list[Behind] = field(default_factory=list)
    mended: bool = False

    @property
    def attributed(self) -> bool:
        return self.seconds is not None and not self.wrongly

    @property
    def good(self) -> bool:
        return self.attributed and not self.held_back and self.mended


def base(marker: str) -> list[Object]:
    """Good objects, other ones with every marker: in the route configurations, clusters and endpoints beside the bad ones."""
    mesh = {"hosts": ["ratings"], "http": [{"name": marker, "route": destination("ratings")}]}
    edge = {**mesh, "hosts": ["ratings.example.com"], "gateways": ["edge"]}
    number = int(marker) + 1
    pool = {"connectionPool": {"tcp": {"maxConnections": number}}}
    return [
        service("reviews", ports=[{"number": 9080, "name": "http", "protocol": "HTTP"}]),
        service("ratings"),
        service("details", endpoints=[{"address": f"10.2.{number // 250}.{number % 250 + 1}"}]),
        service("store", addresses=["10.0.0.1"], ports=[{"number": 3306, "name": "tcp", "protocol": "TCP"}]),
        gateway(),
        unchecked("VirtualService", "ratings", mesh),
        unchecked("VirtualService", "edge-ratings", edge),
        unchecked("DestinationRule", "ratings", {"host": "ratings", "trafficPolicy": pool}),
    ]  # fmt: skip


def whole(marker: str) -> list[Object]:
    """The good ones of those that seeds replace."""
    return [
        virtual_service(marker=marker),
        destination_rule({"connectionPool": {"tcp": {"maxConnections": 7}}}),
        at_gateway(marker=marker, hosts=[EDGE]),
    ]


class Series:
    """Seeds of one protocol, one after the other, in one laboratory."""

    def __init__(self, lab: Lab, *, sotw: bool) -> None:
        self._lab = lab
        self._sotw = sotw
        self._marker = 0
        self._running = False

    def _good(self) -> list[Object]:
        self._marker += 1
        return [*base(str(self._marker)), *whole(str(self._marker))]

    async def try_out(self, seed: Seed) -> Outcome:
        """Raises TimeoutError when the good mesh does not come into force."""
        pilot = self._lab.pilot
        if seed.first and self._running:
            await self._lab.stop()
            self._running = False
        if not seed.first:
            await self._lab_in_force()
        outcome = Outcome(seed.name, self._sotw, seed.first)
        loop = asyncio.get_running_loop()
        bad = [item for item, _ in seed.bad]
        replaced = {item.key for item in bad}
        good = [*(item for item in self._good() if item.key not in replaced), *seed.beside]
        if seed.first:
            await pilot.change(removed=replaced)
        began = loop.time()
        await pilot.change([*good, *bad])
        pilot.first_said = None
        if seed.first:
            await self._start()
            began = await self._first_refusal()
        await self._attribution(seed, outcome, began)
        await self._rest()
        outcome.by_envoy = any(
            case.identities and not case.blamed.isdisjoint(replaced) for case in pilot.judge
        )
        outcome.held_back = await self._held_back(replaced)
        outcome.wrongly = [str(item.key) for item in good if pilot.refusals(item.key)]
        outcome.mended = await self._mend({*replaced, *(item.key for item in seed.beside)})
        return outcome

    async def _lab_in_force(self) -> None:
        await self._lab.pilot.change(self._good())
        if not self._running:
            await self._start()
        await self._lab.until_in_force()

    async def _start(self) -> None:
        await self._lab.start()
        self._running = True

    async def _first_refusal(self) -> float:
        """When proxies come, the clock starts as the first of them has something against it, or as it cannot be built for one."""
        pilot, loop = self._lab.pilot, asyncio.get_running_loop()
        until = loop.time() + PATIENCE_S
        while loop.time() < until and pilot.first_said is None:
            await pilot.stirred()
        return loop.time() if pilot.first_said is None else pilot.first_said

    async def _attribution(self, seed: Seed, outcome: Outcome, began: float) -> None:
        pilot, loop = self._lab.pilot, asyncio.get_running_loop()
        while loop.time() < began + PATIENCE_S:
            outcome.said = {
                str(item.key): sorted({r.path for r in pilot.refusals(item.key) if r.path})
                for item, _ in seed.bad
            }
            if all(outcome.said[str(item.key)] == path.split(" ") for item, path in seed.bad):
                outcome.seconds = loop.time() - began
                return
            await pilot.stirred()

    async def _rest(self) -> None:
        """Until everything has been answered, and twice in a row nothing is left to do."""
        await self._lab.until_settled()

    async def _held_back(self, bad: set[ObjectKey]) -> list[Behind]:
        """What is not in force though nothing bad is in it, by the proxies' ACKs and by their config dumps."""
        missing: list[Behind] = []
        for _ in range(20):
            missing = sorted({*self._lab.pilot.behind(), *await self._lab.differing()})
            missing = [item for item in missing if not self._is_bad(item, bad)]
            if not missing:
                break
            await asyncio.sleep(0.1)
        return missing

    def _is_bad(self, item: Behind, bad: set[ObjectKey]) -> bool:
        """Whether a resource is held because of a bad object. What many objects are in must not be held at all."""
        _, url, name = item
        if url == xds.ROUTE:
            return False
        for case in self._lab.pilot.judge:
            same = (case.refusal.type_url, case.refusal.name) == (url, name)
            if same and case.proved and any(blame.key in bad for blame in case.blames):
                return case.key in self._lab.pilot.held
        return False

    async def _mend(self, replaced: Sequence[ObjectKey] | set[ObjectKey]) -> bool:
        """Good objects again, and those away that there were none of: whether all of it comes into force."""
        pilot = self._lab.pilot
        good = self._good()
        keys = {item.key for item in good}
        await pilot.change(good, removed=[key for key in replaced if key not in keys])
        try:
            await self._lab.until_in_force()
        except TimeoutError:
            return False
        for _ in range(20):
            if not await self._lab.differing():
                return not any(pilot.refusals(key) for key in {*keys, *replaced})
            await asyncio.sleep(0.1)
        return False


async def outcomes(
    seeds: Sequence[Seed], *, sotw: bool, beside: Sequence[Object] = ()
) -> list[Outcome]:
    """``beside``: good objects that are there all the time."""
    async with laboratory(sotw=sotw) as lab:
        await lab.pilot.change(beside)
        series = Series(lab, sotw=sotw)
        found = []
        for seed in seeds:
            try:
                found.append(await series.try_out(seed))
            except TimeoutError:
                found.append(Outcome(seed.name, sotw, seed.first))
        return found
