from __future__ import annotations

from tests.unit.pilot.mesh import REVIEWS, make, port, service_entry, snap, workload

RATINGS = "ratings.shop.svc.cluster.local"


def test_a_version_more_and_the_stores_revision():
    first = snap(revision=7)
    second = snap(before=first, revision=9)
    assert (first.version, first.revision) == (1, 7)
    assert (second.version, second.revision) == (2, 9)


def test_what_did_not_change_is_the_same_object():
    policy = make("PeerAuthentication", "default", {"mtls": {"mode": "STRICT"}})
    objects = [service_entry(), service_entry("ratings"), policy]
    before = snap(*objects, workloads=[workload()])
    moved = workload(address="127.7.0.77")
    after = snap(*objects, workloads=[moved], before=before)
    assert after.services is before.services
    assert after.peer_authentications is before.peer_authentications
    assert after.endpoints[RATINGS] is before.endpoints[RATINGS]
    assert after.endpoints[REVIEWS] is not before.endpoints[REVIEWS]
    assert [item.address for item in after.endpoints[REVIEWS]] == ["127.7.0.77"]


def test_a_snapshot_is_left_as_it_was():
    before = snap(service_entry(), workloads=[workload()])
    held = dict(before.endpoints)
    snap(before=before)
    assert before.endpoints == held


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


def test_a_workload_that_says_so_is_unhealthy_but_there():
    made = snap(service_entry(), workloads=[workload(unhealthy=True)])
    assert [item.healthy for item in made.endpoints[REVIEWS]] == [False]


def test_objects_are_oldest_first():
    rules = [
        make("DestinationRule", name, {"host": name, "exportTo": ["."]}, born=born)
        for name, born in (("c", 2), ("a", 3), ("b", 1))
    ]
    assert [item.key.name for item in snap(*rules).destination_rules] == ["b", "c", "a"]
