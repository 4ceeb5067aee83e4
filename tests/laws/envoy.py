"""A client that follows references as Envoy does, on what Pilot's engine makes of a random history.

    CDS, LDS: everything -> EDS of the clusters, RDS of the listeners -> is all there that routes and listeners name?

References are read from the messages themselves, not from what Pilot says of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from google.protobuf import json_format

from tests.laws.engine import Living
from tests.unit.xds.meshes import deltas
from windward.xds.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE, ResourceSet
from windward.xds.stream import DeltaRequest, DeltaStream

MESSAGES: dict[str, Any] = {LISTENER: listener_pb2.Listener, ROUTE: route_pb2.RouteConfiguration}
TYPES = (CLUSTER, ENDPOINT, LISTENER, ROUTE)
BOOTSTRAP = frozenset({"sds-grpc"})
"""Clusters that Envoy has before it asks for any."""


@lru_cache(maxsize=20_000)
def endpoints_of(body: bytes) -> str:
    """The load assignment that a cluster waits for; empty for one that needs none."""
    made = cluster_pb2.Cluster.FromString(body)
    if not made.HasField("eds_cluster_config"):
        return ""
    return made.eds_cluster_config.service_name or made.name


@lru_cache(maxsize=20_000)
def named_in(url: str, body: bytes) -> tuple[frozenset[str], frozenset[str]]:
    """(clusters, route configurations) that a listener or a route configuration names, at any depth."""
    tree = json_format.MessageToDict(MESSAGES[url].FromString(body))
    found = list(_names(tree))
    return (
        frozenset(name for kind, name in found if kind == CLUSTER),
        frozenset(name for kind, name in found if kind == ROUTE),
    )


def _names(tree: Any) -> Iterator[tuple[str, str]]:
    if isinstance(tree, list):
        for item in tree:
            yield from _names(item)
    if not isinstance(tree, dict):
        return
    for key, value in tree.items():
        match key, value:
            case "cluster" | "clusterName", str():
                yield CLUSTER, value
            case "weightedClusters", {"clusters": [*clusters]}:
                yield from ((CLUSTER, item["name"]) for item in clusters)
            case "routeConfigName", str():
                yield ROUTE, value
        yield from _names(value)


class EnvoyLike:
    """Accepts everything, late; checks what it has after everything that it takes over."""

    def __init__(self, current: ResourceSet) -> None:
        self.stream = DeltaStream(current)
        self.held: dict[str, dict[str, bytes]] = {url: {} for url in TYPES}
        self.asked: dict[str, set[str]] = {ENDPOINT: set(), ROUTE: set()}
        self.inbox: list[tuple[Any, ResourceSet]] = []
        """Responses with the sets that they are of."""
        self.made_of: dict[tuple[str, str], ResourceSet] = {}
        self.warming: set[str] = set()
        self.dangling: set[tuple[str, str, str]] = set()
        """(type, name, cluster) of references to what users have not made."""
        self.stream.request(DeltaRequest(CLUSTER))
        self.stream.request(DeltaRequest(LISTENER))

    def fetch(self, most: int) -> None:
        raws = [raw for _ in range(most) if (raw := self.stream.next()) is not None]
        self.inbox += [(response, self.stream.current) for response in deltas(raws)]

    def answer(self) -> None:
        if not self.inbox:
            return
        response, made_of = self.inbox.pop(0)
        url = response.type_url
        if url in self.held:
            self._warm(url, {item.name: item.resource.value for item in response.resources})
            self.made_of.update({(url, item.name): made_of for item in response.resources})
            self.held[url].update({item.name: item.resource.value for item in response.resources})
            for name in response.removed_resources:
                self.held[url].pop(name, None)
            self._check(made_of)
        self._ask()
        self.stream.request(DeltaRequest(url, nonce=response.nonce))

    def _warm(self, url: str, come: Mapping[str, bytes]) -> None:
        """A cluster that is new or changed waits for its endpoints, even for those that it had."""
        if url == CLUSTER:
            self.warming |= {name for body in come.values() if (name := endpoints_of(body))}
        elif url == ENDPOINT:
            self.warming -= come.keys()

    def _check(self, newest: ResourceSet) -> None:
        lacking = {
            (url, name, cluster)
            for url in (LISTENER, ROUTE)
            for name, body in self.held[url].items()
            for cluster in named_in(url, body)[0] - self.held[CLUSTER].keys() - BOOTSTRAP
        }
        for url, name, cluster in lacking - self.dangling:
            assert self._is_the_users(newest, url, name, cluster), f"{name} names {cluster}"
        self.dangling = lacking

    def _is_the_users(self, newest: ResourceSet, url: str, name: str, cluster: str) -> bool:
        """Whether a user's route goes to a cluster that does not exist: a subset without a DestinationRule, say.

        It did not when the route was made, or it does no longer and the newest route goes there all the same.
        """
        if self.made_of[url, name].get(CLUSTER, cluster) is None:
            return True
        latest = newest.get(url, name)
        still = latest is not None and cluster in named_in(url, latest.body)[0]
        return still and newest.get(CLUSTER, cluster) is None

    def _ask(self) -> None:
        """For what clusters and listeners need from now on, and no longer for what they do not."""
        wanted = {
            ENDPOINT: {
                name for body in self.held[CLUSTER].values() if (name := endpoints_of(body))
            },
            ROUTE: set[str]().union(
                *(named_in(LISTENER, body)[1] for body in self.held[LISTENER].values())
            ),
        }
        for url, names in wanted.items():
            come, gone = names - self.asked[url], self.asked[url] - names
            if come or gone:
                self.asked[url] = names
                for name in gone:
                    self.held[url].pop(name, None)
                self.stream.request(
                    DeltaRequest(
                        url, subscribe=tuple(sorted(come)), unsubscribe=tuple(sorted(gone))
                    )
                )

    def settle(self) -> None:
        for _ in range(2000):
            self.fetch(100)
            if not self.inbox:
                return
            self.answer()
        raise AssertionError("the stream never comes to rest")

    def complete(self) -> None:
        """At rest: every cluster has its endpoints, every listener its routes, and all of it is as the set says."""
        for url in TYPES:
            asked = self.asked.get(url)
            for name in self.held[url] if asked is None else asked:
                now = self.stream.current.get(url, name)
                assert now is not None, f"{name} is waited for, and does not exist"
                assert self.held[url][name] == now.body
        assert not self.warming & self.asked[ENDPOINT], "clusters wait for endpoints"


def references_hold_in_a_living_mesh(seeds: Sequence[int], steps: int) -> None:
    """A proxy never has a route or a listener that names a cluster which it was not sent; at rest nothing is waited for."""
    for seed in seeds:
        asyncio.run(_follow(Random(seed), steps))


async def _follow(random: Random, steps: int) -> None:
    living = Living(random, 2)
    await living.start()
    clients = [EnvoyLike(view.current) for view in living.views]
    for number in range(1, steps + 1):
        await living.step()
        for view, client in zip(living.views, clients, strict=True):
            if random.random() < 0.7:
                client.stream.update(view.current)
            client.fetch(random.randint(0, 3))
            for _ in range(random.randint(0, 3)):
                client.answer()
            if number % (steps // 10) == 0:
                client.stream.update(view.current)
                client.settle()
                client.complete()
