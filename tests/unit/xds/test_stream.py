"""Laws of ADS streams: both protocols bring a client to the same resources, in an order that breaks nothing."""

from __future__ import annotations

from random import Random

from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.xds.worlds import TYPES, DeltaChecked, a_world
from windward.xds.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE, Resource, ResourceSet
from windward.xds.stream import NEW_CHUNK, DeltaRequest, DeltaStream, SotwRequest, SotwStream


def mesh(version: int, **resources: dict[str, int]) -> ResourceSet:
    """``cluster={"a": 1}``: a resource of that name whose body is that number."""
    urls = dict(zip(("cluster", "endpoint", "listener", "route"), TYPES, strict=True))
    by_type = {
        urls[kind]: {
            name: Resource(urls[kind], name, f"{name}={body}".encode())
            for name, body in members.items()
        }
        for kind, members in resources.items()
    }
    return ResourceSet.of(version, version * 10, by_type)


class DeltaClient:
    """A client that ACKs everything but the bodies it is told to refuse."""

    def __init__(self, stream: DeltaStream, refuse: frozenset[bytes] = frozenset()) -> None:
        self.stream = stream
        self.refuse = refuse
        self.has: dict[str, dict[str, bytes]] = {url: {} for url in TYPES}
        self.received: list[discovery_pb2.DeltaDiscoveryResponse] = []

    def subscribe(self) -> None:
        for url in TYPES:
            names = () if url in {CLUSTER, LISTENER} else tuple("abcdefgh")
            self.stream.request(DeltaRequest(url, subscribe=names))

    def settle(self) -> None:
        for _ in range(50):
            responses = self.stream.take()
            if not responses:
                return
            for raw in responses:
                self.take_in(discovery_pb2.DeltaDiscoveryResponse.FromString(raw))
        raise AssertionError("the stream never settles")

    def take_in(self, response: discovery_pb2.DeltaDiscoveryResponse) -> None:
        self.received.append(response)
        bad = [item for item in response.resources if item.resource.value in self.refuse]
        if bad:
            self.stream.request(DeltaRequest(response.type_url, nonce=response.nonce, error="bad"))
            return
        for item in response.resources:
            self.has[response.type_url][item.name] = item.resource.value
        for name in response.removed_resources:
            self.has[response.type_url].pop(name, None)
        self.stream.request(DeltaRequest(response.type_url, nonce=response.nonce))


class SotwClient:
    def __init__(self, stream: SotwStream) -> None:
        self.stream = stream
        self.has: dict[str, dict[str, bytes]] = {url: {} for url in TYPES}
        self.names = {url: () if url in {CLUSTER, LISTENER} else tuple("abcdefgh") for url in TYPES}

    def subscribe(self) -> None:
        for url in TYPES:
            self.stream.request(SotwRequest(url, self.names[url]))

    def settle(self) -> None:
        for _ in range(50):
            responses = self.stream.take()
            if not responses:
                return
            for raw in responses:
                response = discovery_pb2.DiscoveryResponse.FromString(raw)
                bodies = {
                    bytes(item.value).split(b"=")[0].decode(): item.value
                    for item in response.resources
                }
                if response.type_url in {CLUSTER, LISTENER}:
                    self.has[response.type_url] = bodies
                else:
                    self.has[response.type_url].update(bodies)
                self.stream.request(
                    SotwRequest(response.type_url, self.names[response.type_url], response.nonce)
                )
        raise AssertionError("the stream never settles")


BODIES = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 3), max_size=6)


def snapshots(history) -> list[ResourceSet]:
    kinds = ("cluster", "endpoint", "listener", "route")
    return [
        mesh(number, **dict(zip(kinds, step, strict=True)))
        for number, step in enumerate(history, 1)
    ]


HISTORIES = st.lists(st.tuples(BODIES, BODIES, BODIES, BODIES), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(HISTORIES)
def test_a_delta_client_ends_with_exactly_what_it_should_have(history):
    sets = snapshots(history)
    client = DeltaClient(DeltaStream(sets[0]))
    client.subscribe()
    client.settle()
    for step in sets[1:]:
        client.stream.update(step)
        client.settle()
    for url in TYPES:
        assert client.has[url] == {name: item.body for name, item in sets[-1].by_type[url].items()}
    assert all(state.state == "SYNCED" for state in client.stream.types.values())


@settings(max_examples=200, deadline=None)
@given(HISTORIES)
def test_a_state_of_the_world_client_has_the_same(history):
    sets = snapshots(history)
    client = SotwClient(SotwStream(sets[0]))
    client.subscribe()
    client.settle()
    for step in sets[1:]:
        client.stream.update(step)
        client.settle()
    for url in (CLUSTER, LISTENER):
        assert client.has[url] == {name: item.body for name, item in sets[-1].by_type[url].items()}
    for url in (ENDPOINT, ROUTE):
        wanted = {name: item.body for name, item in sets[-1].by_type[url].items()}
        assert wanted.items() <= client.has[url].items()


def test_only_what_changed_is_sent():
    client = DeltaClient(DeltaStream(mesh(1, cluster={"a": 1, "b": 1}, endpoint={"a": 1, "b": 1})))
    client.subscribe()
    client.settle()
    client.received.clear()
    client.stream.update(mesh(2, cluster={"a": 1, "b": 1}, endpoint={"a": 1, "b": 2}))
    client.settle()
    assert [(r.type_url, [item.name for item in r.resources]) for r in client.received] == [
        (ENDPOINT, ["b"])
    ]


def test_a_reconnect_with_the_right_versions_is_sent_nothing():
    current = mesh(1, cluster={"a": 1, "b": 1})
    versions = {name: item.version for name, item in current.by_type[CLUSTER].items()}
    stream = DeltaStream(current)
    stream.request(DeltaRequest(CLUSTER, initial_versions=versions))
    assert stream.take() == []


def test_listeners_wait_until_every_cluster_chunk_is_acknowledged():
    many = {f"c{number:03}": 1 for number in range(NEW_CHUNK * 3)}
    stream = DeltaStream(mesh(1, cluster=many, listener={"a": 1, "b": 1}))
    for url in TYPES:
        stream.request(DeltaRequest(url))
    first = [discovery_pb2.DeltaDiscoveryResponse.FromString(raw) for raw in stream.take()]
    assert [len(item.resources) for item in first if item.type_url == CLUSTER] == [NEW_CHUNK] * 3
    assert not any(item.type_url == LISTENER for item in first)
    for item in [item for item in first if item.type_url == CLUSTER][:-1]:
        stream.request(DeltaRequest(CLUSTER, nonce=item.nonce))
        assert not stream.take()
    stream.request(DeltaRequest(CLUSTER, nonce=first[2].nonce))
    second = [discovery_pb2.DeltaDiscoveryResponse.FromString(raw) for raw in stream.take()]
    assert [(item.type_url, len(item.resources)) for item in second] == [(LISTENER, 2)]


def test_one_bad_resource_holds_back_no_good_one_and_is_named():
    bodies = {f"c{number:02}": 1 for number in range(40)}
    client = DeltaClient(DeltaStream(mesh(1, cluster=bodies)), refuse=frozenset({b"c07=2"}))
    client.subscribe()
    client.settle()
    client.stream.update(mesh(2, cluster=dict.fromkeys(bodies, 2)))
    client.settle()
    state = client.stream.types[CLUSTER]
    assert list(state.refused) == ["c07"]
    assert client.has[CLUSTER]["c07"] == b"c07=1"
    assert all(
        client.has[CLUSTER][name] == f"{name}=2".encode() for name in bodies if name != "c07"
    )
    assert state.state == "ERROR"
    client.stream.update(mesh(3, cluster=dict.fromkeys(bodies, 3)))
    client.settle()
    assert client.has[CLUSTER]["c07"] == b"c07=3"
    assert state.state == "SYNCED"


def test_a_removed_cluster_goes_after_the_routes_that_named_it():
    client = DeltaClient(
        DeltaStream(mesh(1, cluster={"a": 1, "b": 1}, listener={"a": 1}, route={"a": 1}))
    )
    client.subscribe()
    client.settle()
    client.received.clear()
    client.stream.update(mesh(2, cluster={"a": 1}, listener={"a": 1}, route={"a": 2}))
    client.settle()
    order = [(r.type_url, list(r.removed_resources)) for r in client.received]
    assert order == [(ROUTE, []), (CLUSTER, ["b"])]


def test_an_answer_with_an_unknown_nonce_changes_nothing():
    stream = DeltaStream(mesh(1, cluster={"a": 1}))
    stream.request(DeltaRequest(CLUSTER))
    stream.take()
    stream.request(DeltaRequest(CLUSTER, nonce="never-sent", error="no"))
    assert stream.types[CLUSTER].last_error == ""
    assert len(stream.types[CLUSTER].pending) == 1


def test_a_named_resource_that_does_not_exist_is_said_to_be_absent_once():
    stream = DeltaStream(mesh(1, endpoint={}))
    stream.request(DeltaRequest(ENDPOINT, subscribe=("ghost",)))
    responses = [discovery_pb2.DeltaDiscoveryResponse.FromString(raw) for raw in stream.take()]
    assert [list(item.removed_resources) for item in responses] == [["ghost"]]
    stream.request(DeltaRequest(ENDPOINT, nonce=responses[0].nonce))
    assert stream.take() == []
    stream.update(mesh(2, endpoint={"ghost": 1}))
    assert len(stream.take()) == 1


def test_a_cluster_that_a_changing_route_still_names_goes_only_after_the_route():
    before = mesh(1, cluster={"a": 1}, listener={"a": 1}, route={"a": 1})
    after = mesh(2, cluster={"b": 1}, listener={"a": 1}, route={"a": 2})
    client = DeltaClient(DeltaStream(before))
    client.subscribe()
    client.settle()
    client.received.clear()
    client.stream.update(after)
    client.settle()
    order = [
        (r.type_url, [item.name for item in r.resources], list(r.removed_resources))
        for r in client.received
    ]
    assert order == [(CLUSTER, ["b"], []), (ROUTE, ["a"], []), (CLUSTER, [], ["a"])]
    other = SotwClient(SotwStream(before))
    other.subscribe()
    other.settle()
    other.stream.update(after)
    first = discovery_pb2.DiscoveryResponse.FromString(other.stream.take()[0])
    assert len(first.resources) == 2
    other.stream.request(SotwRequest(CLUSTER, (), first.nonce))
    other.settle()
    assert other.has[CLUSTER] == {"b": b"b=1"}


def test_a_type_that_waits_for_its_turn_is_not_in_sync():
    stream = DeltaStream(mesh(1, cluster={"a": 1}, listener={"a": 1}))
    for url in TYPES:
        stream.request(DeltaRequest(url))
    stream.take()
    assert stream.types[LISTENER].state == "STALE"
    assert stream.types[LISTENER].acked_revision == 0


def test_what_a_refused_chunk_held_goes_again_as_it_is_now():
    stream = DeltaStream(mesh(1, cluster={"a": 1, "b": 1}))
    stream.request(DeltaRequest(CLUSTER))
    (first,) = [discovery_pb2.DeltaDiscoveryResponse.FromString(raw) for raw in stream.take()]
    stream.update(mesh(2, cluster={"a": 2, "b": 1}))
    stream.take()
    stream.request(DeltaRequest(CLUSTER, nonce=first.nonce, error="bad"))
    again = [discovery_pb2.DeltaDiscoveryResponse.FromString(raw) for raw in stream.take()]
    assert [[item.resource.value for item in r.resources] for r in again] == [[b"b=1"]]


def test_a_refused_resource_that_is_removed_is_no_error_any_more():
    client = DeltaClient(DeltaStream(mesh(1, cluster={"a": 1, "b": 1})), refuse=frozenset({b"b=1"}))
    client.subscribe()
    client.settle()
    assert client.stream.types[CLUSTER].state == "ERROR"
    client.stream.update(mesh(2, cluster={"a": 1}))
    client.settle()
    assert client.stream.types[CLUSTER].state == "SYNCED"


def test_a_wildcard_that_is_taken_back_and_asked_for_again_is_answered_again():
    stream = DeltaStream(mesh(1, cluster={"a": 1}))
    stream.request(DeltaRequest(CLUSTER, subscribe=("*",)))
    stream.take()
    stream.request(DeltaRequest(CLUSTER, unsubscribe=("*",)))
    assert stream.take() == []
    stream.request(DeltaRequest(CLUSTER, subscribe=("*",)))
    assert len(stream.take()) == 1


@given(st.integers(0, 2**32))
def test_what_a_client_has_is_counted(seed):
    """Also of what is gone and not taken away yet, what it refused, and what it named."""
    random = Random(seed)
    world = a_world(random, 1, None)
    client = DeltaChecked(world)
    for version in range(2, 8):
        client.fetch(random.randint(0, 3))
        client.answer()
        world = a_world(random, version, world, 0.2)
        client.stream.update(world)
    client.settle()
    assert {url: client.stream.count(url) for url in TYPES} == {
        url: len(client.held[url]) for url in TYPES
    }
