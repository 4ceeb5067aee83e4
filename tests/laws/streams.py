"""Laws of streams: what clients see, whatever they answer, however late, and wherever they connect again."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from services.pilot.model.position import Position
from tests.unit.xds.meshes import deltas, worlds
from tests.unit.xds.worlds import (
    BODIES,
    TYPES,
    WHOLE,
    DeltaChecked,
    SotwChecked,
    a_world,
    is_bad,
)
from windward.xds.resource import Changes, Resource, ResourceSet
from windward.xds.stream import DeltaRequest, DeltaStream, SotwRequest, SotwStream

MESHES = 60
"""Meshes that one history goes through; each of its other steps is a client's."""
Client = DeltaChecked | SotwChecked


def meshes(random: Random, bad: float, count: int = MESHES) -> list[ResourceSet]:
    """One after another; the last one has nothing bad in it."""
    made = [a_world(random, 1, None)]
    for version in range(2, count):
        made.append(a_world(random, version, made[-1], bad, told=random.random() < 0.8))
    made.append(a_world(random, count + 1, None))
    return made


def act(random: Random, client: Client, current: ResourceSet) -> None:
    """A step of a client: it reads, answers, or comes again."""
    what = random.random()
    if what < 0.4:
        client.fetch(random.randint(1, 3))
    elif what < 0.97:
        client.answer()
    else:
        client.connect(current)


# ---- delta and state of the world -----------------------------------------------------------------------------------


def both_protocols_end_alike(seeds: Sequence[int], steps: int) -> None:
    """Through the same meshes, each at a pace of its own, with refusals: in the end both have what the last mesh says."""
    for seed in seeds:
        random = Random(seed)
        sets = meshes(random, 0.15)
        clients: tuple[Client, ...] = (DeltaChecked(sets[0]), SotwChecked(sets[0]))
        at = [0, 0]
        for _ in range(steps):
            which = random.randrange(2)
            if random.random() < 2 * len(sets) / steps and at[which] < len(sets) - 2:
                at[which] += random.choice((1, 1, 2))
                clients[which].stream.update(sets[min(at[which], len(sets) - 2)])
            act(random, clients[which], clients[which].stream.current)
        for client in clients:
            client.stream.update(sets[-1])
            client.settle()
        delta, sotw = clients
        for url in TYPES:
            wanted = {name: item.body for name, item in sets[-1].by_type.get(url, {}).items()}
            assert delta.held[url] == wanted
            if url in WHOLE:
                assert sotw.held[url] == wanted
            else:  # of these, what is gone cannot be said
                assert wanted.items() <= sotw.held[url].items()


# ---- references -----------------------------------------------------------------------------------------------------


def references_are_there(seeds: Sequence[int], steps: int) -> None:
    """A delta client checks with every response that it takes over; it refuses some, and comes again."""
    for seed in seeds:
        random = Random(seed)
        sets = meshes(random, 0.1)
        client, at = DeltaChecked(sets[0]), 0
        for _ in range(steps):
            if random.random() < len(sets) / steps and at < len(sets) - 1:
                at += 1
                client.stream.update(sets[at])
            act(random, client, client.stream.current)
        client.stream.update(sets[-1])
        client.settle()
        assert not any(is_bad(body) for url in TYPES for body in client.held[url].values())


# ---- one client's refusals ------------------------------------------------------------------------------------------


def refusals_are_ones_own(seeds: Sequence[int], steps: int) -> None:
    """Byte for byte, what a client is sent does not depend on who refuses what beside it, on the same sets and bodies."""
    for seed in seeds:
        random = Random(seed)
        sets = meshes(random, 0.2)
        moves = [random.random() < len(sets) / steps for _ in range(steps)]
        alone = _transcript(Random(seed + 1), sets, moves, None)
        beside = _transcript(Random(seed + 1), sets, moves, Random(seed + 2))
        assert alone == beside


def _transcript(
    random: Random, sets: Sequence[ResourceSet], moves: Sequence[bool], others: Random | None
) -> list[bytes]:
    """What a client that accepts everything is sent; ``others``: of two beside it that do not."""
    easy, at = DeltaChecked(sets[0], picky=False), 0
    picky: list[Client] = [DeltaChecked(sets[0]), SotwChecked(sets[0])] if others else []
    for move in moves:
        if move and at < len(sets) - 1:
            at += 1
            for client in (easy, *picky):
                client.stream.update(sets[at])
        if others:
            for client in picky:
                act(others, client, client.stream.current)
        act(random, easy, easy.stream.current)
    return easy.transcript


# ---- never back -----------------------------------------------------------------------------------------------------

NAMES = tuple(f"n{number}" for number in range(6))
Moment = dict[str, dict[str, int]]
"""Type -> name -> the moment at which it was changed last."""


def versions_never_go_back(seeds: Sequence[int], steps: int) -> None:
    """Two Pilots lag behind the store, each in its own way; clients say how far they were, and come again at either."""
    for seed in seeds:
        random = Random(seed)
        store = _store(random, steps // 4)
        for sotw in (False, True):
            _wander(random, [_Replica(store), _Replica(store)], _Forward(sotw=sotw), steps)


def _wander(random: Random, replicas: list[_Replica], client: _Forward, steps: int) -> None:
    home = replicas[0]
    client.connect(home.current)
    for _ in range(steps):
        what = random.random()
        if what < 0.3:
            replica = random.choice(replicas)
            replica.follow(random.randint(1, 3))
            if replica is home:
                client.stream.update(home.current)
        elif what < 0.6:
            client.fetch(random.randint(1, 3))
        elif what < 0.94:
            client.answer()
        else:
            there = random.choice(replicas)
            if there.position.includes(client.position):
                home = there
                client.connect(home.current)
    home.follow(len(home.store))
    client.stream.update(home.current)
    client.settle()
    for url in TYPES:
        wanted = {name: body_at(name, number) for name, number in home.store[-1][url].items()}
        assert wanted.items() <= client.held[url].items()
        assert client.sotw or client.held[url] == wanted


def body_at(name: str, moment: int) -> bytes:
    return f"{name}={moment:06}".encode()


class _Replica:
    """A Pilot's sets; it counts versions for itself."""

    def __init__(self, store: Sequence[Moment]) -> None:
        self.store = store
        self.at = 0
        self.current = self._set(1, ())

    @property
    def position(self) -> Position:
        return Position(self.at, self.at)

    def follow(self, by: int) -> None:
        before, begun = self.current, self.store[self.at]
        self.at = min(self.at + by, len(self.store) - 1)
        now = self.store[self.at]
        names = {
            url: frozenset(name for name in NAMES if begun[url].get(name) != now[url].get(name))
            for url in TYPES
        }
        changes = (Changes(before.version, names), *before.changes[:3])
        self.current = self._set(before.version + 1, changes)

    def _set(self, version: int, changes: tuple[Changes, ...]) -> ResourceSet:
        layer = {
            url: {
                name: Resource(url, name, body_at(name, moment)) for name, moment in named.items()
            }
            for url, named in self.store[self.at].items()
        }
        told = str(self.position)
        return ResourceSet(version, self.at, (layer,), changes, BODIES, position=told)


def _store(random: Random, moments: int) -> list[Moment]:
    now: Moment = {url: {} for url in TYPES}
    made = [now]
    for moment in range(1, moments):
        now = {url: dict(named) for url, named in now.items()}
        for _ in range(random.randint(1, 4)):
            named, name = now[random.choice(TYPES)], random.choice(NAMES)
            if name in named and random.random() < 0.3:
                del named[name]
            else:
                named[name] = moment
        made.append(now)
    return made


class _Forward:
    """A client that notes the moment of everything it sees, and how far the one who serves it is."""

    def __init__(self, *, sotw: bool) -> None:
        self.sotw = sotw
        self.held: dict[str, dict[str, bytes]] = {url: {} for url in TYPES}
        self.stream: Any = None
        self.position = Position()
        self.inbox: list[Any] = []
        self.newest: dict[tuple[str, str], int] = {}

    def connect(self, current: ResourceSet) -> None:
        self.inbox.clear()
        self.stream = SotwStream(current) if self.sotw else DeltaStream(current)
        for url in TYPES:
            named = () if url in WHOLE else NAMES
            if self.sotw:
                self.stream.request(SotwRequest(url, named))
                continue
            held = self.held[url].items()
            brought = {name: Resource(url, name, body).version for name, body in held}
            self.stream.request(DeltaRequest(url, subscribe=named, initial_versions=brought))

    def fetch(self, most: int) -> None:
        raws = [raw for _ in range(most) if (raw := self.stream.next()) is not None]
        self.inbox += worlds(raws) if self.sotw else deltas(raws)

    def answer(self) -> None:
        if not self.inbox:
            return
        response = self.inbox.pop(0)
        url, kept = response.type_url, self.held[response.type_url]
        if self.sotw:
            bodies = [item.value for item in response.resources]
            names = () if url in WHOLE else NAMES
            if url in WHOLE:
                kept.clear()
            self.position = Position.parse(response.version_info)
            self.stream.request(SotwRequest(url, names, response.nonce))
        else:
            bodies = [item.resource.value for item in response.resources]
            for name in response.removed_resources:
                kept.pop(name, None)
            self.position = Position.parse(response.system_version_info)
            self.stream.request(DeltaRequest(url, nonce=response.nonce))
        for body in bodies:
            name, _, moment = body.decode().partition("=")
            assert int(moment) >= self.newest.get((url, name), 0), f"{url} {name} goes back"
            self.newest[url, name] = int(moment)
            kept[name] = body

    def settle(self) -> None:
        for _ in range(1000):
            self.fetch(100)
            if not self.inbox:
                return
            self.answer()
        raise AssertionError("the stream never comes to rest")
