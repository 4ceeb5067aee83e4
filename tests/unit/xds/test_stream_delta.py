"""Incremental xDS: who gets what, in which order, and what an answer changes."""

from __future__ import annotations

import pytest

from tests.unit.xds.meshes import BAD, DeltaClient, a_resource, a_set, deltas, names
from windward.xds.delta import CHUNK_BYTES, MOST_PENDING
from windward.xds.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE, Resource
from windward.xds.stream import CHUNK, NEW_CHUNK, DeltaRequest, DeltaStream


def bad(type_url: str, name: str) -> Resource:
    return Resource(type_url, name, BAD)


def many(type_url: str, count: int) -> list[Resource]:
    return [a_resource(type_url, f"r{number:03}") for number in range(count)]


def ack(stream: DeltaStream, *responses, error: str = "") -> None:
    for response in responses:
        stream.request(DeltaRequest(response.type_url, nonce=response.nonce, error=error))


def test_a_wildcard_request_gets_everything_in_chunks():
    stream = DeltaStream(a_set(1, *many(CLUSTER, 2 * NEW_CHUNK + 7)))
    stream.request(DeltaRequest(CLUSTER))
    sent = deltas(stream.take())
    assert [len(response.resources) for response in sent] == [NEW_CHUNK, NEW_CHUNK, 7]
    assert len({response.nonce for response in sent}) == 3
    assert stream.take() == []


def test_changes_of_what_the_client_has_go_in_smaller_chunks():
    stream = DeltaStream(a_set(1, *many(CLUSTER, 2 * CHUNK)))
    stream.request(DeltaRequest(CLUSTER))
    ack(stream, *deltas(stream.take()))
    changed = [a_resource(CLUSTER, item.name, "2") for item in many(CLUSTER, 2 * CHUNK)]
    stream.update(a_set(2, *changed, a_resource(CLUSTER, "zz")))
    sent = deltas(stream.take())
    assert [len(response.resources) for response in sent] == [CHUNK, CHUNK, 1]


def test_a_chunk_is_no_longer_than_a_megabyte():
    body = "x" * (CHUNK_BYTES // 2 - 100)
    long = [a_resource(CLUSTER, f"c{number}", f"{number}{body}") for number in range(5)]
    huge = a_resource(CLUSTER, "d", body * 3)
    stream = DeltaStream(a_set(1, *long, huge))
    stream.request(DeltaRequest(CLUSTER))
    sent = deltas(stream.take())
    assert [names(response) for response in sent] == [["c0", "c1"], ["c2", "c3"], ["c4"], ["d"]]


def test_an_empty_mesh_answers_a_wildcard_request():
    """Envoy waits for its first clusters and listeners, even for none."""
    stream = DeltaStream(a_set(1))
    stream.request(DeltaRequest(CLUSTER))
    (response,) = deltas(stream.take())
    assert (names(response), list(response.removed_resources)) == ([], [])
    ack(stream, response)
    assert stream.take() == []


def test_that_there_are_no_listeners_is_said_once_clusters_were_accepted():
    stream = DeltaStream(a_set(1, a_resource(CLUSTER, "a")))
    stream.request(DeltaRequest(CLUSTER))
    (clusters,) = deltas(stream.take())
    stream.request(DeltaRequest(LISTENER))
    assert stream.take() == [], "listeners wait for what they may refer to"
    stream.update(a_set(2, a_resource(CLUSTER, "a")))
    assert stream.take() == []
    ack(stream, clusters)
    (response,) = deltas(stream.take())
    assert (response.type_url, names(response)) == (LISTENER, [])


def test_only_what_was_named_is_sent():
    stream = DeltaStream(a_set(1, *many(ROUTE, 5)))
    stream.request(DeltaRequest(ROUTE, subscribe=("r001", "r003")))
    (response,) = deltas(stream.take())
    assert names(response) == ["r001", "r003"]


def test_a_named_resource_that_does_not_exist_is_said_to_be_removed_once():
    stream = DeltaStream(a_set(1))
    stream.request(DeltaRequest(ROUTE, subscribe=("absent",)))
    (response,) = deltas(stream.take())
    assert list(response.removed_resources) == ["absent"]
    ack(stream, response)
    assert stream.take() == []
    stream.update(a_set(2, a_resource(ROUTE, "absent")))
    (response,) = deltas(stream.take())
    assert names(response) == ["absent"]


def test_a_change_sends_the_changed_resource_alone():
    resources = many(CLUSTER, 100)
    client = DeltaClient(DeltaStream(a_set(1, *resources)))
    client.ask(CLUSTER)
    client.settle()
    resources[42] = a_resource(CLUSTER, "r042", "2")
    client.stream.update(a_set(2, *resources))
    client.fetch()
    assert [names(response) for response in client.inbox] == [["r042"]]


def test_a_set_that_differs_in_nothing_sends_nothing():
    client = DeltaClient(DeltaStream(a_set(1, *many(CLUSTER, 10))))
    client.ask(CLUSTER)
    client.settle()
    client.stream.update(a_set(2, *many(CLUSTER, 10)))
    assert client.stream.take() == []
    assert client.stream.types[CLUSTER].acked_revision == 20


def test_an_older_set_is_ignored():
    stream = DeltaStream(a_set(5, a_resource(CLUSTER, "a", "new")))
    stream.update(a_set(4, a_resource(CLUSTER, "a", "old")))
    stream.request(DeltaRequest(CLUSTER))
    (response,) = deltas(stream.take())
    assert response.resources[0].resource.value == b"new"


def test_a_reconnect_of_an_up_to_date_proxy_sends_nothing():
    resources = many(CLUSTER, 3)
    stream = DeltaStream(a_set(9, *resources))
    versions = {resource.name: resource.version for resource in resources}
    stream.request(DeltaRequest(CLUSTER, initial_versions=versions))
    assert stream.take() == []
    assert {name: stream.accepted(CLUSTER, name) for name in versions} == versions


def test_a_reconnect_sends_what_changed_and_what_went_meanwhile():
    resources = many(CLUSTER, 3)
    versions = {resource.name: resource.version for resource in resources}
    stream = DeltaStream(a_set(9, resources[0], a_resource(CLUSTER, "r001", "2")))
    stream.request(DeltaRequest(CLUSTER, initial_versions=versions))
    sent = deltas(stream.take())
    assert [names(response) for response in sent] == [["r001"], []]
    assert [list(response.removed_resources) for response in sent] == [[], ["r002"]]


def test_a_reconnect_by_name_keeps_what_the_client_brought():
    route = a_resource(ROUTE, "r")
    stream = DeltaStream(a_set(3, route))
    stream.request(DeltaRequest(ROUTE, subscribe=("r",), initial_versions={"r": route.version}))
    assert stream.take() == []


def test_asking_again_for_a_name_is_answered_again():
    """The client has forgotten it: it would wait for ever."""
    client = DeltaClient(DeltaStream(a_set(1, a_resource(ROUTE, "r"))))
    client.ask(ROUTE, "r")
    client.settle()
    client.stream.request(DeltaRequest(ROUTE, subscribe=("r",)))
    (response,) = deltas(client.stream.take())
    assert names(response) == ["r"]


def test_an_ack_that_subscribes_does_both():
    stream = DeltaStream(a_set(1, *many(ENDPOINT, 2)))
    stream.request(DeltaRequest(ENDPOINT, subscribe=("r000",)))
    (first,) = deltas(stream.take())
    stream.request(DeltaRequest(ENDPOINT, nonce=first.nonce, subscribe=("r001",)))
    assert stream.accepted(ENDPOINT, "r000")
    assert not stream.accepted(ENDPOINT, "r001")
    (second,) = deltas(stream.take())
    assert names(second) == ["r001"]


def test_an_unsubscribed_name_gets_no_more_changes():
    client = DeltaClient(DeltaStream(a_set(1, *many(ROUTE, 2))))
    client.ask(ROUTE, "r000", "r001")
    client.settle()
    client.drop(ROUTE, "r000")
    client.stream.update(a_set(2, a_resource(ROUTE, "r000", "2"), a_resource(ROUTE, "r001", "2")))
    client.fetch()
    assert [names(response) for response in client.inbox] == [["r001"]]


def test_a_name_given_up_beside_everything_is_told_again():
    """The client has dropped what it named, and wants it still (xDS protocol, "Unsubscribing From Resources")."""
    stream = DeltaStream(a_set(1, *many(CLUSTER, 3)))
    stream.request(DeltaRequest(CLUSTER, subscribe=("*", "r001", "nobody")))
    ack(stream, *deltas(stream.take()))
    stream.request(DeltaRequest(CLUSTER, unsubscribe=("r001", "r002", "nobody")))
    (response,) = deltas(stream.take())
    assert (names(response), list(response.removed_resources)) == (["r001"], [])


def test_endpoints_that_a_changed_cluster_waits_for_come_also_when_both_were_gone_for_a_moment():
    """Envoy warms the cluster that it was sent, whatever became of it before its endpoints could follow."""
    there = a_resource(ENDPOINT, "a")
    stream = DeltaStream(a_set(1, a_resource(CLUSTER, "a"), there, a_resource(CLUSTER, "b")))
    stream.request(DeltaRequest(CLUSTER, subscribe=("*",)))
    stream.request(DeltaRequest(ENDPOINT, subscribe=("a",)))
    ack(stream, *deltas(stream.take()))
    ack(stream, *deltas(stream.take()))
    stream.request(DeltaRequest(ROUTE, subscribe=("r",)))
    stream.update(
        a_set(
            2,
            a_resource(CLUSTER, "a", "2"),
            there,
            Resource(ROUTE, "r", b"r", refers=frozenset("a")),
        )
    )
    first = stream.next()
    assert first is not None
    assert [names(response) for response in deltas([first])] == [["a"]]
    stream.update(a_set(3, Resource(ROUTE, "r", b"r")))
    stream.next()
    stream.update(a_set(4, a_resource(CLUSTER, "a", "2"), there))
    sent = [item for response in deltas(stream.take()) for item in response.resources]
    assert "a" in [item.name for item in sent if item.resource.type_url == ENDPOINT]


def test_names_that_come_and_go_beside_everything_leave_nothing_behind():
    """Of a client that never answers either: what it once named is not kept."""
    stream = DeltaStream(a_set(1, *many(CLUSTER, 3)))
    stream.request(DeltaRequest(CLUSTER, subscribe=("*",)))
    for number in range(2 * MOST_PENDING):
        stream.request(DeltaRequest(CLUSTER, subscribe=(f"x{number}",)))
        stream.take()
        stream.request(DeltaRequest(CLUSTER, unsubscribe=(f"x{number}",)))
    state = stream.types[CLUSTER]
    assert len(state.pending) == MOST_PENDING
    assert not state.again
    assert not state.todo


def test_an_unsubscribed_name_is_not_reported_as_removed_when_it_goes():
    client = DeltaClient(DeltaStream(a_set(1, a_resource(ROUTE, "r"))))
    client.ask(ROUTE, "r")
    client.settle()
    client.drop(ROUTE, "r")
    client.stream.update(a_set(2))
    assert client.stream.take() == []


def test_a_removed_resource_is_named_once_and_comes_back():
    client = DeltaClient(DeltaStream(a_set(1, a_resource(ROUTE, "r"))))
    client.ask(ROUTE, "r")
    client.settle()
    client.stream.update(a_set(2))
    client.fetch()
    assert [list(response.removed_resources) for response in client.inbox] == [["r"]]
    client.settle()
    client.stream.update(a_set(3, a_resource(ROUTE, "r")))
    client.settle()
    assert client.held[ROUTE] == {"r": b"1"}


# ---- make before break ------------------------------------------------------------------------------------------------


def test_listeners_wait_until_every_chunk_of_clusters_is_acked():
    """Envoy goes live after the first chunks otherwise."""
    listeners = [a_resource(LISTENER, f"l{number:03}") for number in range(NEW_CHUNK + 20)]
    stream = DeltaStream(a_set(1, *many(CLUSTER, NEW_CHUNK + 1), *listeners))
    stream.request(DeltaRequest(LISTENER))
    stream.request(DeltaRequest(CLUSTER))
    first, second = deltas(stream.take())
    ack(stream, first)
    assert stream.take() == []
    ack(stream, second)
    (response,) = deltas(stream.take())
    assert response.type_url == LISTENER
    assert len(response.resources) == NEW_CHUNK + 20, "a new proxy's listeners come in one response"


def test_later_listeners_go_in_chunks():
    client = DeltaClient(DeltaStream(a_set(1, a_resource(LISTENER, "first"))))
    client.ask(LISTENER)
    client.settle()
    client.stream.update(a_set(2, a_resource(LISTENER, "first"), *many(LISTENER, NEW_CHUNK + 5)))
    client.fetch()
    assert [len(response.resources) for response in client.inbox] == [NEW_CHUNK, 5]


@pytest.mark.parametrize("earlier", [CLUSTER, ENDPOINT])
@pytest.mark.parametrize("later", [LISTENER, ROUTE])
def test_what_refers_waits_for_what_it_refers_to(earlier, later):
    client = DeltaClient(DeltaStream(a_set(1, a_resource(earlier, "a"), a_resource(later, "x"))))
    client.ask(earlier, "*")
    client.ask(later, "*")
    client.settle()
    client.stream.update(a_set(2, a_resource(earlier, "a", "2"), a_resource(later, "x", "2")))
    client.fetch()
    assert [response.type_url for response in client.inbox] == [earlier]
    client.answer_one()
    client.fetch()
    assert [response.type_url for response in client.inbox] == [later]


@pytest.mark.parametrize("referring", [LISTENER, ROUTE])
def test_a_cluster_goes_after_what_referred_to_it_has_changed(referring):
    client = DeltaClient(
        DeltaStream(a_set(1, *many(CLUSTER, 2), a_resource(referring, "x", "to r001")))
    )
    client.ask(CLUSTER)
    client.ask(referring, "*")
    client.settle()
    client.stream.update(
        a_set(2, a_resource(CLUSTER, "r000"), a_resource(referring, "x", "to r000"))
    )
    client.fetch()
    assert [response.type_url for response in client.inbox] == [referring]
    client.answer_one()
    client.fetch()
    assert [list(response.removed_resources) for response in client.inbox] == [["r001"]]


def test_routes_are_removed_before_clusters():
    client = DeltaClient(DeltaStream(a_set(1, a_resource(CLUSTER, "c"), a_resource(ROUTE, "r"))))
    client.ask(CLUSTER)
    client.ask(ROUTE, "r")
    client.settle()
    client.stream.update(a_set(2))
    client.fetch()
    assert [response.type_url for response in client.inbox] == [ROUTE]
    client.settle()
    assert client.held == {CLUSTER: {}, ROUTE: {}}


# ---- refusals ---------------------------------------------------------------------------------------------------------


def test_one_bad_resource_among_sixty_spares_the_others():
    resources = [*many(CLUSTER, 59), bad(CLUSTER, "r0305")]
    client = DeltaClient(DeltaStream(a_set(1, *resources)))
    client.ask(CLUSTER)
    client.settle()
    state = client.stream.types[CLUSTER]
    assert len(client.held[CLUSTER]) == 59
    assert state.refused.keys() == {"r0305"}
    assert state.state == "ERROR"
    assert state.last_error == "refused"
    names_accepted = {item.name for item in resources if client.stream.accepted(CLUSTER, item.name)}
    assert names_accepted == client.held[CLUSTER].keys()


def test_a_refused_chunk_goes_again_as_single_resources():
    client = DeltaClient(DeltaStream(a_set(1, *many(CLUSTER, 3), bad(CLUSTER, "x"))))
    client.ask(CLUSTER)
    client.fetch()
    client.answer_one()
    client.fetch()
    assert [names(response) for response in client.inbox] == [["r000"], ["r001"], ["r002"], ["x"]]


def test_a_bad_resource_is_sent_at_most_twice_until_it_changes():
    client = DeltaClient(DeltaStream(a_set(1, a_resource(CLUSTER, "good"), bad(CLUSTER, "x"))))
    client.ask(CLUSTER)
    client.settle()
    before = client.messages_received
    client.stream.update(a_set(2, a_resource(CLUSTER, "good", "2"), bad(CLUSTER, "x")))
    client.fetch()
    assert [names(response) for response in client.inbox] == [["good"]]
    client.settle()
    assert client.messages_received == before + 1


def test_a_refused_change_leaves_the_last_good_version():
    client = DeltaClient(DeltaStream(a_set(1, a_resource(CLUSTER, "x", "good"))))
    client.ask(CLUSTER)
    client.settle()
    good = client.stream.accepted(CLUSTER, "x")
    client.stream.update(a_set(2, bad(CLUSTER, "x")))
    client.settle()
    assert client.held[CLUSTER] == {"x": b"good"}
    assert client.stream.accepted(CLUSTER, "x") == good


def test_mending_a_refused_resource_sends_it_and_ends_the_error():
    client = DeltaClient(DeltaStream(a_set(1, bad(CLUSTER, "x"))))
    client.ask(CLUSTER)
    client.settle()
    client.stream.update(a_set(2, a_resource(CLUSTER, "x", "mended")))
    client.settle()
    state = client.stream.types[CLUSTER]
    assert client.held[CLUSTER] == {"x": b"mended"}
    assert (state.state, state.last_error, state.refused) == ("SYNCED", "", {})


def test_going_back_to_the_last_good_version_is_sent():
    client = DeltaClient(DeltaStream(a_set(1, a_resource(CLUSTER, "x", "good"))))
    client.ask(CLUSTER)
    client.settle()
    client.stream.update(a_set(2, bad(CLUSTER, "x")))
    client.settle()
    client.stream.update(a_set(3, a_resource(CLUSTER, "x", "good")))
    client.settle()
    assert client.stream.types[CLUSTER].state == "SYNCED"


def test_a_refusal_is_of_one_stream_alone():
    current = a_set(1, a_resource(CLUSTER, "x"))
    refusing, other = DeltaStream(current), DeltaStream(current)
    for stream in (refusing, other):
        stream.request(DeltaRequest(CLUSTER))
    (response,) = deltas(refusing.take())
    ack(refusing, response, error="no")
    (seen,) = deltas(other.take())
    assert names(seen) == ["x"]
    assert other.types[CLUSTER].refused == {}


def test_refused_removals_are_counted_and_end_nothing():
    client = DeltaClient(DeltaStream(a_set(1, a_resource(CLUSTER, "x"))))
    client.ask(CLUSTER)
    client.settle()
    client.stream.update(a_set(2))
    (response,) = deltas(client.stream.take())
    ack(client.stream, response, error="cannot")
    assert client.stream.types[CLUSTER].rejects == 1
    assert client.stream.take() == []


def test_a_refusal_of_what_is_being_removed_says_nothing_more():
    client = DeltaClient(DeltaStream(a_set(1, a_resource(ROUTE, "r"))))
    client.ask(ROUTE, "r")
    client.settle()
    client.stream.update(a_set(2, bad(ROUTE, "r")))
    (changed,) = deltas(client.stream.take())
    client.stream.update(a_set(3))
    (removed,) = deltas(client.stream.take())
    ack(client.stream, changed, error="no")
    assert client.stream.take() == []
    ack(client.stream, removed)
    assert client.stream.take() == []
    assert client.stream.accepted(ROUTE, "r") == ""


def test_the_text_of_an_error_is_bounded():
    stream = DeltaStream(a_set(1, a_resource(CLUSTER, "x")))
    stream.request(DeltaRequest(CLUSTER))
    ack(stream, *deltas(stream.take()), error="e" * 100_000)
    assert len(stream.types[CLUSTER].last_error) == 2000


def test_an_answer_counts_once():
    stream = DeltaStream(a_set(1, a_resource(CLUSTER, "x")))
    stream.request(DeltaRequest(CLUSTER))
    (response,) = deltas(stream.take())
    ack(stream, response)
    ack(stream, response, error="late")
    assert stream.types[CLUSTER].last_error == ""
    assert stream.accepted(CLUSTER, "x")


def test_a_response_waits_for_its_answer():
    stream = DeltaStream(a_set(1, a_resource(CLUSTER, "x")))
    stream.request(DeltaRequest(CLUSTER))
    (response,) = deltas(stream.take())
    assert stream.types[CLUSTER].state == "STALE"
    assert stream.types[CLUSTER].sent_revision == 10
    assert stream.types[CLUSTER].acked_revision == 0
    ack(stream, response)
    assert stream.types[CLUSTER].state == "SYNCED"
    assert stream.types[CLUSTER].acked_revision == 10


def test_a_client_that_never_answers_is_sent_each_version_once():
    stream = DeltaStream(a_set(1, a_resource(ROUTE, "r", "1")))
    stream.request(DeltaRequest(ROUTE, subscribe=("r",)))
    sent = len(stream.take())
    for version in range(2, 50):
        stream.update(a_set(version, a_resource(ROUTE, "r", "2")))
        sent += len(stream.take())
    assert sent == 2


def test_a_client_that_never_answers_is_sent_only_so_much():
    stream = DeltaStream(a_set(1, a_resource(ROUTE, "r", "1")))
    stream.request(DeltaRequest(ROUTE, subscribe=("r",)))
    sent = stream.take()
    for version in range(2, 5 * MOST_PENDING):
        stream.update(a_set(version, a_resource(ROUTE, "r", str(version))))
        sent += stream.take()
    state = stream.types[ROUTE]
    assert len(sent) == len(state.pending) == MOST_PENDING
    assert state.state == "STALE"
    ack(stream, deltas(sent)[0])
    (response,) = deltas(stream.take())
    assert response.resources[0].resource.value == str(5 * MOST_PENDING - 1).encode()


def test_more_chunks_than_may_be_under_way_go_as_answers_come():
    client = DeltaClient(DeltaStream(a_set(1, *many(CLUSTER, (MOST_PENDING + 3) * NEW_CHUNK))))
    client.ask(CLUSTER)
    client.fetch()
    assert len(client.inbox) == MOST_PENDING
    client.settle()
    assert len(client.held[CLUSTER]) == (MOST_PENDING + 3) * NEW_CHUNK


def test_a_changed_cluster_brings_its_endpoints_along_so_that_envoy_need_not_wait_to_warm_it() -> (
    None
):
    stream = DeltaStream(
        a_set(1, a_resource(CLUSTER, "a"), a_resource(CLUSTER, "b"), a_resource(ENDPOINT, "a"))
    )
    client = DeltaClient(stream)
    client.ask(CLUSTER, "*")
    client.ask(ENDPOINT, "a", "b")
    client.settle()
    stream.update(
        a_set(2, a_resource(CLUSTER, "a", "2"), a_resource(CLUSTER, "b"), a_resource(ENDPOINT, "a"))
    )
    sent = deltas(stream.take())
    assert [(r.type_url, names(r)) for r in sent] == [(CLUSTER, ["a"]), (ENDPOINT, ["a"])]


def test_a_resource_that_goes_back_to_its_good_version_is_no_longer_refused() -> None:
    stream = DeltaStream(a_set(1, a_resource(CLUSTER, "a"), a_resource(CLUSTER, "b")))
    client = DeltaClient(stream)
    client.ask(CLUSTER, "*")
    client.settle()
    stream.update(a_set(2, a_resource(CLUSTER, "a"), Resource(CLUSTER, "b", BAD)))
    client.settle()
    assert stream.types[CLUSTER].state == "ERROR"
    stream.update(a_set(3, a_resource(CLUSTER, "a", "2"), a_resource(CLUSTER, "b")))
    client.settle()
    assert stream.types[CLUSTER].state == "SYNCED"
