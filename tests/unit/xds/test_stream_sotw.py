"""State of the world: whole sets of clusters and listeners, named endpoints and routes, and stale nonces."""

from __future__ import annotations

import pytest

from tests.unit.xds.meshes import BAD, SotwClient, a_resource, a_set, bodies, worlds
from windward.xds.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE, Resource
from windward.xds.stream import SotwRequest, SotwStream


def ack(stream: SotwStream, response, *names: str, error: str = "") -> None:
    stream.request(SotwRequest(response.type_url, names, response.nonce, error))


def a_client(*resources: Resource) -> SotwClient:
    return SotwClient(SotwStream(a_set(1, *resources)), whole=(CLUSTER, LISTENER))


@pytest.mark.parametrize("whole", [CLUSTER, LISTENER])
def test_a_change_of_clusters_or_listeners_sends_all_of_them(whole):
    """What is left out is removed, says the protocol for these two types."""
    client = a_client(a_resource(whole, "a", "a=1"), a_resource(whole, "b", "b=1"))
    client.ask(whole)
    client.settle()
    client.stream.update(a_set(2, a_resource(whole, "a", "a=1"), a_resource(whole, "b", "b=2")))
    client.fetch()
    assert [bodies(response) for response in client.inbox] == [[b"a=1", b"b=2"]]


@pytest.mark.parametrize("named", [ENDPOINT, ROUTE])
def test_a_change_of_endpoints_or_routes_sends_what_changed(named):
    client = a_client(a_resource(named, "a", "a=1"), a_resource(named, "b", "b=1"))
    client.ask(named, "a", "b")
    client.settle()
    client.stream.update(a_set(2, a_resource(named, "a", "a=1"), a_resource(named, "b", "b=2")))
    client.fetch()
    assert [bodies(response) for response in client.inbox] == [[b"b=2"]]


def test_a_removed_cluster_is_left_out():
    client = a_client(a_resource(CLUSTER, "a", "a=1"), a_resource(CLUSTER, "b", "b=1"))
    client.ask(CLUSTER)
    client.settle()
    client.stream.update(a_set(2, a_resource(CLUSTER, "a", "a=1")))
    client.settle()
    assert client.held[CLUSTER] == {b"a": b"a=1"}


def test_removed_endpoints_say_nothing():
    client = a_client(a_resource(ENDPOINT, "a", "a=1"))
    client.ask(ENDPOINT, "a")
    client.settle()
    client.stream.update(a_set(2))
    assert client.stream.take() == []


def test_an_empty_mesh_answers_whole_types_and_waits_with_named_ones():
    stream = SotwStream(a_set(1))
    stream.request(SotwRequest(CLUSTER))
    stream.request(SotwRequest(ROUTE, ("absent",)))
    (response,) = worlds(stream.take())
    assert (response.type_url, bodies(response)) == (CLUSTER, [])


def test_names_that_are_added_are_answered_with_those_alone():
    client = a_client(a_resource(ENDPOINT, "a", "a=1"), a_resource(ENDPOINT, "b", "b=1"))
    client.ask(ENDPOINT, "a")
    client.settle()
    client.ask(ENDPOINT, "a", "b")
    client.fetch()
    assert [bodies(response) for response in client.inbox] == [[b"b=1"]]


def test_names_that_are_dropped_are_not_answered():
    client = a_client(a_resource(ENDPOINT, "a", "a=1"), a_resource(ENDPOINT, "b", "b=1"))
    client.ask(ENDPOINT, "a", "b")
    client.settle()
    client.ask(ENDPOINT, "a")
    assert client.stream.take() == []
    client.stream.update(a_set(2, a_resource(ENDPOINT, "b", "b=2")))
    assert client.stream.take() == []


def test_a_name_that_is_dropped_and_added_is_sent_again():
    client = a_client(a_resource(ENDPOINT, "a", "a=1"), a_resource(ENDPOINT, "b", "b=1"))
    client.ask(ENDPOINT, "a", "b")
    client.settle()
    client.ask(ENDPOINT, "b")
    client.ask(ENDPOINT, "a", "b")
    client.fetch()
    assert [bodies(response) for response in client.inbox] == [[b"a=1"]]


def test_names_that_come_and_go_beside_everything_leave_nothing_behind():
    """Of a client that never answers either: what it once named is not kept."""
    stream = SotwStream(a_set(1, a_resource(CLUSTER, "a")))
    for number in range(100):
        stream.request(SotwRequest(CLUSTER, ("*", f"x{number}")))
        stream.take()
    state = stream.types[CLUSTER]
    assert len(state.pending) == 1
    assert not state.again
    assert not state.overlay
    assert not state.answered, "that x99 does not exist is still to be said"


def test_one_response_a_type_is_under_way():
    """A slow client gets the newest state when it answers, not every state between."""
    stream = SotwStream(a_set(1, a_resource(CLUSTER, "a", "a=1")))
    stream.request(SotwRequest(CLUSTER))
    (first,) = worlds(stream.take())
    for version in range(2, 10):
        stream.update(a_set(version, a_resource(CLUSTER, "a", f"a={version}")))
        assert stream.take() == []
    ack(stream, first)
    (second,) = worlds(stream.take())
    assert bodies(second) == [b"a=9"]


def test_a_stale_nonce_is_ignored():
    stream = SotwStream(a_set(1, a_resource(ENDPOINT, "a", "a=1"), a_resource(ENDPOINT, "b")))
    stream.request(SotwRequest(ENDPOINT, ("a",)))
    (first,) = worlds(stream.take())
    ack(stream, first, "a")
    stream.update(a_set(2, a_resource(ENDPOINT, "a", "a=2"), a_resource(ENDPOINT, "b")))
    (second,) = worlds(stream.take())
    ack(stream, first, "a", "b", error="late")
    state = stream.types[ENDPOINT]
    assert state.subscription.names == {"a"}
    assert state.rejects == 0
    assert list(state.pending) == [second.nonce]


def test_a_first_request_with_a_nonce_of_another_server_is_answered():
    stream = SotwStream(a_set(1, a_resource(CLUSTER, "a", "a=1")))
    stream.request(SotwRequest(CLUSTER, nonce="of-another-pilot"))
    assert len(stream.take()) == 1


def test_an_ack_is_not_answered():
    client = a_client(a_resource(CLUSTER, "a", "a=1"))
    client.ask(CLUSTER)
    client.settle()
    assert client.stream.types[CLUSTER].state == "SYNCED"
    assert client.stream.types[CLUSTER].acked_revision == 10
    assert client.stream.take() == []


def test_one_bad_cluster_of_many_holds_back_no_good_one():
    client = a_client(a_resource(CLUSTER, "a", "a=1"))
    client.ask(CLUSTER)
    client.settle()
    good = [a_resource(CLUSTER, f"c{number:02}", f"c{number:02}=1") for number in range(40)]
    changed = [a_resource(CLUSTER, "a", "a=2"), Resource(CLUSTER, "c07x", BAD), *good]
    client.stream.update(a_set(2, *changed))
    client.settle()
    state = client.stream.types[CLUSTER]
    assert client.held[CLUSTER] == {
        item.name.encode(): item.body for item in changed if item.body != BAD
    }
    assert state.refused.keys() == {"c07x"}
    assert state.state == "ERROR"
    assert state.rejects <= 7, "a bisection takes log2 of the suspects"
    client.stream.update(a_set(3, *changed))
    assert client.stream.take() == []


def test_endpoints_come_again_for_clusters_that_go_back_to_what_they_were():
    """Envoy takes what is good in a response that it refuses; changed back, those clusters warm, and hold up the next ACK."""
    before = [a_resource(url, name, f"{name}=1") for url in (CLUSTER, ENDPOINT) for name in "abcd"]
    client = a_client(*before)
    client.ask(CLUSTER)
    client.ask(ENDPOINT, *"abcd")
    client.settle()
    endpoints = [item for item in before if item.type_url == ENDPOINT]
    good = [a_resource(CLUSTER, name, f"{name}=2") for name in "bcd"]
    client.stream.update(a_set(2, Resource(CLUSTER, "a", BAD), *good, *endpoints))
    taken = {name: f"{name}=1".encode() for name in "abcd"}
    rounds = 0
    client.fetch()
    while client.inbox:
        for response in client.inbox:
            if response.type_url == CLUSTER:
                now = {body[:1].decode(): body for body in bodies(response) if body != BAD}
                warming = {name for name, body in now.items() if taken[name] != body}
                taken |= now
                rounds += 1
            else:
                warming -= {body[:1].decode() for body in bodies(response)}
        assert not warming
        while client.inbox:
            client.answer_one()
        client.fetch()
    assert rounds > 2
    assert taken == {"a": b"a=1", "b": b"b=2", "c": b"c=2", "d": b"d=2"}


def test_a_refused_change_stays_at_its_last_good_bytes_in_whole_responses():
    client = a_client(a_resource(CLUSTER, "x", "x=1"), a_resource(CLUSTER, "y", "y=1"))
    client.ask(CLUSTER)
    client.settle()
    client.stream.update(a_set(2, Resource(CLUSTER, "x", BAD), a_resource(CLUSTER, "y", "y=1")))
    client.settle()
    client.stream.update(a_set(3, Resource(CLUSTER, "x", BAD), a_resource(CLUSTER, "y", "y=2")))
    client.settle()
    assert client.held[CLUSTER] == {b"x": b"x=1", b"y": b"y=2"}


def test_who_comes_again_and_refuses_all_loses_what_is_gone_when_nothing_bad_is_left():
    """It holds what it had elsewhere, of which this stream knows nothing."""
    client = a_client(a_resource(CLUSTER, "old", "old=1"))
    client.ask(CLUSTER)
    client.settle()
    client.stream = SotwStream(a_set(2, Resource(CLUSTER, "new", BAD)))
    client.last_nonce.clear()
    client.ask(CLUSTER)
    client.settle()
    assert client.held[CLUSTER] == {b"old": b"old=1"}, "the last good is kept"
    client.stream.update(a_set(3))
    client.settle()
    assert client.held[CLUSTER] == {}


def test_an_empty_response_that_is_refused_is_not_said_again():
    stream = SotwStream(a_set(1, Resource(CLUSTER, "new", BAD)))
    stream.request(SotwRequest(CLUSTER))
    for version in range(2, 5):
        for response in worlds(stream.take()):
            ack(stream, response, error="no")
        stream.update(a_set(version))
    assert stream.take() == []


def test_mending_a_refused_set_ends_the_error():
    client = a_client(Resource(CLUSTER, "x", BAD))
    client.ask(CLUSTER)
    client.settle()
    client.stream.update(a_set(2, a_resource(CLUSTER, "x", "x=1")))
    client.settle()
    assert client.held[CLUSTER] == {b"x": b"x=1"}
    assert client.stream.types[CLUSTER].state == "SYNCED"


@pytest.mark.parametrize("earlier", [CLUSTER, ENDPOINT])
@pytest.mark.parametrize("later", [LISTENER, ROUTE])
def test_what_refers_waits_for_what_it_refers_to(earlier, later):
    client = a_client(a_resource(earlier, "a", "a=1"), a_resource(later, "x", "x=1"))
    client.ask(later, "x")
    client.ask(earlier, "a")
    client.fetch()
    assert [response.type_url for response in client.inbox] == [earlier]
    client.settle()
    assert client.held[later] == {b"x": b"x=1"}


def test_an_older_set_is_ignored():
    stream = SotwStream(a_set(5, a_resource(CLUSTER, "a", "new")))
    stream.update(a_set(4, a_resource(CLUSTER, "a", "old")))
    stream.request(SotwRequest(CLUSTER))
    (response,) = worlds(stream.take())
    assert bodies(response) == [b"new"]
