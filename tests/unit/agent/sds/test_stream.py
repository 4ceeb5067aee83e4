"""What a stream of secrets sends: what was asked for, once, and again when it is another."""

from __future__ import annotations

from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.agent.sds.secret import Secret, roots_secret
from services.agent.sds.stream import DeltaSecrets, SotwSecrets
from services.agent.xds_proxy.wire import Request, SotwRequest, status
from windward.xds.resource import SECRET


def secrets(**contents: str) -> dict[str, Secret]:
    return {name: roots_secret(name, text.encode()) for name, text in contents.items()}


ONE = secrets(a="1", b="1")


def delta(stream: DeltaSecrets, now: dict[str, Secret]) -> tuple[list[str], list[str]]:
    """(names sent, names said to be missing)."""
    responses = [discovery_pb2.DeltaDiscoveryResponse.FromString(raw) for raw in stream.take(now)]
    assert stream.take(now) == []
    return (
        [item.name for response in responses for item in response.resources],
        [name for response in responses for name in response.removed_resources],
    )


def ask(*names: str, **more) -> Request:
    return Request(SECRET, subscribe=names, **more)


def test_delta_sends_what_is_asked_for_and_then_what_changes():
    stream = DeltaSecrets()
    assert delta(stream, ONE) == ([], [])
    stream.request(ask("b"))
    assert delta(stream, ONE) == (["b"], [])
    stream.request(ask("a"))
    assert delta(stream, ONE) == (["a"], [])
    assert delta(stream, secrets(a="1", b="2")) == (["b"], [])


def test_delta_says_once_what_is_missing_and_sends_it_when_it_comes():
    stream = DeltaSecrets()
    stream.request(ask("a", "c"))
    assert delta(stream, ONE) == (["a"], ["c"])
    assert delta(stream, secrets(a="1", c="1")) == (["c"], [])


def test_delta_leaves_what_has_gone_where_it_is():
    stream = DeltaSecrets()
    stream.request(ask("a"))
    assert delta(stream, ONE) == (["a"], [])
    assert delta(stream, {}) == ([], [])


def test_delta_sends_again_what_is_asked_for_again_and_nothing_that_is_no_longer_wanted():
    stream = DeltaSecrets()
    stream.request(ask("a", "b"))
    delta(stream, ONE)
    stream.request(ask("a"))
    assert delta(stream, ONE) == (["a"], [])
    stream.request(Request(SECRET, unsubscribe=("b",)))
    assert delta(stream, secrets(a="1", b="2")) == ([], [])


def test_delta_resumes_by_versions():
    stream = DeltaSecrets()
    stream.request(ask("a", "b", initial_versions={"a": ONE["a"].version, "b": "old"}))
    assert delta(stream, ONE) == (["b"], [])


def test_delta_does_not_send_again_what_was_refused_until_it_is_another():
    stream = DeltaSecrets()
    stream.request(ask("a"))
    delta(stream, ONE)
    stream.request(Request(SECRET, nonce="1", error=status("no")))
    assert delta(stream, ONE) == ([], [])
    assert delta(stream, secrets(a="2")) == (["a"], [])


def world(stream: SotwSecrets, now: dict[str, Secret]) -> list[str] | None:
    responses = stream.take(now)
    assert stream.take(now) == []
    if not responses:
        return None
    (raw,) = responses
    response = discovery_pb2.DiscoveryResponse.FromString(raw)
    assert response.type_url == SECRET
    names = sorted(stream.wanted & now.keys())
    assert [item.SerializeToString() for item in response.resources] == [now[n].any for n in names]
    stream.request(SotwRequest(SECRET, tuple(stream.wanted), response.nonce, response.version_info))
    return names


def test_the_world_is_all_that_is_wanted_and_there():
    stream = SotwSecrets()
    stream.request(SotwRequest(SECRET, ("a", "b", "c")))
    assert world(stream, ONE) == ["a", "b"]
    assert world(stream, ONE) is None
    assert world(stream, secrets(a="1", b="2")) == ["a", "b"]
    assert world(stream, secrets(a="1", b="2", c="1")) == ["a", "b", "c"]


def test_the_world_waits_for_what_is_not_there_yet():
    stream = SotwSecrets()
    stream.request(SotwRequest(SECRET, ("c",)))
    assert world(stream, ONE) is None
    assert world(stream, secrets(c="1")) == ["c"]


def test_the_world_grows_and_shrinks_with_what_is_named():
    stream = SotwSecrets()
    stream.request(SotwRequest(SECRET, ("a",)))
    world(stream, ONE)
    stream.request(SotwRequest(SECRET, ("a", "b"), "1"))
    assert world(stream, ONE) == ["a", "b"]
    stream.request(SotwRequest(SECRET, ("b",), "2"))
    assert world(stream, ONE) is None
    assert world(stream, secrets(a="2", b="1")) is None


def test_an_answer_to_an_overtaken_response_changes_nothing():
    stream = SotwSecrets()
    stream.request(SotwRequest(SECRET, ("a",)))
    stream.take(ONE)
    stream.take(secrets(a="2"))
    stream.request(SotwRequest(SECRET, ("a", "b"), "1"))
    assert stream.wanted == {"a"}


names = st.sets(st.sampled_from("abc"))
worlds = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["1", "2"]), max_size=3)


@given(st.lists(st.tuples(names, worlds), max_size=6))
def test_both_kinds_give_a_client_the_same(steps):
    """Whatever is wanted and there when, each client has the newest of it in the end."""
    incremental, whole = DeltaSecrets(), SotwSecrets()
    by_delta: dict[str, bytes] = {}
    by_world: dict[str, bytes] = {}
    nonce = ""
    for wanted, contents in steps:
        now = secrets(**contents)
        dropped = tuple(incremental.wanted - wanted)
        incremental.request(Request(SECRET, tuple(wanted - incremental.wanted), dropped, nonce="0"))
        whole.request(SotwRequest(SECRET, tuple(wanted), nonce))
        for raw in incremental.take(now):
            for item in discovery_pb2.DeltaDiscoveryResponse.FromString(raw).resources:
                by_delta[item.name] = item.resource.SerializeToString()
        for raw in whole.take(now):
            response = discovery_pb2.DiscoveryResponse.FromString(raw)
            nonce = response.nonce
            for sent in response.resources:
                by_world[now_name(now, sent.SerializeToString())] = sent.SerializeToString()
        for name in wanted & now.keys():
            assert by_delta[name] == by_world[name] == now[name].any


def now_name(now: dict[str, Secret], raw: bytes) -> str:
    return next(name for name, item in now.items() if item.any == raw)
