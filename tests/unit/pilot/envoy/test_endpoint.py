from __future__ import annotations

from envoy.config.core.v3 import health_check_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.pilot.envoy.endpoint import load_assignment, spliced_assignment
from services.pilot.model.service import Endpoint, Port, Protocol
from services.pilot.registry.mesh import endpoint_of_workload
from tests.unit.pilot.mesh import REVIEWS, assignment, generate, make, service_entry, sidecar, snap
from tests.unit.pilot.mesh import workload as registered

NAME = f"outbound|9080||{REVIEWS}"
PORT = Port(9080, "http", Protocol.HTTP, 9090)


def endpoint(name="reviews-v1", address="10.0.0.1", *, healthy=True, **changes):
    return endpoint_of_workload(registered(name, address, **changes), healthy=healthy)


def test_an_endpoint_is_where_its_port_name_says_or_at_the_target_port():
    named = endpoint(ports={"http": 8080})
    other = endpoint(address="10.0.0.2")
    (place,) = load_assignment("c", PORT, [named, other]).endpoints
    assert [
        (
            item.endpoint.address.socket_address.address,
            item.endpoint.address.socket_address.port_value,
        )
        for item in place.lb_endpoints
    ] == [("10.0.0.1", 8080), ("10.0.0.2", 9090)]


def test_health_weight_and_mtls():
    (place,) = load_assignment("c", PORT, [endpoint(healthy=False, weight=7)]).endpoints
    (made,) = place.lb_endpoints
    assert made.health_status == health_check_pb2.UNHEALTHY
    assert made.load_balancing_weight.value == 7
    fields = made.metadata.filter_metadata["envoy.transport_socket_match"].fields
    assert fields["tlsMode"].string_value == "istio"


def test_localities_are_groups_weighted_by_their_members():
    members = [
        endpoint(address="10.0.0.3", locality="eu/b", weight=2),
        endpoint(address="10.0.0.2", locality="eu/a/1"),
        endpoint(address="10.0.0.1", locality="eu/a/1", weight=4),
    ]
    first, second = load_assignment("c", PORT, members).endpoints
    assert (first.locality.region, first.locality.zone, first.locality.sub_zone) == ("eu", "a", "1")
    assert first.load_balancing_weight.value == 5
    assert (second.locality.zone, second.locality.sub_zone) == ("b", "")
    assert second.load_balancing_weight.value == 2


def test_the_order_they_came_in_does_not_matter():
    members = [
        endpoint(f"reviews-v{number}", f"10.0.0.{number}", locality=f"r{number % 2}")
        for number in range(5)
    ]
    one = load_assignment("c", PORT, members).SerializeToString(deterministic=True)
    other = load_assignment("c", PORT, reversed(members)).SerializeToString(deterministic=True)
    assert one == other


def test_nobody_behind_a_service_is_an_empty_assignment():
    made = assignment(generate(snap(service_entry()), sidecar()), NAME)
    assert made.cluster_name == NAME
    assert not made.endpoints


def test_subsets_hold_the_workloads_that_their_labels_name():
    rule = make(
        "DestinationRule",
        "reviews",
        {
            "host": "reviews",
            "subsets": [
                {"name": "v1", "labels": {"version": "v1"}},
                {"name": "v2", "labels": {"version": "v2"}},
            ],
        },
    )
    workloads = [registered(), registered("reviews-v2", "127.7.0.3")]
    made = generate(snap(service_entry(), rule, workloads=workloads), sidecar())

    def addresses(subset):
        name = f"outbound|9080|{subset}|{REVIEWS}"
        return [
            item.endpoint.address.socket_address.address
            for place in assignment(made, name).endpoints
            for item in place.lb_endpoints
        ]

    assert addresses("v1") == ["127.7.0.2"]
    assert addresses("v2") == ["127.7.0.3"]
    assert addresses("") == ["127.7.0.2", "127.7.0.3"]


def test_workload_entries_and_live_workloads_stand_side_by_side():
    entry = make(
        "WorkloadEntry",
        "vm",
        {"address": "10.9.9.9", "labels": {"app": "reviews"}, "ports": {"http": 81}},
    )
    made = assignment(
        generate(snap(service_entry(), entry, workloads=[registered()]), sidecar()), NAME
    )
    found = [item for place in made.endpoints for item in place.lb_endpoints]
    assert [
        (item.endpoint.address.socket_address.address, bool(item.metadata.filter_metadata))
        for item in found
    ] == [("10.9.9.9", False), ("127.7.0.2", True)]


def _endpoints(draw_weights):
    return [
        Endpoint(
            address=f"10.0.0.{number}",
            ports={"http": 80 + number} if number % 2 else {},
            labels={},
            service_account="",
            namespace="shop",
            workload=f"w{number}",
            locality=("", "eu", "eu/a/1", "us/b")[number % 4],
            weight=weight,
            mtls=bool(number % 3),
            healthy=bool(number % 5),
        )
        for number, weight in enumerate(draw_weights)
    ]


@given(st.lists(st.integers(0, 9), max_size=12), st.lists(st.integers(0, 9), max_size=12))
def test_spliced_is_what_the_whole_message_would_be_whatever_was_spliced_before(weights, later):
    first = spliced_assignment("c", PORT, _endpoints(weights))
    then = _endpoints(later)
    for before in (None, first):
        made = spliced_assignment("c", PORT, then, (), before)
        whole = load_assignment("c", PORT, then).SerializeToString(deterministic=True)
        assert made.resource.body == whole


def test_an_endpoint_that_did_not_change_is_not_made_again():
    one, other = _endpoints([1, 1])
    first = spliced_assignment("c", PORT, [one, other])
    moved = spliced_assignment("c", PORT, [one], (), first)
    assert moved.parts["shop", "w0", "10.0.0.0"] is first.parts["shop", "w0", "10.0.0.0"]
    assert len(moved.parts) == 1
