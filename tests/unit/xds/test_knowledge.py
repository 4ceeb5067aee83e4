"""Long lists of names in steps: what comes of it is what came of it at once."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.xds.meshes import a_resource, a_set, deltas
from windward.slices import at_once
from windward.xds import knowledge
from windward.xds.delta import MOST_REMOVED
from windward.xds.knowledge import BLOCK, RUN, backwards, blocks
from windward.xds.resource import CLUSTER, ENDPOINT, WILDCARD_TYPES
from windward.xds.stream import DeltaRequest, DeltaStream, SotwRequest, SotwStream

NAMES = st.sampled_from(["*", "a", "b", "c", "gone", "never"])
LISTS = st.lists(NAMES, max_size=8).map(tuple)


@given(st.sets(st.text(max_size=3)), st.integers(1, 4))
def test_sorted_backwards(names, run):
    with patch.object(knowledge, "RUN", run), patch.object(knowledge, "BLOCK", run):
        assert at_once(backwards(names)) == sorted(names, reverse=True)


def test_sorting_goes_in_steps():
    names = {f"name-{number}" for number in range(4 * RUN)}
    assert sum(1 for _ in backwards(names)) > 4


@given(st.lists(st.integers(0, 9)), st.integers(1, 4))
def test_blocks_are_the_whole(names, block):
    with patch.object(knowledge, "BLOCK", block):
        parts = list(blocks(list(map(str, names))))
    assert [name for part in parts for name in part] == list(map(str, names))
    assert all(len(part) <= block for part in parts)


def told(history, block, stream, of):
    """Every response to a history of requests."""
    with patch.object(knowledge, "BLOCK", block), patch.object(knowledge, "RUN", block):
        found = []
        for url, brought, acks, *names in history:
            stream.request(of(url, brought, *names))
            responses = stream.take()
            found += responses
            if acks:
                for state in stream.types.values():
                    for nonce in list(state.pending):
                        stream.request(of(state.type_url, {}, (), (), nonce=nonce))
        return found


def delta(url, brought, subscribe, unsubscribe, nonce=""):
    return DeltaRequest(url, nonce, "", subscribe, unsubscribe, brought)


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([CLUSTER, ENDPOINT]),
            st.dictionaries(NAMES, st.sampled_from(["old", "", "now"])),
            st.booleans(),
            LISTS,
            LISTS,
        ),
        max_size=6,
    )
)
def test_a_delta_request_in_steps_is_answered_as_one_at_once(history):
    mesh = a_set(1, *(a_resource(url, name) for url in (CLUSTER, ENDPOINT) for name in "abc"))
    whole = told(history, 100, DeltaStream(mesh), delta)
    assert told(history, 1, DeltaStream(mesh), delta) == whole
    assert told(history, 2, DeltaStream(mesh), delta) == whole


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.sampled_from([CLUSTER, ENDPOINT]), st.none(), st.booleans(), LISTS),
        max_size=6,
    )
)
def test_so_is_one_of_the_state_of_the_world(history):
    mesh = a_set(1, *(a_resource(url, name) for url in (CLUSTER, ENDPOINT) for name in "abc"))

    def of(url, _, names, __=(), nonce=""):
        return SotwRequest(url, names, nonce)

    whole = told(history, 100, SotwStream(mesh), of)
    assert told(history, 1, SotwStream(mesh), of) == whole


def test_many_names_are_taken_in_in_steps():
    """And what comes of them fits in responses of which each is short to make."""
    names = tuple(f"name-{number}" for number in range(20 * BLOCK))
    mesh = a_set(1, a_resource(ENDPOINT, "name-0"))
    delta_steps = DeltaStream(mesh).taking(DeltaRequest(ENDPOINT, subscribe=names))
    sotw_steps = SotwStream(mesh).taking(SotwRequest(ENDPOINT, names))
    for steps in (delta_steps, sotw_steps):
        assert len(list(steps)) >= 20
    gone = DeltaStream(mesh)
    gone.request(DeltaRequest(CLUSTER, initial_versions=dict.fromkeys(names, "old")))
    gone.update(mesh, {})
    assert gone.types[CLUSTER].todo == [], "what only goes need not be looked at one by one"
    told = [response.removed_resources for response in deltas(gone.take())]
    assert sorted(name for some in told for name in some) == sorted(names)
    assert all(len(some) <= MOST_REMOVED for some in told)


def test_a_client_that_has_what_there_is_leaves_nothing_to_look_at():
    there = [a_resource(CLUSTER, f"c{number}") for number in range(3 * BLOCK)]
    stream = DeltaStream(a_set(1, *there))
    stream.request(
        DeltaRequest(CLUSTER, initial_versions={item.name: item.version for item in there})
    )
    state = stream.types[CLUSTER]
    assert not state.overlay
    assert not state.todo
    assert CLUSTER in WILDCARD_TYPES
    assert stream.take() == []
