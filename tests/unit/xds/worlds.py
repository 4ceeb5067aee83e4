"""Random meshes whose references are closed, and clients that check what they are sent as it arrives.

A mesh: clusters, their endpoints, routes to clusters, listeners to routes and clusters. Some resources are bad: their
bodies say so, and a client refuses every response that holds one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random

from envoy.service.discovery.v3 import discovery_pb2

from tests.unit.xds.meshes import deltas, worlds
from windward.xds.bodies import Bodies
from windward.xds.core import Stream
from windward.xds.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE, Changes, Resource, ResourceSet
from windward.xds.stream import DeltaRequest, DeltaStream, SotwRequest, SotwStream

TYPES = (CLUSTER, ENDPOINT, LISTENER, ROUTE)
WHOLE = (CLUSTER, LISTENER)
CLUSTERS = [f"c{number}" for number in range(8)]
ROUTES = [f"r{number}" for number in range(4)]
LISTENERS = [f"l{number}" for number in range(4)]
BODIES = Bodies()
Held = Mapping[str, Mapping[str, bytes]]


def body_of(name: str, number: int, refers: Iterable[str], *, bad: bool) -> bytes:
    return f"{name}={number}>{','.join(sorted(refers))}{'!bad' if bad else ''}".encode()


def is_bad(body: bytes) -> bool:
    return body.endswith(b"!bad")


def refers_of(body: bytes) -> set[str]:
    names = body.partition(b">")[2].removesuffix(b"!bad").decode()
    return set(filter(None, names.split(",")))


def a_world(
    random: Random, version: int, before: ResourceSet | None, bad: float = 0.0, *, told: bool = True
) -> ResourceSet:
    """The next mesh: most of it as before, the references of each resource to what is in it, in two layers.

    ``told``: whether it says how it came about.
    """
    old = before.by_type if before is not None else {}
    made: dict[str, dict[str, Resource]] = {url: {} for url in TYPES}

    def put(url: str, name: str, choices: Iterable[str]) -> None:
        known = old.get(url, {}).get(name)
        there = sorted(choices)
        if known is not None and random.random() < 0.6 and known.refers <= set(there):
            made[url][name] = known
            return
        refers = frozenset(random.sample(there, min(len(there), random.randint(0, 2))))
        body = body_of(name, random.randint(0, 9), refers, bad=random.random() < bad)
        made[url][name] = Resource(url, name, body, refers=refers)

    for name in CLUSTERS:
        if random.random() < 0.7:
            put(CLUSTER, name, ())
            put(ENDPOINT, name, ())
    for name in ROUTES:
        if random.random() < 0.7:
            put(ROUTE, name, made[CLUSTER])
    for name in LISTENERS:
        if random.random() < 0.7:
            put(LISTENER, name, [*made[ROUTE], *made[CLUSTER]])
    changes: tuple[Changes, ...] = ()
    if told and before is not None:
        names = {
            url: frozenset(
                name
                for name in made[url].keys() | old.get(url, {}).keys()
                if made[url].get(name) != old.get(url, {}).get(name)
            )
            for url in TYPES
        }
        changes = (Changes(before.version, names), *before.changes[:3])
    own: dict[str, dict[str, Resource]] = {}
    shared: dict[str, dict[str, Resource]] = {}
    for url, named in made.items():
        for name, item in named.items():
            layer = own if name.endswith("1") else shared
            layer.setdefault(url, {})[name] = item
    return ResourceSet(version, version * 10, (own, shared), changes, BODIES)


class Checked:
    """What one client holds. Checks references with each change that it takes over."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, bytes]] = {url: {} for url in TYPES}
        self.transcript: list[bytes] = []

    def check_references(self) -> None:
        for url in (ROUTE, LISTENER):
            for name, body in self.held[url].items():
                clusters = refers_of(body) - set(ROUTES)
                assert clusters <= self.held[CLUSTER].keys(), f"{name} refers to what is not there"

    def check_removal(self, url: str, names: Iterable[str]) -> None:
        """Listeners come before the routes that they name, which may prove to be bad; but no route goes that one names."""
        if url == ROUTE:
            named = set[str]().union(*map(refers_of, self.held[LISTENER].values()))
            assert named.isdisjoint(names)


def responses(stream: Stream, most: int) -> list[bytes]:
    """As Pilot asks: not once more where the stream says that there is no more to say, which has to be true."""
    found: list[bytes] = []
    while len(found) < most and (raw := stream.next()) is not None:
        found.append(raw)
        if not stream.may_say_more:
            assert stream.next() is None
            break
    return found


class DeltaChecked(Checked):
    def __init__(self, current: ResourceSet, *, picky: bool = True) -> None:
        super().__init__()
        self.picky = picky
        self.inbox: list[discovery_pb2.DeltaDiscoveryResponse] = []
        self.connect(current)

    def connect(self, current: ResourceSet) -> None:
        """A new stream, to which the client brings what it holds."""
        self.inbox.clear()
        self.stream = DeltaStream(current)
        for url in TYPES:
            versions = {
                name: Resource(url, name, body).version for name, body in self.held[url].items()
            }
            named = () if url in WHOLE else (CLUSTERS if url == ENDPOINT else ROUTES)
            self.stream.request(
                DeltaRequest(url, subscribe=tuple(named), initial_versions=versions)
            )

    def fetch(self, most: int = 1000) -> None:
        raws = responses(self.stream, most)
        self.transcript += raws
        self.inbox += deltas(raws)

    def answer(self) -> None:
        if not self.inbox:
            return
        response = self.inbox.pop(0)
        url = response.type_url
        bodies = {item.name: item.resource.value for item in response.resources}
        error = "no" if self.picky and any(map(is_bad, bodies.values())) else ""
        if not error:
            self.held[url].update(bodies)
            self.check_removal(url, self.held[url].keys() & response.removed_resources)
            for name in response.removed_resources:
                self.held[url].pop(name, None)
            self.check_references()
        self.stream.request(DeltaRequest(url, nonce=response.nonce, error=error))

    def settle(self) -> None:
        for _ in range(2000):
            self.fetch()
            if not self.inbox:
                return
            self.answer()
        raise AssertionError("the stream never comes to rest")


class SotwChecked(Checked):
    def __init__(self, current: ResourceSet) -> None:
        super().__init__()
        self.inbox: list[discovery_pb2.DiscoveryResponse] = []
        self.connect(current)

    def names(self, url: str) -> tuple[str, ...]:
        return () if url in WHOLE else tuple(CLUSTERS if url == ENDPOINT else ROUTES)

    def connect(self, current: ResourceSet) -> None:
        self.inbox.clear()
        self.stream = SotwStream(current)
        for url in TYPES:
            self.stream.request(SotwRequest(url, self.names(url)))

    def fetch(self, most: int = 1000) -> None:
        raws = responses(self.stream, most)
        self.inbox += worlds(raws)

    def answer(self) -> None:
        if not self.inbox:
            return
        response = self.inbox.pop(0)
        url = response.type_url
        bodies = {item.value.partition(b"=")[0].decode(): item.value for item in response.resources}
        error = "no" if any(map(is_bad, bodies.values())) else ""
        if not error:
            if url in WHOLE:
                self.held[url] = bodies
            else:
                self.held[url].update(bodies)
        self.stream.request(SotwRequest(url, self.names(url), response.nonce, error))

    def settle(self) -> None:
        for _ in range(2000):
            self.fetch()
            if not self.inbox:
                return
            self.answer()
        raise AssertionError("the stream never comes to rest")
