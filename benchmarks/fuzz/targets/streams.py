"""ADS streams: whole histories of requests, as bytes, between updates of the mesh and answers that are late or wrong.

An execution is one request's bytes: parsed, made an event, taken in by the stream, and what it says then. Asserted after
each: only RefusedError leaves, tables stay within what was named and what exists, every response is a message. Asserted at
the end of a history: a client that does all right, on the stream that is left, ends with the whole mesh. What is refused ends
its stream; the rest of the history goes to another one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from random import Random
from types import ModuleType
from typing import Any, Final

from envoy.service.discovery.v3 import discovery_pb2

from benchmarks.fuzz.mutate import mutate_bytes
from benchmarks.fuzz.wire import mutate_message
from services.pilot.xds import requests
from services.pilot.xds.requests import Variant
from tests.unit.xds.worlds import (
    BODIES,
    CLUSTERS,
    LISTENERS,
    ROUTES,
    TYPES,
    WHOLE,
    a_world,
    body_of,
)
from windward.rpc.errors import RefusedError
from windward.slices import at_once
from windward.xds import core, delta, knowledge, sotw, subscription
from windward.xds.delta import MOST_PENDING
from windward.xds.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE, Resource, ResourceSet
from windward.xds.stream import DeltaRequest, TypeState

Step = tuple[Any, ...]
"""("request", bytes), ("answer", which, bad), ("update",) or ("read", most)."""
History = tuple[Step, ...]
LONGEST: Final = 320
USUAL: Final = 40
"""Steps of most histories; some are as long as LONGEST."""
ROUNDS: Final = 500
"""Exchanges within which a client that does all right is at rest."""
WORDS: Final = (
    *(name.encode() for name in (*TYPES, *CLUSTERS[:3], *ROUTES[:2], *LISTENERS[:2])),
    b"*", b"", b"nobody", b"type.googleapis.com/", b"type.googleapis.com/none", b"Clu-1-1", b"Lis-1-2", b"Rou-2-3", b"\xff",
)  # fmt: skip


def _worlds() -> tuple[ResourceSet, ...]:
    random = Random(1)
    made = [a_world(random, 1, None)]
    for version in range(2, 30):
        made.append(a_world(random, version, made[-1], told=random.random() < 0.8))
    return tuple(made)


def _last_world() -> ResourceSet:
    """Of bodies that no world before had."""
    named: dict[str, dict[str, Resource]] = {url: {} for url in TYPES}

    def put(url: str, name: str, *refers: str) -> None:
        body = body_of(name, 777, refers, bad=False)
        named[url][name] = Resource(url, name, body, refers=frozenset(refers))

    for name in CLUSTERS:
        put(CLUSTER, name)
        put(ENDPOINT, name)
    for number, name in enumerate(ROUTES):
        put(ROUTE, name, CLUSTERS[number])
    for number, name in enumerate(LISTENERS):
        put(LISTENER, name, ROUTES[number], CLUSTERS[number + 1])
    return ResourceSet(10_000, 10_000, (named,), (), BODIES)


WORLDS: Final = _worlds()
LAST: Final = _last_world()
NAMED: Final = {CLUSTER: (), ENDPOINT: tuple(CLUSTERS), LISTENER: (), ROUTE: tuple(ROUTES)}


class Talk:
    """One stream with who talks to it."""

    def __init__(self, variant: Variant, answers: Any, world: int = 0) -> None:
        self._variant = variant
        self._answers = answers
        self.stream: Any = variant.stream(WORLDS[world])
        self.brought: dict[str, int] = {}
        self.inbox: list[Any] = []
        self.world = world

    def take(self, raw: bytes) -> None:
        """RefusedError ends the stream."""
        event = self._variant.of(at_once(self._variant.parsing(raw)))
        if isinstance(event, DeltaRequest) and event.type_url not in self.stream.types:
            self.brought[event.type_url] = len(event.initial_versions)
        self.stream.request(event, 0.0)

    def update(self) -> None:
        self.world = min(self.world + 1, len(WORLDS) - 1)
        self.stream.update(WORLDS[self.world])

    def read(self, most: int) -> None:
        for _ in range(most):
            raw = self.stream.next()
            if raw is None:
                return
            self.inbox.append(self._answers.FromString(raw))

    def check(self) -> None:
        """Memory: nothing is kept but what was named, exists, or waits for an answer."""
        assert len(self.stream.types) <= core.MOST_TYPES
        for url, state in self.stream.types.items():
            most = len(state.subscription.names) + len(self.stream.current.names(url))
            assert len(state.pending) <= MOST_PENDING
            # Of what is gone, the names that are about to be removed.
            most += self.brought.get(url, 0) + len(TYPES) * len(CLUSTERS)
            assert max(map(len, _tables(state))) <= most, f"{url}: over {most} names are kept"


def _tables(state: TypeState) -> tuple[Any, ...]:
    return (state.overlay, state.todo, state.again, state.split, state.refused, state.trials)


class _Streams(ABC):
    """What both protocols have in common."""

    modules: Sequence[ModuleType] = (core, delta, knowledge, requests, sotw, subscription)
    variant: Variant
    response: Any

    @staticmethod
    def fertile(outcome: Hashable) -> bool:
        """Streams that were refused at the end of a history have come far before."""
        return outcome is not None

    def executions(self, given: History) -> int:
        return sum(step[0] == "request" for step in given)

    def mutate(self, random: Random, chosen: History, other: History) -> History:
        steps = list(chosen)
        for _ in range(random.choice((1, 2, 4))):
            at = random.randrange(len(steps) + 1)
            match random.randrange(10):
                case 0:
                    steps[at:at] = [("answer", random.randrange(3), random.random() < 0.3)]
                case 1:
                    steps[at:at] = [("read", random.choice((1, 3, 100)))]
                case 2:
                    steps[at:at] = [("update",)]
                case 3:
                    del steps[at : at + random.randint(1, 3)]
                case 4:
                    steps[at:] = other[random.randrange(len(other)) :]
                case 5:
                    steps[at:at] = steps[at : at + 4] * random.choice((1, 3))
                case _:
                    self._damage(random, steps, other)
        del steps[LONGEST if random.random() < 0.1 else USUAL :]
        return tuple(steps) if self.executions(tuple(steps)) else (*steps, ("request", b""))

    def _damage(self, random: Random, steps: list[Step], other: History) -> None:
        places = [at for at, step in enumerate(steps) if step[0] == "request"]
        theirs = [step[1] for step in other if step[0] == "request"]
        if not places:
            return
        at = random.choice(places)
        another = random.choice(theirs)
        mutation = mutate_message if random.random() < 0.9 else mutate_bytes
        steps[at] = ("request", mutation(random, steps[at][1], another, WORDS))

    def execute(self, given: History) -> Hashable:
        talk = Talk(self.variant, self.response)
        refused = ""
        for step in given:
            match step:
                case ("request", raw):
                    try:
                        talk.take(raw)
                    except RefusedError as error:
                        refused = str(error)[:24]
                        talk = Talk(self.variant, self.response, talk.world)
                    talk.read(2)
                case ("answer", which, bad):
                    self._answer(talk, which, bad)
                case ("update",):
                    talk.update()
                case (_, most):
                    talk.read(most)
            talk.check()
        shape = tuple(
            (
                url,
                state.state,
                min(len(state.overlay), 3),
                min(len(state.pending), 3),
                bool(state.refused),
            )
            for url, state in talk.stream.types.items()
            if url in TYPES
        )
        self._ends_well(talk)
        return refused, shape

    def _answer(self, talk: Talk, which: int, bad: bool) -> None:
        if not talk.inbox:
            return
        response = talk.inbox.pop(min(which, len(talk.inbox) - 1))
        talk.take(self.reply(response, "bad" if bad else ""))

    def _ends_well(self, talk: Talk) -> None:
        """All that was sent is accepted, everything asked for, and the newest mesh arrives whole."""
        while talk.inbox:
            self._answer(talk, 0, bad=False)
        for url in TYPES:
            talk.take(self.asking(talk, url))
        talk.stream.update(LAST)
        held: dict[str, dict[str, bytes]] = {url: {} for url in TYPES}
        for _ in range(ROUNDS):
            talk.read(100)
            if not talk.inbox:
                break
            response = talk.inbox.pop(0)
            if response.type_url in held:
                self.keep(held, response)
            talk.take(self.reply(response, ""))
        assert not talk.inbox, "the stream never comes to rest"
        for url in TYPES:
            if url in talk.stream.types:
                named = {name: item.body for name, item in LAST.by_type[url].items()}
                assert held[url] == named, f"{url}: {sorted(named.items() ^ held[url].items())}"

    @abstractmethod
    def reply(self, response: Any, error: str) -> bytes:
        """An ACK, or with an error a NACK."""

    @abstractmethod
    def asking(self, talk: Talk, url: str) -> bytes:
        """A request for everything of a type, whatever was asked for before."""

    @abstractmethod
    def keep(self, held: dict[str, dict[str, bytes]], response: Any) -> None:
        """Take over what a response of one of TYPES holds."""


class AdsDelta(_Streams):
    """Incremental ADS."""

    variant = requests.delta()
    response = discovery_pb2.DeltaDiscoveryResponse

    def seeds(self) -> Sequence[History]:
        """A first sync, a reconnect, names that come and go, refusals."""
        make = discovery_pb2.DeltaDiscoveryRequest
        first = [make(type_url=url, resource_names_subscribe=NAMED[url]) for url in TYPES]
        first[0].node.id = "sidecar~10.0.0.1~web.shop~shop.svc.cluster.local"
        again = [
            make(
                type_url=url,
                resource_names_subscribe=NAMED[url] or ("*",),
                initial_resource_versions=dict.fromkeys(
                    (*CLUSTERS[:2], "gone"), "0123456789abcdef"
                ),
            )
            for url in TYPES
        ]
        later = [
            make(type_url=CLUSTER, resource_names_subscribe=["*", "c1", "nobody"]),
            make(
                type_url=ENDPOINT,
                resource_names_subscribe=["c1"],
                resource_names_unsubscribe=["c2", "*"],
            ),
            make(type_url=CLUSTER, response_nonce="Clu-1-1", resource_names_unsubscribe=["*"]),
        ]
        later[2].error_detail.message = "no"
        flood = [make(type_url=CLUSTER, resource_names_subscribe=["*"])]
        for number in range(150):
            flood.append(make(type_url=CLUSTER, resource_names_subscribe=[f"x{number}"]))
            flood.append(make(type_url=CLUSTER, resource_names_unsubscribe=[f"x{number}"]))
        return _histories(first, again, later, flood)

    def reply(self, response: Any, error: str) -> bytes:
        made = discovery_pb2.DeltaDiscoveryRequest(
            type_url=response.type_url, response_nonce=response.nonce
        )
        if error:
            made.error_detail.message = error
        return made.SerializeToString()

    def asking(self, talk: Talk, url: str) -> bytes:
        del talk
        return discovery_pb2.DeltaDiscoveryRequest(
            type_url=url, resource_names_subscribe=NAMED[url] or ("*",)
        ).SerializeToString()

    def keep(self, held: dict[str, dict[str, bytes]], response: Any) -> None:
        kept = held[response.type_url]
        kept.update({item.name: item.resource.value for item in response.resources})
        for name in response.removed_resources:
            kept.pop(name, None)


class AdsSotw(_Streams):
    """State-of-the-world ADS."""

    variant = requests.sotw()
    response = discovery_pb2.DiscoveryResponse

    def seeds(self) -> Sequence[History]:
        make = discovery_pb2.DiscoveryRequest
        first = [make(type_url=url, resource_names=NAMED[url]) for url in TYPES]
        first[0].node.id = "sidecar~10.0.0.1~web.shop~shop.svc.cluster.local"
        again = [
            make(
                type_url=url,
                resource_names=NAMED[url] or ("*",),
                version_info="1",
                response_nonce="old",
            )
            for url in TYPES
        ]
        later = [
            make(type_url=CLUSTER, resource_names=["*", "c1", "nobody"]),
            make(type_url=ENDPOINT, resource_names=["c1"], response_nonce="Clu-1-2"),
            make(type_url=CLUSTER, response_nonce="Clu-1-1", version_info="1"),
        ]
        later[2].error_detail.message = "no"
        flood = [
            make(type_url=CLUSTER, resource_names=["*", f"x{number}"]) for number in range(200)
        ]
        return _histories(first, again, later, flood)

    def reply(self, response: Any, error: str) -> bytes:
        url = response.type_url
        made = discovery_pb2.DiscoveryRequest(
            type_url=url, response_nonce=response.nonce, resource_names=NAMED.get(url) or ("*",)
        )
        if error:
            made.error_detail.message = error
        return made.SerializeToString()

    def asking(self, talk: Talk, url: str) -> bytes:
        state = talk.stream.types.get(url)
        return discovery_pb2.DiscoveryRequest(
            type_url=url,
            resource_names=NAMED[url] or ("*",),
            response_nonce=state.last_nonce if state else "",
        ).SerializeToString()

    def keep(self, held: dict[str, dict[str, bytes]], response: Any) -> None:
        bodies = {item.value.partition(b"=")[0].decode(): item.value for item in response.resources}
        if response.type_url in WHOLE:
            held[response.type_url] = bodies
        else:
            held[response.type_url].update(bodies)


def _histories(
    first: list[Any], again: list[Any], later: list[Any], flood: list[Any]
) -> list[History]:
    def said(*messages: Any) -> list[Step]:
        return [("request", message.SerializeToString()) for message in messages]

    read: Step = ("read", 100)
    good: Step = ("answer", 0, False)
    bad: Step = ("answer", 0, True)
    update: Step = ("update",)
    return [
        (*said(*first), read, good, good, read, good, good, read, good, update, read, good),
        (*said(*again), read, bad, read, good, read, bad, update, read, bad, bad, read, good),
        (*said(first[0], *later), read, good, *said(*later, first[3]), update, read, good, read),
        (*said(*flood),),
        (*said(*first[::-1]), *said(*again), *said(*later), update, read, good, bad),
    ]
