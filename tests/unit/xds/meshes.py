"""Short names for resources and sets, and the two clients that the laws are tested with.

A client keeps what it was sent, as Envoy would: a response that holds a resource it refuses is refused whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from envoy.service.discovery.v3 import discovery_pb2

from windward.xds.resource import Resource, ResourceSet
from windward.xds.stream import DeltaRequest, DeltaStream, SotwRequest, SotwStream

BAD = b"bad"


def a_resource(type_url: str, name: str, body: str = "1") -> Resource:
    return Resource(type_url, name, body.encode())


def a_set(version: int, *resources: Resource) -> ResourceSet:
    by_type: dict[str, dict[str, Resource]] = {}
    for resource in resources:
        by_type.setdefault(resource.type_url, {})[resource.name] = resource
    return ResourceSet.of(version, version * 10, by_type)


@dataclass
class StillView:
    """A group's view, as a source without news would hand it out."""

    current: ResourceSet

    def detach(self) -> None:
        return


def deltas(responses: Iterable[bytes]) -> list[discovery_pb2.DeltaDiscoveryResponse]:
    return [discovery_pb2.DeltaDiscoveryResponse.FromString(raw) for raw in responses]


def worlds(responses: Iterable[bytes]) -> list[discovery_pb2.DiscoveryResponse]:
    return [discovery_pb2.DiscoveryResponse.FromString(raw) for raw in responses]


def names(response: discovery_pb2.DeltaDiscoveryResponse) -> list[str]:
    return [resource.name for resource in response.resources]


def bodies(response: discovery_pb2.DiscoveryResponse) -> list[bytes]:
    return [resource.value for resource in response.resources]


class DeltaClient:
    """Reads responses when told to, in order, and answers each."""

    def __init__(self, stream: DeltaStream) -> None:
        self.stream = stream
        self.held: dict[str, dict[str, bytes]] = {}
        self.inbox: list[discovery_pb2.DeltaDiscoveryResponse] = []
        self.resources_received = 0
        self.messages_received = 0

    def ask(self, type_url: str, *subscribe: str) -> None:
        self.stream.request(DeltaRequest(type_url, subscribe=subscribe))
        self.held.setdefault(type_url, {})

    def drop(self, type_url: str, *unsubscribe: str) -> None:
        self.stream.request(DeltaRequest(type_url, unsubscribe=unsubscribe))
        for name in unsubscribe:
            self.held.get(type_url, {}).pop(name, None)

    def fetch(self) -> None:
        self.inbox += deltas(self.stream.take())

    def answer_one(self) -> None:
        response = self.inbox.pop(0)
        self.messages_received += 1
        self.resources_received += len(response.resources)
        error = "refused" if any(r.resource.value == BAD for r in response.resources) else ""
        if not error:
            held = self.held.setdefault(response.type_url, {})
            for resource in response.resources:
                held[resource.name] = resource.resource.value
            for name in response.removed_resources:
                held.pop(name, None)
        self.stream.request(DeltaRequest(response.type_url, nonce=response.nonce, error=error))

    def settle(self) -> None:
        """Exchange messages until nothing is said any more; that this ends is part of every law."""
        for _ in range(1000):
            self.fetch()
            if not self.inbox:
                return
            self.answer_one()
        raise AssertionError("the stream never comes to rest")


class SotwClient:
    """As DeltaClient, for state of the world."""

    def __init__(self, stream: SotwStream, whole: Iterable[str]) -> None:
        self.stream = stream
        self.whole = set(whole)
        self.names: dict[str, tuple[str, ...]] = {}
        self.held: dict[str, dict[bytes, bytes]] = {}
        self.last_nonce: dict[str, str] = {}
        self.inbox: list[discovery_pb2.DiscoveryResponse] = []

    def ask(self, type_url: str, *wanted: str) -> None:
        self.names[type_url] = wanted
        self.held.setdefault(type_url, {})
        self.stream.request(SotwRequest(type_url, wanted, nonce=self.last_nonce.get(type_url, "")))

    def fetch(self) -> None:
        self.inbox += worlds(self.stream.take())

    def answer_one(self) -> None:
        response = self.inbox.pop(0)
        url = response.type_url
        self.last_nonce[url] = response.nonce
        given = bodies(response)
        error = "refused" if BAD in given else ""
        if not error:
            if url in self.whole:
                self.held[url] = {}
            self.held[url].update({body.partition(b"=")[0]: body for body in given})
        self.stream.request(SotwRequest(url, self.names[url], response.nonce, error))

    def settle(self) -> None:
        for _ in range(1000):
            self.fetch()
            if not self.inbox:
                return
            self.answer_one()
        raise AssertionError("the stream never comes to rest")
