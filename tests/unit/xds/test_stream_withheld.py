"""What is withheld: for everybody, because of what it refers to, and what waits with its removal."""

from __future__ import annotations

import pytest

from tests.unit.xds.meshes import BAD, DeltaClient, SotwClient, a_resource, a_set, deltas, names
from windward.xds.core import MOST_TYPES
from windward.xds.resource import (
    CLUSTER,
    EXTENSION,
    LISTENER,
    NAME_TABLE,
    ROUTE,
    TYPE_PREFIX,
    Resource,
    ResourceSet,
)
from windward.xds.stream import DeltaRequest, DeltaStream, SotwStream


def referring(url: str, name: str, *refers: str, body: str = "1") -> Resource:
    return Resource(url, name, f"{name}={body}".encode(), refers=frozenset(refers))


def a_delta(*resources: Resource) -> DeltaClient:
    client = DeltaClient(DeltaStream(a_set(1, *resources)))
    client.ask(CLUSTER)
    client.ask(LISTENER)
    client.ask(ROUTE, "r")
    client.settle()
    return client


def a_sotw(*resources: Resource) -> SotwClient:
    client = SotwClient(SotwStream(a_set(1, *resources)), (CLUSTER, LISTENER))
    client.ask(CLUSTER)
    client.ask(LISTENER)
    client.ask(ROUTE, "r")
    client.settle()
    return client


def held(client: DeltaClient | SotwClient, url: str) -> set[str]:
    return {name.decode() if isinstance(name, bytes) else name for name in client.held.get(url, {})}


BAD_CLUSTER = Resource(CLUSTER, "c", BAD)


@pytest.mark.parametrize("connect", [a_delta, a_sotw])
def test_a_route_to_a_refused_new_cluster_and_its_listener_are_withheld(connect):
    client = connect(BAD_CLUSTER, referring(ROUTE, "r", "c"), referring(LISTENER, "l", "r"))
    assert held(client, LISTENER) == held(client, ROUTE) == set()
    client.stream.update(
        a_set(
            2,
            a_resource(CLUSTER, "c", "c=1"),
            referring(ROUTE, "r", "c"),
            referring(LISTENER, "l", "r"),
        )
    )
    client.settle()
    assert held(client, LISTENER) == {"l"}
    assert held(client, ROUTE) == {"r"}


@pytest.mark.parametrize("connect", [a_delta, a_sotw])
def test_a_refused_change_of_a_cluster_withholds_nothing_else(connect):
    client = connect(a_resource(CLUSTER, "c", "c=1"))
    client.stream.update(a_set(2, BAD_CLUSTER, referring(ROUTE, "r", "c")))
    client.settle()
    assert held(client, ROUTE) == {"r"}
    assert held(client, CLUSTER) == {"c"}


@pytest.mark.parametrize("connect", [a_delta, a_sotw])
def test_a_cluster_stays_while_a_refused_route_keeps_its_user_in_force(connect):
    """The route's last good version still names it: without it, requests would fail."""
    client = connect(a_resource(CLUSTER, "old", "old=1"), referring(ROUTE, "r", "old"))
    fresh = a_resource(CLUSTER, "new", "new=1")
    client.stream.update(a_set(2, fresh, Resource(ROUTE, "r", BAD)))
    client.settle()
    assert held(client, CLUSTER) == {"old", "new"}
    client.stream.update(a_set(3, fresh, referring(ROUTE, "r", "new")))
    client.settle()
    assert held(client, CLUSTER) == {"new"}


def test_a_route_that_the_client_brought_along_and_refuses_to_change_keeps_clusters():
    """Its version says nothing of what it names."""
    old = a_resource(CLUSTER, "old", "old=1")
    stream = DeltaStream(a_set(2, Resource(ROUTE, "r", BAD)))
    client = DeltaClient(stream)
    for url, name, version in ((CLUSTER, "old", old.version), (ROUTE, "r", "0123456789abcdef")):
        asked = () if url == CLUSTER else (name,)
        stream.request(DeltaRequest(url, subscribe=asked, initial_versions={name: version}))
    client.held = {CLUSTER: {"old": old.body}, ROUTE: {"r": b"?"}}
    client.settle()
    assert held(client, CLUSTER) == {"old"}


def hold(*resources: Resource) -> dict[tuple[str, str, str], None]:
    return {(item.type_url, item.name, item.version): None for item in resources}


@pytest.mark.parametrize("connect", [a_delta, a_sotw])
def test_a_version_that_is_held_for_all_is_not_sent_until_it_is_released(connect):
    good, held_back = a_resource(CLUSTER, "c", "c=1"), a_resource(CLUSTER, "c", "c=2")
    client = connect(good)
    client.stream.update(a_set(2, held_back, a_resource(CLUSTER, "d", "d=1")), hold(held_back))
    client.settle()
    bodies = set(client.held[CLUSTER].values())
    assert bodies == {b"c=1", b"d=1"}
    assert not client.stream.types[CLUSTER].refused
    client.stream.update(client.stream.current, {})
    client.settle()
    assert set(client.held[CLUSTER].values()) == {b"c=2", b"d=1"}


def test_a_new_resource_that_is_held_for_all_withholds_what_refers_to_it():
    client = a_delta()
    cluster, route = a_resource(CLUSTER, "c"), referring(ROUTE, "r", "c")
    client.stream.update(a_set(2, cluster, route), hold(cluster))
    client.settle()
    assert held(client, CLUSTER) == held(client, ROUTE) == set()
    client.stream.update(client.stream.current, {})
    client.settle()
    assert held(client, CLUSTER) == {"c"}
    assert held(client, ROUTE) == {"r"}


def test_who_accepted_a_version_before_it_was_held_keeps_it():
    good = a_resource(CLUSTER, "c")
    client = a_delta(good)
    client.stream.update(a_set(2, good), hold(good))
    assert client.stream.take() == []
    assert client.stream.accepted(CLUSTER, "c") == good.version


def test_references_in_a_circle_end():
    """A route may have the name of a cluster; nothing of a mesh makes a stream look at it for ever."""
    client = a_delta(referring(ROUTE, "r", "r"), referring(LISTENER, "l", "l", "r"))
    assert held(client, ROUTE) == {"r"}
    assert held(client, LISTENER) == {"l"}


# ---- what was found bad -----------------------------------------------------------------------------------------------


def test_a_refusal_says_which_version_was_refused_when_and_in_which_words():
    stream = DeltaStream(a_set(3, BAD_CLUSTER))
    stream.request(DeltaRequest(CLUSTER))
    (response,) = deltas(stream.take())
    nack = DeltaRequest(CLUSTER, nonce=response.nonce, error="ring size")
    (refusal,) = stream.request(nack, at=12.5)
    assert (refusal.type_url, refusal.name, refusal.version) == (
        CLUSTER,
        "c",
        BAD_CLUSTER.version,
    )
    assert (refusal.error, refusal.revision, refusal.at) == ("ring size", 30, 12.5)
    assert stream.types[CLUSTER].refused == {"c": refusal}


def test_what_is_no_longer_wanted_is_no_longer_refused():
    client = DeltaClient(DeltaStream(a_set(1, Resource(ROUTE, "r", BAD))))
    client.ask(ROUTE, "r")
    client.settle()
    state = client.stream.types[ROUTE]
    assert state.state == "ERROR"
    client.drop(ROUTE, "r")
    client.settle()
    assert (state.state, state.refused, state.overlay) == ("SYNCED", {}, {})


def test_an_ack_proves_nothing_bad_and_says_how_far_the_client_is():
    stream = DeltaStream(a_set(3, a_resource(CLUSTER, "c")))
    stream.request(DeltaRequest(CLUSTER))
    (response,) = deltas(stream.take())
    assert stream.types[CLUSTER].acked_version == 0
    assert stream.request(DeltaRequest(CLUSTER, nonce=response.nonce)) == ()
    assert stream.types[CLUSTER].acked_version == 3


def test_a_nonce_carries_the_version_of_the_snapshot():
    stream = DeltaStream(a_set(41, a_resource(CLUSTER, "c")))
    stream.request(DeltaRequest(CLUSTER))
    (response,) = deltas(stream.take())
    assert response.nonce.split("-")[1] == "41"


# ---- other types, layers, what is shared ------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [EXTENSION, NAME_TABLE, TYPE_PREFIX + "example.Other"])
def test_any_type_of_the_mesh_is_served(url):
    client = DeltaClient(DeltaStream(a_set(1, a_resource(url, "x"))))
    client.ask(url, "x")
    client.settle()
    assert client.held[url] == {"x": b"1"}


def test_types_without_number_are_answered_with_silence():
    stream = DeltaStream(a_set(1))
    for number in range(10 * MOST_TYPES):
        stream.request(DeltaRequest(f"{TYPE_PREFIX}example.T{number}", subscribe=("x",)))
    assert len(stream.types) == MOST_TYPES
    assert len(stream.take()) == MOST_TYPES


def test_a_set_of_the_same_version_from_another_scope_is_compared():
    """A group that moves to another scope gets a second set of one version."""
    client = DeltaClient(DeltaStream(a_set(5, a_resource(CLUSTER, "a"), a_resource(CLUSTER, "b"))))
    client.ask(CLUSTER)
    client.settle()
    client.stream.update(a_set(5, a_resource(CLUSTER, "a", "2")))
    client.settle()
    assert client.held[CLUSTER] == {"a": b"2"}


def test_a_name_that_moves_between_layers_is_sent_only_when_its_bytes_differ():
    one, two = a_resource(CLUSTER, "a"), a_resource(CLUSTER, "a", "2")
    client = DeltaClient(DeltaStream(ResourceSet(1, 1, ({}, {CLUSTER: {"a": one}}))))
    client.ask(CLUSTER)
    client.settle()
    client.stream.update(ResourceSet(2, 2, ({CLUSTER: {"a": one}}, {CLUSTER: {"a": two}})))
    assert client.stream.take() == []
    client.stream.update(ResourceSet(3, 3, ({}, {CLUSTER: {"a": two}})))
    (response,) = deltas(client.stream.take())
    assert names(response) == ["a"]


def test_synced_streams_share_their_subscriptions_and_keep_no_resource_of_their_own():
    current = a_set(1, *(a_resource(ROUTE, f"r{number}") for number in range(200)))
    clients = [DeltaClient(DeltaStream(current)) for _ in range(2)]
    for client in clients:
        client.ask(ROUTE, *(f"r{number}" for number in range(200)))
        client.settle()
    first, second = (client.stream.types[ROUTE] for client in clients)
    assert first.subscription.names is second.subscription.names
    assert (first.overlay, first.again, first.pending, first.todo) == ({}, set(), {}, [])
    own = {name: name for name in current.names(ROUTE)}
    assert all(own[name] is name for name in first.subscription.names), "the mesh's own strings"


def test_a_change_of_names_does_not_reach_who_shared_them():
    current = a_set(1, a_resource(ROUTE, "a"), a_resource(ROUTE, "b"))
    clients = [DeltaClient(DeltaStream(current)) for _ in range(2)]
    for client in clients:
        client.ask(ROUTE, "a")
        client.settle()
    clients[0].ask(ROUTE, "b")
    assert clients[1].stream.types[ROUTE].subscription.names == {"a"}


def test_streams_at_one_version_are_sent_the_same_bytes_but_for_the_nonce():
    current = a_set(1, *(a_resource(CLUSTER, f"c{number}") for number in range(10)))
    sent = []
    for skipped in range(2):
        stream = DeltaStream(current)
        for _ in range(skipped):
            stream.request(DeltaRequest(LISTENER))
            stream.take()
        stream.request(DeltaRequest(CLUSTER))
        (raw,) = stream.take()
        sent.append((raw, deltas([raw])[0].nonce))
    (one, nonce), (other, another) = sent
    assert nonce != another
    assert one.removesuffix(nonce.encode()) == other.removesuffix(another.encode())
