"""What is remembered of a delta stream, and what a new Pilot is told of it."""

from __future__ import annotations

from typing import Any

from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.agent.xds_proxy.session import DeltaSession
from windward.xds.resource import CLUSTER, ENDPOINT, LISTENER, Resource, ResourceSet
from windward.xds.stream import DeltaRequest, DeltaStream

Request = discovery_pb2.DeltaDiscoveryRequest
Response = discovery_pb2.DeltaDiscoveryResponse


def asked(type_url: str, *names: str, **more: Any) -> bytes:
    return Request(type_url=type_url, resource_names_subscribe=names, **more).SerializeToString()


def answer(type_url: str, nonce: str, error: str = "") -> bytes:
    request = Request(type_url=type_url, response_nonce=nonce)
    if error:
        request.error_detail.message = error
    return request.SerializeToString()


def pushed(type_url: str, nonce: str, removed: tuple[str, ...] = (), **versions: str) -> bytes:
    response = Response(type_url=type_url, nonce=nonce, removed_resources=removed)
    for name, version in versions.items():
        response.resources.add(name=name, version=version)
    return response.SerializeToString()


def reopened(session: DeltaSession) -> dict[str, Any]:
    made = [Request.FromString(raw) for raw in session.reopen()]
    assert len({request.type_url for request in made}) == len(made)
    return {request.type_url: request for request in made}


def test_requests_pass_as_they_are():
    session = DeltaSession()
    first = asked(CLUSTER, node={"id": "sidecar~1"})
    assert session.from_envoy(first) == first
    more = asked(ENDPOINT, "a", "b")
    assert session.from_envoy(more) == more


def test_an_answer_to_the_present_pilot_passes():
    session = DeltaSession()
    session.from_envoy(asked(CLUSTER))
    session.from_pilot(pushed(CLUSTER, "n1", a="1"))
    session.from_pilot(pushed(CLUSTER, "n2", b="1"))
    for raw in (answer(CLUSTER, "n1"), answer(CLUSTER, "n2", "no")):
        assert session.from_envoy(raw) == raw


def test_a_new_pilot_is_told_what_envoy_wants_and_has():
    session = DeltaSession()
    session.from_envoy(asked(CLUSTER, node={"id": "sidecar~1", "cluster": "reviews.shop"}))
    session.from_envoy(asked(ENDPOINT, "b", "a"))
    session.from_pilot(pushed(CLUSTER, "n1", x="1", y="1"))
    session.from_envoy(answer(CLUSTER, "n1"))
    session.from_pilot(pushed(ENDPOINT, "n2", a="7"))
    session.from_envoy(answer(ENDPOINT, "n2"))
    first, second = [Request.FromString(raw) for raw in session.reopen()]
    assert (first.node.id, first.node.cluster) == ("sidecar~1", "reviews.shop")
    assert not second.HasField("node")
    assert (first.type_url, list(first.resource_names_subscribe)) == (CLUSTER, [])
    assert dict(first.initial_resource_versions) == {"x": "1", "y": "1"}
    assert (second.type_url, list(second.resource_names_subscribe)) == (ENDPOINT, ["a", "b"])
    assert dict(second.initial_resource_versions) == {"a": "7"}
    assert not first.response_nonce
    assert not second.response_nonce


def test_only_what_envoy_accepted_counts_as_had():
    session = DeltaSession()
    session.from_envoy(asked(CLUSTER))
    session.from_pilot(pushed(CLUSTER, "n1", a="1"))
    session.from_envoy(answer(CLUSTER, "n1"))
    session.from_pilot(pushed(CLUSTER, "n2", a="2"))
    session.from_envoy(answer(CLUSTER, "n2", "bad"))
    session.from_pilot(pushed(CLUSTER, "n3", b="1"))
    assert dict(reopened(session)[CLUSTER].initial_resource_versions) == {"a": "1"}


def test_what_was_removed_is_not_had():
    session = DeltaSession()
    session.from_envoy(asked(CLUSTER))
    session.from_pilot(pushed(CLUSTER, "n1", a="1", b="1"))
    session.from_envoy(answer(CLUSTER, "n1"))
    session.from_pilot(pushed(CLUSTER, "n2", removed=("a",)))
    session.from_envoy(answer(CLUSTER, "n2"))
    assert dict(reopened(session)[CLUSTER].initial_resource_versions) == {"b": "1"}


def test_what_is_no_longer_wanted_is_forgotten():
    session = DeltaSession()
    session.from_envoy(asked(ENDPOINT, "a", "b"))
    session.from_pilot(pushed(ENDPOINT, "n1", a="1", b="1"))
    session.from_envoy(answer(ENDPOINT, "n1"))
    session.from_envoy(
        Request(type_url=ENDPOINT, resource_names_unsubscribe=["a"]).SerializeToString()
    )
    made = reopened(session)[ENDPOINT]
    assert list(made.resource_names_subscribe) == ["b"]
    assert dict(made.initial_resource_versions) == {"b": "1"}


def test_what_envoy_had_before_is_passed_on():
    session = DeltaSession()
    session.from_envoy(asked(CLUSTER, initial_resource_versions={"old": "9"}))
    assert dict(reopened(session)[CLUSTER].initial_resource_versions) == {"old": "9"}


def test_a_late_answer_to_the_pilot_that_is_gone_is_swallowed():
    session = DeltaSession()
    session.from_envoy(asked(CLUSTER))
    session.from_pilot(pushed(CLUSTER, "old", a="1"))
    session.reopen()
    assert session.from_envoy(answer(CLUSTER, "old")) is None
    assert session.from_envoy(answer(CLUSTER, "old", "bad")) is None
    session.from_pilot(pushed(CLUSTER, "new", a="1"))
    new = answer(CLUSTER, "new")
    assert session.from_envoy(new) == new


def test_a_late_answer_that_also_subscribes_keeps_the_subscription_alone():
    session = DeltaSession()
    session.from_envoy(asked(ENDPOINT, "a"))
    session.from_pilot(pushed(ENDPOINT, "old", a="1"))
    session.reopen()
    late = Request(type_url=ENDPOINT, response_nonce="old", resource_names_subscribe=["b"])
    late.error_detail.message = "bad"
    passed = session.from_envoy(late.SerializeToString())
    assert passed is not None
    made = Request.FromString(passed)
    assert list(made.resource_names_subscribe) == ["b"]
    assert not made.response_nonce
    assert not made.HasField("error_detail")
    assert list(reopened(session)[ENDPOINT].resource_names_subscribe) == ["a", "b"]


def test_all_and_a_name_beside_stays_both():
    session = DeltaSession()
    session.from_envoy(asked(LISTENER, "*", "extra"))
    assert list(reopened(session)[LISTENER].resource_names_subscribe) == ["*", "extra"]


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.binary(max_size=3), max_size=6),
    st.dictionaries(st.sampled_from("abcdef"), st.binary(max_size=3), max_size=6),
)
def test_after_a_change_of_pilot_only_differences_are_sent(before, after):
    """The law behind it: an up-to-date Envoy is sent nothing by another Pilot, a stale one what differs."""

    def resources(version: int, bodies: dict[str, bytes]) -> ResourceSet:
        made = {name: Resource(CLUSTER, name, body) for name, body in bodies.items()}
        return ResourceSet.of(version, version, {CLUSTER: made})

    session, envoy = DeltaSession(), {}

    def exchange(stream: DeltaStream, raw: bytes | None) -> set[str]:
        touched: set[str] = set()
        while raw is not None:
            request = Request.FromString(raw)
            stream.request(
                DeltaRequest(
                    CLUSTER,
                    request.response_nonce,
                    subscribe=tuple(request.resource_names_subscribe),
                    initial_versions=dict(request.initial_resource_versions),
                )
            )
            raw = None
            for pushed_raw in stream.take():
                session.from_pilot(pushed_raw)
                response = Response.FromString(pushed_raw)
                for item in response.resources:
                    envoy[item.name] = item.resource.value
                    touched.add(item.name)
                for name in response.removed_resources:
                    del envoy[name]
                    touched.add(name)
                raw = session.from_envoy(answer(CLUSTER, response.nonce))
        return touched

    exchange(DeltaStream(resources(1, before)), session.from_envoy(asked(CLUSTER)))
    assert envoy == before
    (again,) = session.reopen()
    touched = exchange(DeltaStream(resources(1, after)), again)
    assert envoy == after
    assert touched == {name for name in before | after if before.get(name) != after.get(name)}
