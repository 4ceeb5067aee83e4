"""What is remembered of Envoy, what a new Pilot is told of it, and what a new Envoy is answered without any Pilot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.agent.xds_proxy.cache import Cache
from services.agent.xds_proxy.last_good import Owner, State, decode, encode
from services.agent.xds_proxy.session import UNKNOWN_VERSION, Session
from services.agent.xds_proxy.wire import read_request
from windward.xds.resource import (
    CLUSTER,
    ENDPOINT,
    LISTENER,
    NAME_TABLE,
    ROUTE,
    Resource,
    ResourceSet,
)
from windward.xds.stream import DeltaRequest, DeltaStream

Request = discovery_pb2.DeltaDiscoveryRequest
Response = discovery_pb2.DeltaDiscoveryResponse


class Between:
    """A session, spoken to in protobuf; ``down`` and ``up`` collect what it says."""

    def __init__(self, cache: Cache | None = None, *, names: Any = None) -> None:
        self.cache = cache if cache is not None else Cache()
        self.session = Session(self.cache, names)
        self.down: list[Any] = []
        self.up: list[Any] = []
        self.reopen = False

    def take(self, turn: Any) -> None:
        self.down += [Response.FromString(raw) for raw in turn.down]
        self.up += [Request.FromString(raw) for raw in turn.up]
        self.reopen |= turn.reopen

    def envoy(self, type_url: str, *names: str, **more: Any) -> None:
        message = Request(type_url=type_url, resource_names_subscribe=names, **more)
        self.take(self.session.from_envoy(read_request(message.SerializeToString())))

    def ack(self, error: str = "") -> None:
        """Envoy's answer to the oldest response that it has not answered."""
        response = self.down.pop(0)
        more: dict[str, Any] = {"error_detail": {"message": error}} if error else {}
        self.envoy(response.type_url, response_nonce=response.nonce, **more)

    def pilot(
        self, type_url: str, nonce: str, removed: Iterable[str] = (), **versions: str
    ) -> None:
        self.take(self.session.from_pilot(pushed(type_url, nonce, removed, versions)))

    def opened(self) -> dict[str, Any]:
        made = [Request.FromString(raw) for raw in self.session.open_upstream()]
        assert len({request.type_url for request in made}) == len(made)
        return {request.type_url: request for request in made}


def pushed(
    type_url: str, nonce: str, removed: Iterable[str] = (), versions: Mapping[str, str] = {}
) -> bytes:
    response = Response(type_url=type_url, nonce=nonce, removed_resources=removed)
    for name, version in versions.items():
        added = response.resources.add(name=name, version=version)
        added.resource.type_url = type_url
        added.resource.value = f"{name}@{version}".encode()
    return response.SerializeToString()


def given_to_envoy(responses: Iterable[Any]) -> dict[str, str]:
    return {item.name: item.version for response in responses for item in response.resources}


def accepted(type_url: str, **versions: str) -> Cache:
    """A cache of what an earlier Envoy has accepted."""
    before = Between()
    before.envoy(type_url, *(() if type_url in {CLUSTER, LISTENER} else versions))
    before.opened()
    before.pilot(type_url, "n", **versions)
    before.ack()
    return before.cache


# ---- passing on -----------------------------------------------------------------------------------------------------


def test_requests_and_answers_pass_under_pilots_own_nonces():
    between = Between()
    between.envoy(CLUSTER, node={"id": "sidecar~1"})
    assert between.up == []
    between.opened()
    between.envoy(ENDPOINT, "a", "b")
    assert list(between.up.pop().resource_names_subscribe) == ["a", "b"]
    between.pilot(CLUSTER, "n1", x="1")
    between.pilot(CLUSTER, "n2", y="1")
    assert given_to_envoy(between.down) == {"x": "1", "y": "1"}
    between.ack()
    between.ack("no")
    good, bad = between.up
    assert (good.response_nonce, good.HasField("error_detail")) == ("n1", False)
    assert (bad.response_nonce, bad.error_detail.message) == ("n2", "no")
    assert between.cache.of(CLUSTER).resources.keys() == {"x"}


def test_resources_pass_unopened():
    """Fields that this agent has never heard of arrive at Envoy."""
    between = Between()
    between.envoy(CLUSTER)
    between.opened()
    response = Response(type_url=CLUSTER, nonce="n1")
    response.control_plane.identifier = "pilot-7"
    item = response.resources.add(name="x", version="1", aliases=["y"])
    item.ttl.seconds = 5
    between.take(between.session.from_pilot(response.SerializeToString()))
    (passed,) = between.down
    assert passed.resources[0] == item
    assert passed.control_plane.identifier == "pilot-7"


def test_an_answer_to_nothing_goes_nowhere():
    between = Between()
    between.envoy(CLUSTER)
    between.opened()
    between.envoy(CLUSTER, response_nonce="another")
    assert between.up == []


def test_a_response_of_a_type_that_nobody_asked_for_is_dropped():
    between = Between()
    between.envoy(CLUSTER)
    between.opened()
    between.pilot(ROUTE, "n1", r="1")
    assert (between.down, between.up) == ([], [])


# ---- a new Pilot ----------------------------------------------------------------------------------------------------


def test_a_new_pilot_is_told_what_envoy_wants_and_has():
    between = Between()
    between.envoy(CLUSTER, node={"id": "sidecar~1", "cluster": "reviews.shop"})
    between.opened()
    between.envoy(ENDPOINT, "b", "a")
    between.pilot(CLUSTER, "n1", x="1", y="1")
    between.ack()
    between.pilot(ENDPOINT, "n2", a="7")
    between.ack()
    first, second = between.opened().values()
    assert (first.node.id, first.node.cluster) == ("sidecar~1", "reviews.shop")
    assert not second.HasField("node")
    assert (first.type_url, list(first.resource_names_subscribe)) == (CLUSTER, [])
    assert dict(first.initial_resource_versions) == {"x": "1", "y": "1"}
    assert (second.type_url, list(second.resource_names_subscribe)) == (ENDPOINT, ["a", "b"])
    assert dict(second.initial_resource_versions) == {"a": "7"}
    assert not first.response_nonce
    assert not second.response_nonce


def test_only_what_envoy_accepted_counts_as_had():
    between = Between()
    between.envoy(CLUSTER)
    between.opened()
    for nonce, version, error in (("n1", "1", ""), ("n2", "2", "bad")):
        between.pilot(CLUSTER, nonce, a=version)
        between.ack(error)
    between.pilot(CLUSTER, "n3", b="1")
    assert dict(between.opened()[CLUSTER].initial_resource_versions) == {"a": "1"}


def test_what_was_removed_is_not_had():
    between = Between(accepted(CLUSTER, a="1", b="1"))
    between.envoy(CLUSTER)
    between.ack()
    between.opened()
    between.pilot(CLUSTER, "n2", removed=["a"])
    between.ack()
    assert dict(between.opened()[CLUSTER].initial_resource_versions) == {"b": "1"}


def test_what_is_no_longer_wanted_is_forgotten():
    between = Between()
    between.envoy(ENDPOINT, "a", "b")
    between.opened()
    between.pilot(ENDPOINT, "n1", a="1", b="1")
    between.ack()
    between.envoy(ENDPOINT, resource_names_unsubscribe=["a"])
    made = between.opened()[ENDPOINT]
    assert list(made.resource_names_subscribe) == ["b"]
    assert dict(made.initial_resource_versions) == {"b": "1"}
    assert between.cache.of(ENDPOINT).resources.keys() == {"b"}


def test_what_arrives_after_it_is_no_longer_wanted_is_not_held():
    between = Between()
    between.envoy(ENDPOINT, "a", "b")
    between.opened()
    between.pilot(ENDPOINT, "n1", a="1", b="1")
    between.envoy(ENDPOINT, resource_names_unsubscribe=["a"])
    between.ack()
    assert between.cache.of(ENDPOINT).resources.keys() == {"b"}


def test_a_late_answer_to_the_pilot_that_is_gone_counts_and_goes_nowhere():
    """Nonces of two Pilots may be equal: the answer to the first must not count as one to the second."""
    between = Between()
    between.envoy(CLUSTER)
    between.opened()
    between.pilot(CLUSTER, "n1", a="1")
    between.pilot(CLUSTER, "n2", b="1")
    between.opened()
    between.pilot(CLUSTER, "n1", c="1")
    between.ack()
    between.ack("bad")
    assert between.up == []
    assert between.cache.of(CLUSTER).resources.keys() == {"a"}
    between.ack()
    assert [request.response_nonce for request in between.up] == ["n1"]


def test_a_late_answer_that_also_subscribes_keeps_the_subscription_alone():
    between = Between()
    between.envoy(ENDPOINT, "a")
    between.opened()
    between.pilot(ENDPOINT, "old", a="1")
    between.opened()
    nonce = between.down.pop().nonce
    between.envoy(ENDPOINT, "b", response_nonce=nonce, error_detail={"message": "bad"})
    (made,) = between.up
    assert list(made.resource_names_subscribe) == ["b"]
    assert not made.response_nonce
    assert not made.HasField("error_detail")
    assert list(between.opened()[ENDPOINT].resource_names_subscribe) == ["a", "b"]


def test_all_and_a_name_beside_stays_both():
    between = Between()
    between.envoy(LISTENER, "*", "extra")
    assert list(between.opened()[LISTENER].resource_names_subscribe) == ["*", "extra"]


def test_naming_something_ends_an_unnamed_wildcard():
    between = Between()
    between.envoy(LISTENER)
    between.envoy(LISTENER, "one")
    assert list(between.opened()[LISTENER].resource_names_subscribe) == ["one"]


def test_without_a_pilot_requests_are_remembered_and_not_passed():
    between = Between()
    between.envoy(CLUSTER)
    between.opened()
    between.session.lose_upstream()
    between.envoy(ENDPOINT, "a")
    assert between.up == []
    assert list(between.opened()[ENDPOINT].resource_names_subscribe) == ["a"]


def test_how_far_pilot_is_is_remembered():
    between = Between()
    between.envoy(CLUSTER)
    between.opened()
    for revision in ("7.7", "12.9", ""):
        response = Response(type_url=CLUSTER, nonce=f"n{revision}", system_version_info=revision)
        between.take(between.session.from_pilot(response.SerializeToString()))
    assert between.cache.revision == "12.9"


# ---- a new Envoy ----------------------------------------------------------------------------------------------------


def test_a_new_envoy_is_answered_from_the_cache_before_any_pilot_is_there():
    between = Between(accepted(CLUSTER, x="1", y="2"))
    between.envoy(CLUSTER, node={"id": "sidecar~1"})
    (response,) = between.down
    assert given_to_envoy([response]) == {"x": "1", "y": "2"}
    assert [item.resource.value for item in response.resources] == [b"x@1", b"y@2"]
    between.ack()
    assert dict(between.opened()[CLUSTER].initial_resource_versions) == {"x": "1", "y": "2"}


def test_a_new_envoy_is_told_at_once_that_there_is_nothing_if_that_is_known():
    between = Between(accepted(LISTENER))
    between.envoy(LISTENER)
    (response,) = between.down
    assert (list(response.resources), list(response.removed_resources)) == ([], [])
    unknown = Between()
    unknown.envoy(LISTENER)
    assert unknown.down == []


def test_an_envoy_that_kept_its_state_is_given_what_differs():
    between = Between(accepted(CLUSTER, x="1", y="2"))
    between.envoy(CLUSTER, initial_resource_versions={"x": "1", "y": "1", "gone": "1"})
    (response,) = between.down
    assert given_to_envoy([response]) == {"y": "2"}
    assert list(response.removed_resources) == ["gone"]
    same = Between(accepted(CLUSTER, x="1"))
    same.envoy(CLUSTER, initial_resource_versions={"x": "1"})
    assert same.down == []


def test_what_envoy_has_and_nobody_knows_is_asked_for_again_or_removed():
    """An agent without a cache and an Envoy with a state: Pilot is told of every name, under no version that it has."""
    between = Between()
    between.envoy(CLUSTER, initial_resource_versions={"old": "9"})
    versions = dict(between.opened()[CLUSTER].initial_resource_versions)
    assert versions == {"old": UNKNOWN_VERSION}
    between.pilot(CLUSTER, "n1", removed=["old"])
    between.ack()
    assert dict(between.opened()[CLUSTER].initial_resource_versions) == {}


def test_named_resources_come_from_the_cache_as_far_as_it_holds_them():
    between = Between(accepted(ENDPOINT, a="1", b="2"))
    between.opened()
    between.envoy(ENDPOINT, "a", "new")
    assert given_to_envoy(between.down) == {"a": "1"}
    (up,) = between.up
    assert list(up.resource_names_subscribe) == ["a", "new"]
    assert dict(up.initial_resource_versions) == {"a": "1"}


def test_a_name_that_does_not_exist_is_said_to_be_missing_again():
    before = Between()
    before.envoy(ENDPOINT, "a", "gone")
    before.opened()
    before.pilot(ENDPOINT, "n1", removed=["gone"], a="1")
    before.ack()
    between = Between(before.cache)
    between.envoy(ENDPOINT, "a", "gone")
    (response,) = between.down
    assert list(response.removed_resources) == ["gone"]
    between.ack()
    between.opened()
    between.pilot(ENDPOINT, "n2", gone="1")
    between.ack()
    assert between.cache.of(ENDPOINT).missing == set()


def test_what_is_asked_for_again_is_answered_by_pilot_or_without_one_from_the_cache():
    between = Between(accepted(ENDPOINT, a="1"))
    between.opened()
    between.envoy(ENDPOINT, "a")
    between.ack()
    between.up.clear()
    between.envoy(ENDPOINT, "a")
    assert between.down == []
    assert list(between.up[0].resource_names_subscribe) == ["a"]
    between.session.lose_upstream()
    between.envoy(ENDPOINT, "a")
    assert given_to_envoy(between.down) == {"a": "1"}


def test_what_is_given_again_is_never_older_than_what_was_given():
    between = Between(accepted(ENDPOINT, a="1"))
    between.envoy(ENDPOINT, "a")
    between.ack()
    between.opened()
    between.pilot(ENDPOINT, "n1", a="2")
    between.down.clear()
    between.session.lose_upstream()
    between.envoy(ENDPOINT, "a")
    assert given_to_envoy(between.down) == {"a": "2"}


def test_a_refused_answer_from_the_cache_is_given_again_one_by_one_and_only_the_bad_one_is_dropped():
    between = Between(accepted(CLUSTER, a="1", b="1", c="1"))
    between.envoy(CLUSTER)
    between.opened()
    between.ack("b is bad")
    assert [given_to_envoy([r]) for r in between.down] == [{"a": "1"}, {"b": "1"}, {"c": "1"}]
    between.ack()
    before = between.reopen
    between.ack("bad")
    assert (before, between.reopen) == (False, True)
    between.ack()
    assert between.cache.of(CLUSTER).resources.keys() == {"a", "c"}
    assert between.up == []
    assert dict(between.opened()[CLUSTER].initial_resource_versions) == {"a": "1", "c": "1"}


def test_what_an_earlier_envoy_wanted_and_this_one_does_not_is_pruned():
    between = Between(accepted(ENDPOINT, a="1", b="1"))
    between.envoy(ENDPOINT, "b")
    between.ack()
    assert between.cache.of(ENDPOINT).resources.keys() == {"a", "b"}
    between.session.prune()
    assert between.cache.of(ENDPOINT).resources.keys() == {"b"}


def test_pruning_leaves_what_is_wanted_whatever_its_name_and_what_was_not_asked_for_yet():
    between = Between(accepted(CLUSTER, a="1"))
    between.session.prune()
    between.envoy(CLUSTER)
    between.ack()
    between.session.prune()
    assert between.cache.of(CLUSTER).resources.keys() == {"a"}


def test_changes_are_counted_and_repetitions_are_not():
    between = Between()
    between.envoy(CLUSTER)
    between.opened()
    between.pilot(CLUSTER, "n1", a="1")
    between.ack()
    changes = between.cache.changes
    assert changes
    between.pilot(CLUSTER, "n2", a="1")
    between.ack()
    assert between.cache.changes == changes
    between.pilot(CLUSTER, "n3", removed=["a"])
    between.ack()
    assert between.cache.changes == changes + 1


# ---- name tables ----------------------------------------------------------------------------------------------------


class Names:
    def __init__(self) -> None:
        self.table: dict[str, bytes] = {}

    def __call__(self, upserts: Mapping[str, bytes], removed: Iterable[str]) -> None:
        if b"bad" in upserts.values():
            raise ValueError("not a name table")
        self.table.update(upserts)
        for name in removed:
            self.table.pop(name, None)


def test_name_tables_are_asked_for_taken_and_accepted_without_envoy():
    names = Names()
    between = Between(names=names)
    between.envoy(CLUSTER, node={"id": "sidecar~1"})
    asked = list(between.opened().values())
    assert [request.type_url for request in asked] == [CLUSTER, NAME_TABLE]
    assert list(asked[1].resource_names_subscribe) == ["*"]
    between.pilot(NAME_TABLE, "n1", **{"reviews.shop": "1", "ratings.shop": "1"})
    between.pilot(NAME_TABLE, "n2", removed=["ratings.shop"])
    assert names.table == {"reviews.shop": b"reviews.shop@1"}
    assert [(r.type_url, r.response_nonce) for r in between.up] == [
        (NAME_TABLE, "n1"),
        (NAME_TABLE, "n2"),
    ]
    assert between.down == []
    again = between.opened()[NAME_TABLE]
    assert dict(again.initial_resource_versions) == {"reviews.shop": "1"}


def test_names_that_cannot_be_read_are_refused():
    between = Between(names=Names())
    between.envoy(CLUSTER)
    between.opened()
    response = Response(type_url=NAME_TABLE, nonce="n1")
    response.resources.add(name="a", version="1").resource.value = b"bad"
    between.take(between.session.from_pilot(response.SerializeToString()))
    (answer,) = between.up
    assert (answer.response_nonce, answer.error_detail.message) == ("n1", "not a name table")
    assert dict(between.opened()[NAME_TABLE].initial_resource_versions) == {}


def test_without_anyone_to_take_them_names_are_not_asked_for():
    between = Between()
    between.envoy(CLUSTER)
    assert NAME_TABLE not in between.opened()


def test_envoy_is_not_given_names():
    between = Between(names=Names())
    between.envoy(NAME_TABLE, "*")
    assert list(between.opened()) == [NAME_TABLE]


# ---- laws -----------------------------------------------------------------------------------------------------------

bodies = st.dictionaries(st.sampled_from("abcdef"), st.binary(max_size=3), max_size=6)


class Envoy:
    """Accepts what it is sent, and keeps it."""

    def __init__(self) -> None:
        self.has: dict[str, bytes] = {}

    def take(self, between: Between) -> set[str]:
        touched: set[str] = set()
        while between.down:
            response = between.down[0]
            for item in response.resources:
                self.has[item.name] = item.resource.value
                touched.add(item.name)
            for name in response.removed_resources:
                self.has.pop(name, None)
                touched.add(name)
            between.ack()
        return touched


def exchange(between: Between, stream: DeltaStream, envoy: Envoy, first: Iterable[Any]) -> set[str]:
    """Pass everything between Envoy and a Pilot's stream until nobody has anything to say; what Envoy was sent."""
    waiting, touched = list(first), envoy.take(between)
    while waiting:
        for request in waiting:
            stream.request(
                DeltaRequest(
                    request.type_url,
                    request.response_nonce,
                    subscribe=tuple(request.resource_names_subscribe),
                    initial_versions=dict(request.initial_resource_versions),
                )
            )
        between.up.clear()
        for raw in stream.take():
            between.take(between.session.from_pilot(raw))
        touched |= envoy.take(between)
        waiting = list(between.up)
    return touched


def resources(version: int, of: dict[str, bytes]) -> ResourceSet:
    made = {name: Resource(CLUSTER, name, body) for name, body in of.items()}
    return ResourceSet.of(version, version, {CLUSTER: made})


@given(bodies, bodies)
def test_after_a_change_of_pilot_only_differences_are_sent(before, after):
    between, envoy = Between(), Envoy()
    between.envoy(CLUSTER)
    exchange(between, DeltaStream(resources(1, before)), envoy, between.opened().values())
    assert envoy.has == before
    opened = between.opened().values()
    touched = exchange(between, DeltaStream(resources(1, after)), envoy, opened)
    assert envoy.has == after
    assert touched == {name for name in before | after if before.get(name) != after.get(name)}


@given(bodies, bodies, bodies)
def test_whatever_envoy_and_pilot_had_they_agree_in_the_end(cached, kept, now):
    """An Envoy with any state, over a cache of any other, at a Pilot with a third."""
    before = Between()
    before.envoy(CLUSTER)
    exchange(before, DeltaStream(resources(1, cached)), Envoy(), before.opened().values())
    between, envoy = Between(before.cache), Envoy()
    envoy.has = dict(kept)
    versions = {name: Resource(CLUSTER, name, body).version for name, body in kept.items()}
    between.envoy(CLUSTER, initial_resource_versions=versions)
    envoy.take(between)
    assert envoy.has == cached
    opened = between.opened().values()
    touched = exchange(between, DeltaStream(resources(1, now)), envoy, opened)
    assert envoy.has == now
    assert touched == {name for name in cached | now if cached.get(name) != now.get(name)}


OWNER = Owner("spiffe://cluster.local/ns/shop/sa/reviews", "sidecar~1")
EVENTS = ("pilot is replaced", "envoy restarts", "envoy reconnects", "agent restarts")


@given(st.lists(st.tuples(st.sampled_from(EVENTS), bodies), max_size=8))
def test_through_any_history_envoy_has_what_pilot_wants_and_is_sent_what_differs(history):
    """After each event, and a change at the same moment: Envoy, cache and Pilot agree, and only differences moved."""
    between, envoy, now = Between(), Envoy(), dict[str, bytes]()
    between.envoy(CLUSTER)
    exchange(between, DeltaStream(resources(1, now)), envoy, between.opened().values())
    for event, after in history:
        had = dict(envoy.has)
        between.session.lose_upstream()
        if event != "pilot is replaced":
            cache = between.cache
            if event == "agent restarts":
                raw = encode(State(cache.frozen(), cache.revision, 0.0), OWNER)
                cache = Cache(decode(raw, OWNER).types)
            between, versions = Between(cache), {}
            if event == "envoy reconnects":
                versions = {n: Resource(CLUSTER, n, body).version for n, body in had.items()}
            else:
                envoy.has.clear()
            between.envoy(CLUSTER, initial_resource_versions=versions)
            given_again = envoy.take(between)
            assert given_again == (set() if event == "envoy reconnects" else had.keys())
            assert envoy.has == had
        opened = between.opened().values()
        touched = exchange(between, DeltaStream(resources(1, after)), envoy, opened)
        assert touched == {name for name in had | after if had.get(name) != after.get(name)}
        assert envoy.has == after
        held = between.cache.of(CLUSTER).resources
        assert held.keys() == after.keys()
