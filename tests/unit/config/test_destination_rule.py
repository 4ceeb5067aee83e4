"""DestinationRule: host, subsets, and each section of a traffic policy wherever one may stand."""

from __future__ import annotations

from typing import Any

import pytest

from windward.config.destination_rule import DestinationRule, validate
from windward.config.finding import Severity
from windward.config.metadata import Metadata
from windward.config.report import Report
from windward.config.walk import BAD, walk_struct


def judged(spec: dict[str, Any], severity: Severity = Severity.ERROR) -> list[str]:
    report = Report("spec")
    made = walk_struct(DestinationRule, spec, report)
    assert made is not BAD, report.findings
    validate(made, Metadata("reviews", "shop"), report)
    return [f"{item.path} {item.code}" for item in report.findings if item.severity is severity]


def hashed(**changes: Any) -> dict[str, Any]:
    return {"loadBalancer": {"consistentHash": {"useSourceIp": True, **changes}}}


def locality(**setting: Any) -> dict[str, Any]:
    return {"outlierDetection": {}, "loadBalancer": {"localityLbSetting": setting}}


@pytest.mark.parametrize(
    "spec",
    [
        {"host": "reviews"},
        {"host": "*.example.com", "exportTo": ["."]},
        {"host": "a", "exportTo": ["."], "workloadSelector": {"matchLabels": {"app": "a"}}},
        {"host": "a", "subsets": [{"name": "V1"}]},
        {"host": "a", "subsets": [{"name": "v1", "labels": {"version": "v1"}}, {"name": "v2"}]},
        {"host": "a", "subsets": [{"name": "v1", "trafficPolicy": {"tls": {"mode": "DISABLE"}}}]},
    ],
)
def test_good_specs(spec: dict[str, Any]) -> None:
    assert judged(spec) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"host": ""}, ["spec.host required"]),
        ({"host": "a b"}, ["spec.host invalid-host"]),
        ({"host": "a.*"}, ["spec.host invalid-host"]),
        ({"subsets": [{}]}, ["spec.subsets[0].name invalid-value"]),
        ({"subsets": [{"name": "v_1"}]}, ["spec.subsets[0].name invalid-value"]),
        ({"workloadSelector": {"matchLabels": {"app": "a"}}, "exportTo": ["*"]}, ["spec.exportTo conflict"]),
        ({"subsets": [{"name": "a"}, {"name": "b"}, {"name": "a"}]}, ["spec.subsets[2].name duplicate"]),
        ({"subsets": [{"name": "a", "labels": {"@": "x"}}]}, ['spec.subsets[0].labels["@"] invalid-value']),
        ({"subsets": [{"name": "a", "labels": {"x": "@"}}]}, ['spec.subsets[0].labels["x"] invalid-value']),
        ({"subsets": [{"name": "a", "trafficPolicy": {}}]}, ["spec.subsets[0].trafficPolicy required"]),
        ({"exportTo": ["*", "."]}, ["spec.exportTo conflict"]),
        ({"workloadSelector": {"matchLabels": {"app": "*"}}}, ['spec.workloadSelector.matchLabels["app"] invalid-value']),
    ],
)  # fmt: skip
def test_faults_of_the_rule(change: dict[str, Any], expected: list[str]) -> None:
    assert judged({"host": "a", **change}) == expected


GOOD = [
    {"loadBalancer": {"simple": "ROUND_ROBIN"}},
    hashed(),
    hashed(ringHash={"minimumRingSize": 2**63}),
    hashed(maglev={"tableSize": 65537}),
    {"loadBalancer": {"consistentHash": {"httpCookie": {"name": "c", "ttl": "0s"}}}},
    {"loadBalancer": {"simple": "RANDOM", "warmup": {"duration": "10s", "minimumPercent": 10, "aggression": 1.5}}},
    locality(distribute=[{"from": "r1/z1/*", "to": {"r1/z1/*": 80, "r2/*": 20}}, {"from": "r2/*", "to": {"r2/*": 100}}]),
    locality(failover=[{"from": "r1", "to": "r2"}]),
    {"connectionPool": {"tcp": {"maxConnections": 5, "connectTimeout": "1s", "idleTimeout": "0s"}}},
    {"connectionPool": {"tcp": {"tcpKeepalive": {"probes": 3, "time": "1h", "interval": "1s"}}}},
    {"connectionPool": {"http": {"http1MaxPendingRequests": 1, "http2MaxRequests": 2, "maxRetries": 0}}},
    {"connectionPool": {"http": {"http2KeepAlive": {"interval": "1s"}}}},
    {"loadBalancer": {"consistentHash": {"httpCookie": {"name": "c", "attributes": [{"name": "a"}, {"name": "b"}]}}}},
    {"outlierDetection": {"consecutive5xxErrors": 0, "interval": "1s", "maxEjectionPercent": 100}},
    {"outlierDetection": {"splitExternalLocalOriginErrors": True, "consecutiveLocalOriginFailures": 5}},
    {"tls": {"mode": "ISTIO_MUTUAL", "sni": "a.b"}},
    {"tls": {"mode": "MUTUAL", "clientCertificate": "a", "privateKey": "b"}},
    {"tls": {"mode": "MUTUAL", "credentialName": "a"}},
    {"tls": {"mode": "SIMPLE", "caCertificates": "a", "subjectAltNames": ["b"]}},
]  # fmt: skip

BAD_SECTIONS = [
    ({"loadBalancer": {"simple": "RANDOM", "consistentHash": {"useSourceIp": True}}}, "loadBalancer conflict"),
    ({"loadBalancer": {"consistentHash": {}}}, "loadBalancer.consistentHash required"),
    (hashed(httpHeaderName="a"), "loadBalancer.consistentHash conflict"),
    (hashed(ringHash={}, maglev={}), "loadBalancer.consistentHash conflict"),
    (hashed(ringHash={}, minimumRingSize=5), "loadBalancer.consistentHash.minimumRingSize conflict"),
    (hashed(maglev={"tableSize": 1000}), "loadBalancer.consistentHash.maglev.tableSize invalid-value"),
    (hashed(maglev={"tableSize": 5_000_081}), "loadBalancer.consistentHash.maglev.tableSize invalid-value"),
    ({"loadBalancer": {"consistentHash": {"httpCookie": {}}}}, "loadBalancer.consistentHash.httpCookie.name required"),
    ({"loadBalancer": {"consistentHash": {"httpCookie": {"name": "c", "ttl": "-1s"}}}},
     "loadBalancer.consistentHash.httpCookie.ttl out-of-range"),
    ({"loadBalancer": {"warmupDurationSecs": "0s"}}, "loadBalancer.warmupDurationSecs out-of-range"),
    ({"loadBalancer": {"warmup": {}}}, "loadBalancer.warmup.duration required"),
    ({"loadBalancer": {"warmup": {"duration": "1s", "minimumPercent": 101}}}, "loadBalancer.warmup.minimumPercent out-of-range"),
    ({"loadBalancer": {"warmup": {"duration": "1s", "aggression": 0.5}}}, "loadBalancer.warmup.aggression out-of-range"),
    ({"loadBalancer": {"warmup": {"duration": "1s"}, "warmupDurationSecs": "1s"}}, "loadBalancer.warmup conflict"),
    (locality(distribute=[{"from": "a", "to": {"a": 99}}]), "loadBalancer.localityLbSetting.distribute[0].to out-of-range"),
    (locality(distribute=[{"from": "a", "to": {"b": 100, "c": 0}}]),
     'loadBalancer.localityLbSetting.distribute[0].to["c"] out-of-range'),
    (locality(distribute=[{"from": "a", "to": {"b/*": 50, "b/c": 50}}]),
     'loadBalancer.localityLbSetting.distribute[0].to["b/c"] duplicate'),
    (locality(distribute=[{"from": "a/*", "to": {"b": 100}}, {"from": "a/b", "to": {"b": 100}}]),
     "loadBalancer.localityLbSetting.distribute[1].from duplicate"),
    (locality(failover=[{"from": "a", "to": "a"}]), "loadBalancer.localityLbSetting.failover[0] conflict"),
    (locality(failover=[{"from": "a/b", "to": "c"}]), "loadBalancer.localityLbSetting.failover[0] invalid-value"),
    (locality(distribute=[{"from": "a", "to": {"b": 100}}], failover=[{"from": "a", "to": "b"}]),
     "loadBalancer.localityLbSetting conflict"),
    ({"connectionPool": {}}, "connectionPool required"),
    ({"connectionPool": {"tcp": {"maxConnections": -1}}}, "connectionPool.tcp.maxConnections out-of-range"),
    ({"connectionPool": {"tcp": {"connectTimeout": "0s"}}}, "connectionPool.tcp.connectTimeout out-of-range"),
    ({"connectionPool": {"tcp": {"maxConnectionDuration": "1us"}}}, "connectionPool.tcp.maxConnectionDuration out-of-range"),
    ({"connectionPool": {"tcp": {"tcpKeepalive": {"time": "10ms"}}}}, "connectionPool.tcp.tcpKeepalive.time out-of-range"),
    ({"connectionPool": {"http": {"http2KeepAlive": {"timeout": "1s"}}}}, "connectionPool.http.http2KeepAlive.interval required"),
    ({"connectionPool": {"http": {"http2KeepAlive": {"interval": "1us"}}}},
     "connectionPool.http.http2KeepAlive.interval out-of-range"),
    ({"loadBalancer": {"consistentHash": {"httpCookie": {"name": "c", "attributes": [{"name": "a"}, {"name": "a"}]}}}},
     "loadBalancer.consistentHash.httpCookie.attributes[1].name duplicate"),
    ({"loadBalancer": {"consistentHash": {"httpCookie": {"name": "c", "attributes": [{}]}}}},
     "loadBalancer.consistentHash.httpCookie.attributes[0].name required"),
    ({"connectionPool": {"http": {"maxRetries": -1}}}, "connectionPool.http.maxRetries out-of-range"),
    ({"connectionPool": {"http": {"http2MaxRequests": -1}}}, "connectionPool.http.http2MaxRequests out-of-range"),
    ({"connectionPool": {"http": {"idleTimeout": "-1s"}}}, "connectionPool.http.idleTimeout out-of-range"),
    ({"connectionPool": {"http": {"useClientProtocol": True, "h2UpgradePolicy": "UPGRADE"}}}, "connectionPool.http conflict"),
    ({"outlierDetection": {"interval": "0s"}}, "outlierDetection.interval out-of-range"),
    ({"outlierDetection": {"baseEjectionTime": "1.5ms"}}, "outlierDetection.baseEjectionTime invalid-value"),
    ({"outlierDetection": {"maxEjectionPercent": 101}}, "outlierDetection.maxEjectionPercent out-of-range"),
    ({"outlierDetection": {"minHealthPercent": -1}}, "outlierDetection.minHealthPercent out-of-range"),
    ({"outlierDetection": {"consecutiveLocalOriginFailures": 1}}, "outlierDetection.consecutiveLocalOriginFailures conflict"),
    ({"outlierDetection": {"outlierDetectionHttpErrorCodes": [500, 600]}},
     "outlierDetection.outlierDetectionHttpErrorCodes[1] out-of-range"),
    ({"tls": {"mode": "MUTUAL", "privateKey": "b"}}, "tls.clientCertificate required"),
    ({"tls": {"mode": "MUTUAL", "clientCertificate": "b"}}, "tls.privateKey required"),
    ({"tls": {"mode": "MUTUAL", "clientCertificate": "b", "credentialName": "c"}}, "tls conflict"),
    ({"tls": {"mode": "SIMPLE", "privateKey": "b"}}, "tls conflict"),
    ({"tls": {"mode": "SIMPLE", "caCertificates": "b", "credentialName": "c"}}, "tls conflict"),
    ({"tls": {"mode": "ISTIO_MUTUAL", "caCertificates": "b"}}, "tls conflict"),
    ({"tls": {"mode": "SIMPLE", "insecureSkipVerify": True, "caCertificates": "b"}}, "tls conflict"),
]  # fmt: skip


def places(policy: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """A policy's sections in each of the four places that take them, with the path there."""
    with_port = {"portLevelSettings": [{"port": {"number": 80}, **policy}]}
    return [
        ("spec.trafficPolicy", {"trafficPolicy": policy}),
        ("spec.trafficPolicy.portLevelSettings[0]", {"trafficPolicy": with_port}),
        ("spec.subsets[0].trafficPolicy", {"subsets": [{"name": "a", "trafficPolicy": policy}]}),
        (
            "spec.subsets[0].trafficPolicy.portLevelSettings[0]",
            {"subsets": [{"name": "a", "trafficPolicy": with_port}]},
        ),
    ]


@pytest.mark.parametrize("policy", GOOD)
def test_good_sections_everywhere(policy: dict[str, Any]) -> None:
    for _, change in places(policy):
        assert judged({"host": "a", **change}) == []


@pytest.mark.parametrize(("policy", "expected"), BAD_SECTIONS)
def test_bad_sections_are_named_everywhere(policy: dict[str, Any], expected: str) -> None:
    for path, change in places(policy):
        assert judged({"host": "a", **change}) == [f"{path}.{expected}"]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, ["spec.trafficPolicy required"]),
        ({"portLevelSettings": []}, ["spec.trafficPolicy required"]),
        ({"portLevelSettings": [{}]}, ["spec.trafficPolicy.portLevelSettings[0].port required"]),
        ({"portLevelSettings": [{"port": {"number": 0}}]}, ["spec.trafficPolicy.portLevelSettings[0].port.number out-of-range"]),
        ({"retryBudget": {"percent": 101}}, ["spec.trafficPolicy.retryBudget.percent out-of-range"]),
        ({"proxyProtocol": {"version": "V2"}}, []),
        ({"tunnel": {"protocol": "POST", "targetHost": "a.b", "targetPort": 1}}, []),
        ({"tunnel": {"targetHost": "10.0.0.1", "targetPort": 80}}, []),
        (
            {"tunnel": {"protocol": "GET", "targetHost": "*"}},
            [f"spec.trafficPolicy.tunnel.{field}" for field in
             ("protocol invalid-value", "targetHost invalid-host", "targetPort out-of-range")],
        ),
    ],
)  # fmt: skip
def test_sections_of_the_whole_policy(policy: dict[str, Any], expected: list[str]) -> None:
    assert judged({"host": "a", "trafficPolicy": policy}) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"trafficPolicy": {"loadBalancer": {"simple": "LEAST_CONN"}}}, "spec.trafficPolicy.loadBalancer.simple deprecated"),
        ({"trafficPolicy": {"outlierDetection": {"consecutiveErrors": 3}}},
         "spec.trafficPolicy.outlierDetection.consecutiveErrors deprecated"),
        ({"trafficPolicy": {"loadBalancer": {"localityLbSetting": {"failover": [{"from": "a", "to": "b"}]}}}},
         "spec.trafficPolicy.loadBalancer.localityLbSetting unreachable"),
        ({"workloadSelector": {}}, "spec.workloadSelector unreachable"),
    ],
)  # fmt: skip
def test_what_probably_is_not_meant_is_a_warning(change: dict[str, Any], expected: str) -> None:
    spec = {"host": "a", **change}
    assert judged(spec) == []
    assert judged(spec, Severity.WARNING) == [expected]
