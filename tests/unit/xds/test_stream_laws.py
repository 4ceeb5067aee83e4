"""Laws of streams under random histories: with answers that lag, names that come and go, refusals, and reconnects."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.xds.meshes import BAD, DeltaClient, SotwClient, a_set, deltas
from windward.xds.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE, Resource, ResourceSet
from windward.xds.stream import DeltaRequest, DeltaStream, SotwStream

NAMES = "abcdefgh"
TYPES = (CLUSTER, ENDPOINT, LISTENER, ROUTE)
WHOLE = (CLUSTER, LISTENER)

MESHES = st.fixed_dictionaries(
    {url: st.dictionaries(st.sampled_from(NAMES), st.integers(0, 3), max_size=6) for url in TYPES}
)
LAGGING = st.lists(
    st.one_of(
        st.tuples(st.just("change"), MESHES),
        st.tuples(st.just("send"), st.none()),
        st.tuples(st.just("answer"), st.none()),
        st.tuples(st.just("ask"), st.sampled_from(NAMES)),
        st.tuples(st.just("drop"), st.sampled_from(NAMES)),
    ),
    max_size=40,
)
SOUND = st.sets(st.sampled_from(NAMES), max_size=3)


def numbered(version: int, mesh: dict[str, dict[str, int]]) -> ResourceSet:
    """A set of a mesh drawn as type -> name -> number: an unchanged number is an unchanged body."""
    return a_set(
        version,
        *(
            Resource(url, name, f"{name}={body}".encode())
            for url, members in mesh.items()
            for name, body in members.items()
        ),
    )


def apart(mesh: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """No name in two types: a changed cluster may ask for its endpoints again."""
    return {
        url: {f"{url.rpartition('.')[2]}-{name}": body for name, body in members.items()}
        for url, members in mesh.items()
    }


def expected(current: ResourceSet, url: str, names: set[str] | None) -> dict[str, bytes]:
    return {
        name: resource.body
        for name, resource in current.by_type.get(url, {}).items()
        if names is None or name in names
    }


@settings(max_examples=300, deadline=None)
@given(LAGGING)
def test_a_delta_client_that_lags_and_changes_its_mind_ends_with_what_it_asked_for(history):
    current = a_set(1)
    client = DeltaClient(DeltaStream(current))
    client.ask(CLUSTER)
    client.ask(LISTENER)
    names: set[str] = set()
    for version, (what, value) in enumerate(history, 2):
        match what:
            case "change":
                current = numbered(version, value)
                client.stream.update(current)
            case "send":
                client.fetch()
            case "answer" if client.inbox:
                client.answer_one()
            case "ask" if value not in names:
                names.add(value)
                client.ask(ROUTE, value)
                client.ask(ENDPOINT, value)
            case "drop" if value in names and not client.inbox:
                names.discard(value)
                client.drop(ROUTE, value)
                client.drop(ENDPOINT, value)
    client.settle()
    for url in TYPES:
        wanted = None if url in WHOLE else names
        held = client.held.get(url, {})
        assert held == expected(current, url, wanted)
    assert all(state.state == "SYNCED" for state in client.stream.types.values())
    assert all(not state.pending for state in client.stream.types.values())


@settings(max_examples=200, deadline=None)
@given(LAGGING)
def test_a_sotw_client_that_lags_and_changes_its_mind_has_the_newest_of_what_it_asked_for(history):
    current = a_set(1)
    client = SotwClient(SotwStream(current), WHOLE)
    for url in TYPES:
        client.ask(url)
    names: set[str] = set()
    for version, (what, value) in enumerate(history, 2):
        match what:
            case "change":
                current = numbered(version, value)
                client.stream.update(current)
            case "send":
                client.fetch()
            case "answer" if client.inbox:
                client.answer_one()
            case "ask" | "drop" if not client.inbox:
                names = names | {value} if what == "ask" else names - {value}
                client.ask(ROUTE, *sorted(names))
                client.ask(ENDPOINT, *sorted(names))
    client.settle()
    for url in WHOLE:
        held = {name.decode(): body for name, body in client.held[url].items()}
        assert held == expected(current, url, None)
    for url in (ENDPOINT, ROUTE):
        held = {name.decode(): body for name, body in client.held[url].items()}
        assert expected(current, url, names).items() <= held.items()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(MESHES, SOUND), min_size=1, max_size=10))
def test_refusals_hold_back_exactly_what_is_refused(history):
    """Some clusters of each set are bad: the client ends with the others as they are, and those as they last were good."""
    client = DeltaClient(DeltaStream(a_set(1)))
    client.ask(CLUSTER)
    client.settle()
    last_good: dict[str, bytes] = {}
    for version, (mesh, bad) in enumerate(history, 2):
        current = a_set(
            version,
            *(
                Resource(CLUSTER, name, BAD if name in bad else f"{name}={body}".encode())
                for name, body in mesh[CLUSTER].items()
            ),
        )
        client.stream.update(current)
        client.settle()
        present = current.by_type.get(CLUSTER, {})
        last_good = {name: body for name, body in last_good.items() if name in present}
        last_good |= {name: item.body for name, item in present.items() if item.body != BAD}
        assert client.held[CLUSTER] == last_good
        refused = client.stream.types[CLUSTER].refused
        assert {
            name
            for name, item in present.items()
            if name in refused and refused[name].version == item.version
        } == {name for name, item in present.items() if item.body == BAD}


@settings(max_examples=200, deadline=None)
@given(MESHES, MESHES)
def test_a_reconnect_sends_the_difference_and_nothing_else(before, after):
    held, current = numbered(1, apart(before)), numbered(2, apart(after))
    stream = DeltaStream(current)
    for url in TYPES:
        versions = {name: item.version for name, item in held.by_type.get(url, {}).items()}
        stream.request(DeltaRequest(url, subscribe=("*",), initial_versions=versions))
    seen: dict[str, tuple[set[str], set[str]]] = {url: (set(), set()) for url in TYPES}
    while responses := deltas(stream.take()):
        for response in responses:
            seen[response.type_url][0].update(item.name for item in response.resources)
            seen[response.type_url][1].update(response.removed_resources)
            stream.request(DeltaRequest(response.type_url, nonce=response.nonce))
    for url in TYPES:
        old, new = expected(held, url, None), expected(current, url, None)
        assert seen[url][0] == {name for name, body in new.items() if old.get(name) != body}
        assert seen[url][1] == old.keys() - new.keys()


@settings(max_examples=200, deadline=None)
@given(st.lists(MESHES, min_size=1, max_size=6), st.integers(0, 10**6))
def test_a_proxy_never_sees_an_older_version_after_a_newer_one(history, seed):
    """Bodies hold the number of their set: what arrives for a name only rises, however late the answers come."""
    client = DeltaClient(DeltaStream(a_set(1)))
    for url in TYPES:
        client.ask(url, "*")
    newest: dict[tuple[str, str], int] = {}
    for version, mesh in enumerate(history, 2):
        client.stream.update(
            a_set(
                version,
                *(
                    Resource(url, name, f"{version:04}".encode())
                    for url, members in mesh.items()
                    for name in members
                ),
            )
        )
        before = len(client.inbox)
        client.fetch()
        for response in client.inbox[before:]:
            for item in response.resources:
                key = (response.type_url, item.name)
                assert int(item.resource.value) >= newest.get(key, 0)
                newest[key] = int(item.resource.value)
        for _ in range((seed >> version) % 4):
            if client.inbox:
                client.answer_one()
    client.settle()


REFERENCES = st.lists(
    st.tuples(
        st.sets(st.sampled_from(NAMES), min_size=1, max_size=4),
        st.dictionaries(st.sampled_from("rst"), st.integers(0, 10), max_size=3),
        st.integers(0, 4),
    ),
    min_size=1,
    max_size=10,
)


def referring(version: int, clusters: set[str], routes: dict[str, int]) -> ResourceSet:
    """Every route is to one of the clusters of its own set."""
    there = sorted(clusters)
    return a_set(
        version,
        *(Resource(CLUSTER, name, f"{name}=1".encode()) for name in there),
        *(
            Resource(ROUTE, name, f"{name}={there[to % len(there)]}".encode())
            for name, to in routes.items()
        ),
    )


@settings(max_examples=300, deadline=None)
@given(REFERENCES)
def test_a_delta_client_never_has_a_route_to_a_cluster_that_it_lacks(history):
    client = DeltaClient(DeltaStream(a_set(1)))
    client.ask(CLUSTER)
    client.ask(ROUTE, *"rst")

    def answer(times: int) -> None:
        client.fetch()
        for _ in range(times):
            if client.inbox:
                client.answer_one()
                routes = client.held[ROUTE].values()
                assert {body.partition(b"=")[2].decode() for body in routes} <= set(
                    client.held[CLUSTER]
                )
                client.fetch()

    for version, (clusters, routes, answers) in enumerate(history, 2):
        client.stream.update(referring(version, clusters, routes))
        answer(answers)
    answer(100)


@settings(max_examples=300, deadline=None)
@given(REFERENCES)
def test_a_sotw_client_never_has_a_route_of_now_to_a_cluster_that_it_lacks(history):
    """Routes that are gone stay with a state-of-the-world client: they are its listeners' to drop."""
    client = SotwClient(SotwStream(a_set(1)), WHOLE)
    client.ask(CLUSTER)
    client.ask(ROUTE, *"rst")
    present: set[str] = set()

    def answer(times: int) -> None:
        client.fetch()
        for _ in range(times):
            if client.inbox:
                client.answer_one()
                held = {name.decode(): body for name, body in client.held[ROUTE].items()}
                clusters = {name.decode() for name in client.held[CLUSTER]}
                for name in held.keys() & present:
                    assert held[name].partition(b"=")[2].decode() in clusters
                client.fetch()

    for version, (clusters, routes, answers) in enumerate(history, 2):
        present = set(routes) & present if version > 2 else set(routes)
        client.stream.update(referring(version, clusters, routes))
        answer(answers)
    answer(100)
