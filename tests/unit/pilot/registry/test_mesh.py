from __future__ import annotations

from services.pilot.model.service import Protocol
from services.pilot.registry.mesh import (
    age_order,
    endpoint_of_workload,
    listed_endpoints,
    origin_of,
    services_of,
)
from tests.unit.pilot.mesh import make, port, service_entry, workload


def test_a_service_a_host_with_its_ports():
    entry = service_entry(
        hosts=["a.example.com", "b.example.com"],
        ports=[port(80), {**port(9000, "TCP", "tcp"), "targetPort": 9001}],
    )
    first, second = services_of(entry)
    assert (first.host, second.host) == ("a.example.com", "b.example.com")
    assert [(p.number, p.protocol, p.target) for p in first.ports] == [
        (80, Protocol.HTTP, 80),
        (9000, Protocol.TCP, 9001),
    ]
    assert first.selector == (("app", "reviews"),)
    assert first.origin == origin_of(entry)


def test_listed_endpoints_keep_what_was_written():
    entry = service_entry(
        workloadSelector=None,
        endpoints=[
            {
                "address": "10.0.0.5",
                "ports": {"http": 8080},
                "labels": {"version": "v1", "security.istio.io/tlsMode": "istio"},
                "locality": "eu/a/1",
                "weight": 3,
                "serviceAccount": "reviews",
            },
            {"address": "10.0.0.6"},
        ],
    )
    first, second = listed_endpoints(entry)
    assert (first.address, first.ports, first.locality, first.weight) == (
        "10.0.0.5",
        {"http": 8080},
        "eu/a/1",
        3,
    )
    assert first.mtls
    assert first.service_account == "reviews"
    assert (second.weight, second.mtls, second.healthy) == (1, False, True)


def test_a_live_workload_speaks_the_mesh_mtls():
    made = endpoint_of_workload(workload(ports={"http": 8080}), healthy=False)
    assert made.mtls
    assert not made.healthy
    assert (made.workload, made.service_account, made.ports) == (
        "reviews-v1",
        "reviews",
        {"http": 8080},
    )


def test_age_decides_then_names():
    items = [
        make("PeerAuthentication", "b", {}, born=1),
        make("PeerAuthentication", "z", {}, born=0),
        make("PeerAuthentication", "a", {}, born=1),
    ]
    assert [item.key.name for item in sorted(items, key=age_order)] == ["z", "a", "b"]
