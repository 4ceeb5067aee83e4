from __future__ import annotations

from services.pilot.snapshot import Delta
from services.pilot.state import MeshState
from tests.unit.pilot.mesh import REVIEWS, change, make, port, service_entry, snap, workload

RATINGS = "ratings.shop.svc.cluster.local"
STRICT = make("PeerAuthentication", "default", {"mtls": {"mode": "STRICT"}})


def test_a_version_more_for_a_difference_and_the_stores_revision():
    state = MeshState()
    change(state, service_entry(), revision=7)
    assert (state.snapshot.version, state.snapshot.revision) == (1, 7)
    change(state, service_entry("ratings"), revision=9)
    assert (state.snapshot.version, state.snapshot.revision) == (2, 9)


def test_what_comes_again_unchanged_is_no_difference():
    state = MeshState()
    objects = [
        service_entry(),
        STRICT,
        make(
            "VirtualService",
            "r",
            {"hosts": ["reviews"], "tcp": [{"route": [{"destination": {"host": "reviews"}}]}]},
        ),
    ]
    change(state, *objects, workloads=[workload()])
    before = state.snapshot
    assert not change(state, *objects, workloads=[workload()], revision=5)
    assert (state.snapshot.version, state.snapshot.revision) == (before.version, 5)


def test_what_came_again_unchanged_can_be_removed():
    state = MeshState()
    rule = make("DestinationRule", "r", {"host": "reviews"})
    change(state, service_entry(), rule)
    change(state, make("DestinationRule", "r", {"host": "reviews"}))
    assert change(state, removed=[rule.key]).rules == {REVIEWS}
    assert state.snapshot.rules.candidates(REVIEWS) == ()


def test_what_did_not_change_is_the_same_object():
    state = MeshState()
    change(state, service_entry(), service_entry("ratings"), STRICT, workloads=[workload()])
    before = state.snapshot
    delta = change(state, workloads=[workload(address="127.7.0.77")])
    after = state.snapshot
    assert after.services == before.services
    assert after.peer_authentications is before.peer_authentications
    assert after.endpoints[RATINGS] is before.endpoints[RATINGS]
    assert [item.address for item in after.endpoints[REVIEWS]] == ["127.7.0.77"]
    assert delta == Delta(
        endpoints=frozenset({REVIEWS}),
        addresses=frozenset({("shop", "127.7.0.2"), ("shop", "127.7.0.77")}),
    )


def test_a_snapshot_is_left_as_it_was():
    state = MeshState()
    change(state, service_entry(), workloads=[workload()])
    before = state.snapshot
    held = dict(before.endpoints), dict(before.services), dict(before.hosts_at)
    change(state, removed=[service_entry().key], gone=[("shop", "reviews-v1")])
    assert (before.endpoints, before.services, before.hosts_at) == held
    after = state.snapshot
    assert not after.services
    assert not after.endpoints
    assert not after.hosts_at


def test_the_objects_in_force_are_those_of_the_snapshot_also_while_others_are_applied():
    state = MeshState()
    good = make("DestinationRule", "r", {"host": "reviews"})
    bad = make("DestinationRule", "r", {"host": "details"})
    gone, came, stays = service_entry(), service_entry("ratings"), STRICT
    change(state, gone, good, stays)
    change(state, bad)
    steps = 0
    for _ in state.applying({gone.key: None, came.key: came}, {}, 2, {bad.key: bad}):
        assert state.in_force() == {item.key: item for item in (gone, bad, stays)}
        steps += 1
    assert steps > 3
    assert state.in_force() == {item.key: item for item in (came, good, stays)}


def test_of_one_host_the_oldest_service_stands():
    older = service_entry(born=1, ports=[port(1)])
    newer = make(
        "ServiceEntry",
        "again",
        {
            "hosts": [REVIEWS],
            "resolution": "STATIC",
            "location": "MESH_INTERNAL",
            "ports": [port(2)],
            "endpoints": [{"address": "10.0.0.1"}],
        },
        born=2,
    )
    for objects in ([older, newer], [newer, older]):
        made = snap(*objects, workloads=[workload()])
        assert [item.number for item in made.services[REVIEWS].ports] == [1]
        assert [item.address for item in made.endpoints[REVIEWS]] == ["127.7.0.2"]
    state = MeshState()
    change(state, older, newer)
    delta = change(state, removed=[older.key])
    assert [item.number for item in state.snapshot.services[REVIEWS].ports] == [2]
    assert delta.services == delta.endpoints == {REVIEWS}


def test_a_workload_that_says_so_is_unhealthy_but_there():
    made = snap(service_entry(), workloads=[workload(unhealthy=True)])
    assert [item.healthy for item in made.endpoints[REVIEWS]] == [False]


def test_a_rule_touches_the_services_that_it_is_about():
    state = MeshState()
    change(state, service_entry(), service_entry("ratings"))
    rule = make("DestinationRule", "r", {"host": "reviews"})
    assert change(state, rule) == Delta(rules=frozenset({REVIEWS}))
    wide = make("DestinationRule", "w", {"host": "*.shop.svc.cluster.local"})
    assert change(state, wide).rules == {REVIEWS, RATINGS}
    moved = make("DestinationRule", "r", {"host": "ratings"})
    assert change(state, moved).rules == {REVIEWS, RATINGS}


def test_rules_of_a_host_are_oldest_first():
    rules = [
        make("DestinationRule", name, {"host": "reviews", "exportTo": ["."]}, born=born)
        for name, born in (("c", 2), ("a", 3), ("b", 1))
    ]
    found = snap(service_entry(), *rules).rules.candidates(REVIEWS)
    assert [item.key.name for item in found] == ["b", "c", "a"]


def test_a_sidecar_may_move_proxies_to_another_scope():
    state = MeshState()
    item = make("Sidecar", "default", {"egress": [{"hosts": ["./*"]}]})
    assert change(state, item) == Delta(scopes=True)
    assert state.snapshot.sidecars.applies_to("shop", {}) is item


def test_workloads_are_found_by_where_they_are():
    state = MeshState()
    change(state, service_entry(), workloads=[workload()])
    found = state.snapshot.endpoint_at(("shop", "127.7.0.2"))
    assert found is not None
    assert found.workload == "reviews-v1"
    assert state.snapshot.endpoint_at(("other", "127.7.0.2")) is None


def test_a_selector_takes_workloads_of_its_own_namespace_only():
    found = [workload(), workload("ratings-v1", "127.7.0.3"), workload(namespace="evil")]
    for objects, workloads in ((service_entry(), []), (service_entry(), found)):
        state = MeshState()
        change(state, objects, workloads=workloads)
        change(state, workloads=found)
        assert [item.workload for item in state.snapshot.endpoints[REVIEWS]] == ["reviews-v1"]


def test_a_service_that_resolves_nothing_selects_nobody():
    entry = service_entry(workloadSelector=None, resolution="NONE", location="MESH_EXTERNAL")
    assert snap(entry, workloads=[workload()]).endpoints[REVIEWS] == ()


def test_a_selector_that_changes_takes_others():
    state = MeshState()
    change(state, service_entry(), workloads=[workload(), workload("ratings-v1", "127.7.0.3")])
    delta = change(state, service_entry(workloadSelector={"labels": {"app": "ratings"}}))
    assert [item.workload for item in state.snapshot.endpoints[REVIEWS]] == ["ratings-v1"]
    assert delta.endpoints == delta.services == {REVIEWS}


def _route(timeout: str):
    http = [{"route": [{"destination": {"host": "reviews"}}], "timeout": timeout}]
    return make("VirtualService", "r", {"hosts": ["reviews"], "http": http})


def _in_force(state: MeshState):
    return [item.spec.http[0].timeout for item in state.snapshot.routes.candidates(REVIEWS)]


def test_of_a_refused_virtual_service_the_one_before_stays_in_force():
    state = MeshState()
    bad = _route("2s")
    change(state, service_entry(), _route("1s"))
    change(state, bad)
    assert state.apply({}, {}, 3, {bad.key: bad}) == Delta(routes=frozenset({REVIEWS}))
    assert _in_force(state) == [1.0]
    assert not change(state, _route("2s"))
    assert not state.apply({}, {}, 3, {bad.key: bad})
    assert change(state, _route("3s")).routes == {REVIEWS}
    assert _in_force(state) == [3.0]
    change(state, removed=[bad.key])
    assert _in_force(state) == []


def test_a_refused_virtual_service_without_one_before_is_not_there():
    state = MeshState()
    bad = _route("2s")
    change(state, service_entry(), bad)
    state.apply({}, {}, 3, {bad.key: bad})
    assert _in_force(state) == []
    change(state, removed=[bad.key])
    assert not change(state, removed=[bad.key])


def test_a_refused_virtual_service_is_tried_again_when_its_service_changes():
    state = MeshState()
    bad = _route("2s")
    change(state, service_entry(), _route("1s"))
    change(state, bad)
    state.apply({}, {}, 3, {bad.key: bad})
    assert change(state, service_entry(ports=[port(9999)])).routes == {REVIEWS}
    assert _in_force(state) == [2.0]
    state.apply({}, {}, 4, {bad.key: bad})
    assert _in_force(state) == [1.0]


def test_what_has_changed_meanwhile_is_not_taken_back():
    state = MeshState()
    bad = _route("2s")
    change(state, service_entry(), bad)
    change(state, _route("3s"))
    assert not state.apply({}, {}, 3, {bad.key: bad})
    assert _in_force(state) == [3.0]
