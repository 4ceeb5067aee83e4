"""ServiceEntry's rules: hosts, addresses, ports and endpoints, and what goes with which resolution."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.config import judging

HTTP = {"number": 80, "name": "http", "protocol": "HTTP"}
TCP = {"number": 81, "name": "tcp", "protocol": "TCP"}
SELECTOR = {"labels": {"app": "a"}}


def judged(spec: dict[str, Any], **labels: str) -> list[str]:
    whole = {"hosts": ["a.example.com"], "ports": [HTTP], "resolution": "STATIC", **spec}
    return judging.judged("ServiceEntry", whole, labels=labels)


def dynamic(**fields: Any) -> dict[str, Any]:
    return {"resolution": "DYNAMIC_DNS", "hosts": ["*.example.com"], **fields}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"endpoints": [{"address": "10.0.0.1", "ports": {"http": 8080}}]},
        {"endpoints": [{"address": "unix:///run/socket"}]},
        {"resolution": "DNS"},
        {"resolution": "DNS", "endpoints": [{"address": "b.example.com"}, {"address": "10.0.0.1"}]},
        {"resolution": "DNS_ROUND_ROBIN", "endpoints": [{"address": "b.example.com"}]},
        {"resolution": "NONE", "hosts": ["*.example.com"]},
        {"resolution": "NONE", "ports": [TCP], "addresses": ["10.0.0.1"]},
        {"workloadSelector": SELECTOR},
        {"ports": [{**HTTP, "targetPort": 8080}, TCP]},
        {"exportTo": ["."], "location": "MESH_INTERNAL"},
        dynamic(ports=[{**HTTP, "protocol": "GRPC"}]),
    ],
)
def test_good_entries(spec: dict[str, Any]) -> None:
    assert judged(spec) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"hosts": []}, ["hosts required"]),
        ({"hosts": ["*"]}, ["hosts[0] invalid-host"]),
        ({"hosts": ["a_b"]}, ["hosts[0] invalid-host"]),
        ({"hosts": ["a.b", "a.b"]}, ["hosts[1] duplicate"]),
        ({"hosts": [f"h{number}.b" for number in range(257)]}, ["hosts too-large"]),
        ({"addresses": ["10.0.0.1"] * 257}, ["addresses too-large"]),
        ({"endpoints": [{"address": "10.0.0.1"}] * 4097}, ["endpoints too-large"]),
        ({"hosts": ["*example.com"]}, ["hosts[0] invalid-host?"]),
        ({"addresses": ["ten"]}, ["addresses[0] invalid-value"]),
        ({"addresses": ["10.0.0.0/8"], "resolution": "DNS"}, ["addresses conflict"]),
        ({"ports": []}, ["ports required?"]),
        ({"ports": [{}]}, [f"ports[0].{name}" for name in ("name required", "protocol required", "number out-of-range")]),
        ({"ports": [HTTP, {**TCP, "name": "http"}]}, ["ports[1].name duplicate"]),
        ({"ports": [HTTP, {**TCP, "number": 80}]}, ["ports[1].number duplicate"]),
        ({"ports": [{**HTTP, "targetPort": 65536}]}, ["ports[0].targetPort out-of-range"]),
        ({"resolution": "NONE", "ports": [{**HTTP, "targetPort": 81}]}, ["ports[0].targetPort unreachable?"]),
        ({"resolution": "NONE", "ports": [TCP]}, ["addresses matches-everything?"]),
        ({"resolution": "NONE", "endpoints": [{"address": "10.0.0.1"}]}, ["endpoints conflict"]),
        ({"endpoints": [{}]}, ["endpoints[0].address required"]),
        ({"endpoints": [{"network": "n"}]}, ["endpoints[0].address unreachable?"]),
        ({"endpoints": [{"address": "b.example.com"}]}, ["endpoints[0].address invalid-value"]),
        ({"endpoints": [{"address": "unix:///run/socket"}], "ports": [HTTP, TCP]}, ["endpoints[0].address conflict"]),
        ({"endpoints": [{"address": "10.0.0.1", "ports": {"other": 1}}]}, ['endpoints[0].ports["other"] invalid-value']),
        ({"resolution": "DNS", "endpoints": [{"address": "unix:///run/socket"}]}, ["endpoints[0].address conflict"]),
        ({"resolution": "DNS", "endpoints": [{"address": "a_b"}]}, ["endpoints[0].address invalid-host"]),
        ({"resolution": "DNS", "hosts": ["*.example.com"]}, ["hosts conflict", "hosts[0] conflict"]),
        ({"resolution": "DNS_ROUND_ROBIN", "endpoints": [{"address": "a.b"}, {"address": "b.b"}]}, ["endpoints conflict"]),
        ({"workloadSelector": SELECTOR, "endpoints": [{"address": "10.0.0.1"}]}, ["spec conflict"]),
        ({"workloadSelector": {}}, ["workloadSelector unreachable?"]),
        ({"workloadSelector": SELECTOR, "resolution": "NONE"}, ["workloadSelector unreachable?"]),
        ({"exportTo": ["*", "ns"]}, ["exportTo conflict"]),
        (dynamic(hosts=["a.example.com"]), ["hosts conflict"]),
        (dynamic(addresses=["10.0.0.1"]), ["addresses conflict"]),
        (dynamic(endpoints=[{"address": "10.0.0.1"}]), ["endpoints conflict"]),
        (dynamic(ports=[HTTP, TCP]), ["ports[1].protocol conflict"]),
    ],
)  # fmt: skip
def test_faults(spec: dict[str, Any], expected: list[str]) -> None:
    assert judged(spec) == expected


def test_a_waypoint_does_not_go_with_names_that_are_looked_up_inside_the_mesh() -> None:
    inside = dynamic(location="MESH_INTERNAL")
    assert judged(inside) == []
    assert judged(inside, **{"istio.io/use-waypoint": "none"}) == []
    assert judged(inside, **{"istio.io/use-waypoint": "w"}) == ["location conflict"]
    assert judged(dynamic(), **{"istio.io/use-waypoint": "w"}) == []
