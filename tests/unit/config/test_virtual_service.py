"""VirtualService: hosts, gateways, TLS and TCP routes, what is never reached."""

from __future__ import annotations

from typing import Any

import pytest

from windward.config.finding import Severity
from windward.config.metadata import Metadata
from windward.config.report import Report
from windward.config.virtual_service import VirtualService, validate
from windward.config.walk import BAD, walk_struct

TO = [{"destination": {"host": "reviews"}}]
ROUTE = {"route": TO}


def judged(spec: dict[str, Any], severity: Severity = Severity.ERROR) -> list[str]:
    report = Report("spec")
    made = walk_struct(VirtualService, spec, report)
    assert made is not BAD, report.findings
    validate(made, Metadata("reviews", "shop"), report)
    return [f"{item.path} {item.code}" for item in report.findings if item.severity is severity]


def uri(path: str) -> dict[str, Any]:
    return {"uri": {"exact": path}}


@pytest.mark.parametrize(
    "spec",
    [
        {"hosts": ["reviews"], "http": [ROUTE]},
        {"hosts": ["a.example.com", "b.example.com", "*.other.com"], "http": [ROUTE]},
        {"hosts": ["10.0.0.1", "10.0.0.2"], "http": [ROUTE]},
        {"hosts": ["*"], "gateways": ["istio-system/ingress"], "http": [ROUTE]},
        {"hosts": ["a.com"], "gateways": ["mesh", "ingress"], "http": [ROUTE]},
        {"gateways": [], "http": [ROUTE]},
        {"hosts": ["a"], "tcp": [{"route": TO}]},
        {"hosts": ["a"], "tcp": [{"match": [{"port": 80, "destinationSubnets": ["10.0.0.0/8", "::1"]}], "route": TO}]},
        {"hosts": ["*.example.com"], "tls": [{"match": [{"sniHosts": ["a.example.com"]}], "route": TO}]},
        {"hosts": ["a"], "http": [ROUTE], "exportTo": ["*"]},
        {"hosts": ["a"], "http": [ROUTE], "exportTo": [".", "other"]},
    ],
)  # fmt: skip
def test_good_specs(spec: dict[str, Any]) -> None:
    assert judged(spec) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"http": []}, ["spec required"]),
        ({"hosts": [""]}, ["spec.hosts[0] invalid-host"]),
        ({"hosts": ["a_b"]}, ["spec.hosts[0] invalid-host"]),
        ({"hosts": ["*"]}, ["spec.hosts[0] invalid-host"]),
        ({"hosts": ["*"], "gateways": ["mesh", "g"]}, ["spec.hosts[0] invalid-host"]),
        ({"hosts": ["a.*.com"]}, ["spec.hosts[0] invalid-host"]),
        ({"hosts": ["short"], "gateways": ["g"]}, ["spec.hosts[0] invalid-host"]),
        ({"hosts": ["a", "a"]}, ["spec.hosts[1] duplicate"]),
        ({"hosts": ["a.b.com", "*.b.com"]}, ["spec.hosts[1] duplicate"]),
        ({"hosts": ["*.com", "*.b.com"]}, ["spec.hosts[1] duplicate"]),
        ({"hosts": ["10.0.0.1", "10.0.0.1"]}, ["spec.hosts[1] duplicate"]),
        ({"hosts": [], "gateways": ["g"]}, ["spec.gateways conflict"]),
        ({"hosts": [], "http": [], "tcp": [{"route": TO}]}, ["spec conflict"]),
        ({"gateways": ["a/b/c"]}, ["spec.hosts[0] invalid-host", "spec.gateways[0] invalid-value"]),
        ({"gateways": ["mesh", "", "x"], "hosts": ["a.b"]}, ["spec.gateways[1] required"]),
        ({"tcp": [{}]}, ["spec.tcp[0].route required"]),
        ({"tcp": [{"route": TO * 2}]}, ["spec.tcp[0].route out-of-range"]),
        ({"tcp": [{"route": [{}]}]}, ["spec.tcp[0].route[0].destination required"]),
        ({"tcp": [{"match": [{"port": 65536}], "route": TO}]}, ["spec.tcp[0].match[0].port out-of-range"]),
        ({"tcp": [{"match": [{"destinationSubnets": ["10.0.0.0/8", "x"]}], "route": TO}]},
         ["spec.tcp[0].match[0].destinationSubnets[1] invalid-value"]),
        ({"tcp": [{"match": [{"sourceSubnet": "10.0.0.0/40"}], "route": TO}]},
         ["spec.tcp[0].match[0].sourceSubnet invalid-value"]),
        ({"tcp": [{"match": [{"sourceLabels": {"a": "?"}}], "route": TO}]},
         ['spec.tcp[0].match[0].sourceLabels["a"] invalid-value']),
        ({"tcp": [{"match": [{"gateways": ["?"]}], "route": TO}]}, ["spec.tcp[0].match[0].gateways[0] invalid-value"]),
        ({"tcp": [{"match": [{"sourceNamespace": "?"}], "route": TO}]}, ["spec.tcp[0].match[0].sourceNamespace invalid-value"]),
        ({"tls": [{"route": TO}]}, ["spec.tls[0].match required"]),
        ({"tls": [{"match": [{}], "route": TO}]}, ["spec.tls[0].match[0].sniHosts required"]),
        ({"tls": [{"match": [{"sniHosts": ["b"]}], "route": TO}]}, ["spec.tls[0].match[0].sniHosts[0] conflict"]),
        ({"tls": [{"match": [{"sniHosts": ["a"]}]}]}, ["spec.tls[0].route required"]),
        ({"exportTo": ["*", "a"]}, ["spec.exportTo conflict"]),
        ({"exportTo": ["a", "a"]}, ["spec.exportTo[1] duplicate"]),
        ({"exportTo": [".", "shop"]}, ["spec.exportTo[1] duplicate"]),
        ({"exportTo": ["A b"]}, ["spec.exportTo[0] invalid-value"]),
    ],
)  # fmt: skip
def test_faults_at_their_paths(change: dict[str, Any], expected: list[str]) -> None:
    assert judged({"hosts": ["a"], "http": [ROUTE], **change}) == expected


@pytest.mark.parametrize(
    ("http", "unreachable"),
    [
        ([ROUTE], []),
        ([ROUTE, ROUTE, ROUTE], [1, 2]),
        ([{"match": [uri("/a")], **ROUTE}, ROUTE], []),
        ([ROUTE, {"match": [uri("/a")], **ROUTE}], [1]),
        ([{"match": [uri("/a")], **ROUTE}, {"match": [uri("/a")], **ROUTE}], [1]),
        ([{"match": [uri("/a")], **ROUTE}, {"match": [uri("/b"), uri("/a")], **ROUTE}], []),
        ([{"match": [uri("/a"), uri("/b")], **ROUTE}, {"match": [uri("/b")], **ROUTE}], [1]),
    ],
)
def test_what_is_never_reached_is_a_warning(
    http: list[dict[str, Any]], unreachable: list[int]
) -> None:
    spec = {"hosts": ["a"], "http": http}
    assert judged(spec) == []
    assert judged(spec, Severity.WARNING) == [f"spec.http[{i}] unreachable" for i in unreachable]


def test_an_address_as_server_name_and_a_deprecated_mirror_are_warnings():
    sni = {"hosts": ["a.b"], "tls": [{"match": [{"sniHosts": ["1.1.1.1"]}], "route": TO}]}
    assert judged(sni) == []
    assert judged(sni, Severity.WARNING) == ["spec.tls[0].match[0].sniHosts[0] invalid-host"]
    mirrored = {"hosts": ["a.b"], "http": [{**ROUTE, "mirrorPercent": 5}]}
    assert judged(mirrored) == []
    assert judged(mirrored, Severity.WARNING) == ["spec.http[0].mirrorPercent deprecated"]
