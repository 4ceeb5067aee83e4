"""Laws of streams over long histories of closed meshes: updates, slow answers, refusals and reconnects, in any order."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.xds.worlds import (
    TYPES,
    WHOLE,
    DeltaChecked,
    SotwChecked,
    a_world,
    is_bad,
)
from windward.xds.knowledge import ABSENT, TypeState, version_of
from windward.xds.resource import ENDPOINT, ROUTE, Resource, ResourceSet

SEEDS = st.integers(0, 2**32)
STEPS = 500


def bodies(current: ResourceSet, url: str) -> dict[str, bytes]:
    return {name: item.body for name, item in current.by_type.get(url, {}).items()}


def live(
    client: DeltaChecked | SotwChecked, random: Random, steps: int, bad: float = 0.15
) -> ResourceSet:
    """A history of a client. Returns the newest set; the client has not settled."""
    current = client.stream.current
    for version in range(current.version + 1, current.version + 1 + steps):
        match random.random():
            case what if what < 0.35:
                current = a_world(random, version, current, bad, told=random.random() < 0.8)
                client.stream.update(current)
            case what if what < 0.6:
                client.fetch(random.randint(1, 3))
            case what if what < 0.97:
                client.answer()
            case _:
                client.connect(current)
    return current


def known(client: DeltaChecked | SotwChecked, current: ResourceSet) -> None:
    """What the stream says that the client accepted is what the client holds; after it has settled."""
    for url in TYPES:
        for name, body in client.held[url].items():
            accepted = client.stream.accepted(url, name)
            # State of the world: who refused all since it came again keeps what it had, as long as something is withheld.
            if accepted != ABSENT or (url in WHOLE and isinstance(client, DeltaChecked)):
                assert accepted == Resource(url, name, body).version
        for name, item in current.by_type.get(url, {}).items():
            if client.stream.accepted(url, name) == item.version:
                assert client.held[url][name] == item.body


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_delta_clients_never_see_a_reference_to_what_they_lack(seed):
    """Checked by the client with every response that it takes over."""
    random = Random(seed)
    client = DeltaChecked(a_world(random, 1, None))
    for _ in range(4):
        current = live(client, random, STEPS // 4)
        client.settle()
        known(client, current)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_a_delta_client_ends_with_every_good_resource_and_with_no_bad_one(seed):
    random = Random(seed)
    client = DeltaChecked(a_world(random, 1, None))
    live(client, random, STEPS)
    client.settle()
    assert not any(is_bad(body) for url in TYPES for body in client.held[url].values())
    sound = a_world(random, 10_000, client.stream.current)
    client.stream.update(sound)
    client.settle()
    left = {url: bodies(sound, url) for url in TYPES}
    bad = {url: {n for n, body in named.items() if is_bad(body)} for url, named in left.items()}
    if not any(bad.values()):
        assert client.held == left
        assert all(state.state == "SYNCED" for state in client.stream.types.values())


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_a_state_of_the_world_client_ends_with_what_a_delta_client_has(seed):
    random = Random(seed)
    first = a_world(random, 1, None)
    sotw, delta = SotwChecked(first), DeltaChecked(first)
    live(sotw, random, STEPS)
    sotw.settle()
    known(sotw, sotw.stream.current)
    last = a_world(random, 10_000, None)
    for client in (sotw, delta):
        client.stream.update(last)
        client.settle()
    for url in WHOLE:
        assert sotw.held[url] == delta.held[url] == bodies(last, url)
    for url in (ENDPOINT, ROUTE):
        assert delta.held[url] == bodies(last, url)
        assert bodies(last, url).items() <= sotw.held[url].items()


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_bisection_finds_exactly_the_bad_ones(seed):
    random = Random(seed)
    client = SotwChecked(a_world(random, 1, None))
    client.settle()
    current = a_world(random, 2, client.stream.current, bad=0.2)
    client.stream.update(current)
    client.settle()
    for url in TYPES:
        bad = {name for name, body in bodies(current, url).items() if is_bad(body)}
        state = client.stream.types[url]
        assert state.refused.keys() <= bad
        withheld = bad | state.overlay.keys()
        good = {name: body for name, body in bodies(current, url).items() if name not in withheld}
        assert good.items() <= client.held[url].items()
        for name in state.overlay:
            now = current.get(url, name)
            assert now is None or name in bad or now.refers, (
                "only what refers to it is held with it"
            )


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_one_clients_refusals_change_nothing_for_another(seed):
    """The same sets, the same memo of bodies: what an easy client is sent does not depend on a picky one beside it."""
    worlds_random, alone_random, beside_random = Random(seed), Random(seed), Random(seed)
    sets = [a_world(worlds_random, 1, None)]
    for version in range(2, 40):
        sets.append(a_world(worlds_random, version, sets[-1], 0.2))

    def transcript(random: Random, *, beside: bool) -> list[bytes]:
        easy = DeltaChecked(sets[0], picky=False)
        picky = DeltaChecked(sets[0])
        for current in sets[1:]:
            if beside:
                picky.stream.update(current)
                picky.settle()
            easy.stream.update(current)
            easy.fetch(random.randint(0, 4))
            for _ in range(random.randint(0, 4)):
                easy.answer()
        return easy.transcript

    assert transcript(alone_random, beside=False) == transcript(beside_random, beside=True)


@pytest.mark.parametrize("kind", [DeltaChecked, SotwChecked])
@settings(max_examples=12, deadline=None)
@given(SEEDS)
def test_the_overlay_says_what_the_client_has(kind, seed):
    """TypeState's invariant: set + overlay is what was sent last, and at rest every name of it has a reason to stay."""
    random = Random(seed)
    client = kind(a_world(random, 1, None))
    current = live(client, random, STEPS // 2)
    client.settle()
    for url in TYPES:
        state: TypeState = client.stream.types[url]
        assert not state.todo
        for name in state.again:
            # Gone, but still referred to: should it come back before it is removed, its cluster waits for it.
            assert current.get(url, name) is None
            assert name in state.overlay
        for name, have in state.overlay.items():
            now = current.get(url, name)
            assert now is None or version_of(have) != now.version
        for name in client.held[url].keys() - state.overlay.keys():
            now = current.get(url, name)
            if now is not None:
                assert client.held[url][name] == now.body
