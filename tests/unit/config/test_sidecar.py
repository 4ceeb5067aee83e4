"""Sidecar: selector, listeners of both directions, hosts as namespace/dnsName."""

from __future__ import annotations

from typing import Any

import pytest

from windward.config.decode import decode_object
from windward.config.finding import Severity
from windward.config.metadata import Metadata
from windward.config.report import Report
from windward.config.sidecar import Sidecar, validate
from windward.config.walk import BAD, walk_struct

ALL = [{"hosts": ["*/*"]}]


def judged(spec: dict[str, Any], severity: Severity = Severity.ERROR) -> list[str]:
    report = Report("spec")
    made = walk_struct(Sidecar, spec, report)
    assert made is not BAD, report.findings
    validate(made, Metadata("narrow", "shop"), report)
    return [f"{item.path} {item.code}" for item in report.findings if item.severity is severity]


def hosts(*names: str) -> dict[str, Any]:
    return {"egress": [{"hosts": list(names)}]}


def ingress(**fields: Any) -> dict[str, Any]:
    return {"ingress": [{"port": {"number": 90, "protocol": "HTTP", "name": "web"}, **fields}]}


def egress(*listeners: dict[str, Any]) -> dict[str, Any]:
    return {"egress": [{"hosts": ["*/*"], **listener} for listener in listeners]}


SOCKET = {"port": {"protocol": "HTTP"}, "bind": "unix:///run/a.sock"}


@pytest.mark.parametrize(
    "spec",
    [
        hosts("./*"),
        hosts("~/*"),
        hosts("*/*", "~payments/*"),
        hosts("./reviews.shop.svc.cluster.local", "prod/*.example.com", "*/b.example.com"),
        {"workloadSelector": {"labels": {"app": "a"}}, **hosts("./*")},
        ingress(),
        ingress(bind="10.0.0.1", captureMode="NONE"),
        ingress(port={"number": 90}),
        *[
            ingress(defaultEndpoint=text)
            for text in ("127.0.0.1:80", "0.0.0.0:80", "[::1]:80", "[::]:80", ":80", "unix:///a/b", "unix://@a")
        ],
        ingress(
            port={"number": 443, "protocol": "HTTPS"},
            tls={"mode": "SIMPLE", "serverCertificate": "/c", "privateKey": "/k"},
        ),
        ingress(connectionPool={"http": {"maxRetries": 3}}),
        egress({"port": {"number": 80}}, {"port": {"number": 81}, "bind": "127.0.0.2"}, {}),
        egress(SOCKET, {**SOCKET, "bind": "unix://@abstract"}),
        {"outboundTrafficPolicy": {"mode": "ALLOW_ANY"}},
        {
            "outboundTrafficPolicy": {
                "mode": "ALLOW_ANY",
                "egressProxy": {"host": "proxy.example.com", "port": {"number": 3128}},
            }
        },
    ],
)  # fmt: skip
def test_good_specs(spec: dict[str, Any]) -> None:
    assert judged(spec) == []
    assert judged(spec, Severity.WARNING) == []


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("reviews.shop.svc", ["spec.egress[0].hosts[0] invalid-host"]),
        ("/a.b", ["spec.egress[0].hosts[0] invalid-host"]),
        ("shop/", ["spec.egress[0].hosts[0] invalid-host"]),
        ("Shop/*", ["spec.egress[0].hosts[0] invalid-host"]),
        ("~~shop/*", ["spec.egress[0].hosts[0] invalid-host"]),
        ("~*/*", ["spec.egress[0].hosts[0] invalid-host"]),
        ("~./*", ["spec.egress[0].hosts[0] invalid-host"]),
        ("shop/reviews", ["spec.egress[0].hosts[0] invalid-host"]),
        ("shop/*a.example.com", ["spec.egress[0].hosts[0] invalid-host"]),
        ("shop/*-a.example.com", ["spec.egress[0].hosts[0] invalid-host"]),
        ("shop/a.*.com", ["spec.egress[0].hosts[0] invalid-host"]),
        ("shop/a.b/c", ["spec.egress[0].hosts[0] invalid-host"]),
        ("shop/10.0.0.1", ["spec.egress[0].hosts[0] invalid-host"]),
    ],
)
def test_bad_hosts(host: str, said: list[str]) -> None:
    assert judged(hosts(host)) == said


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({}, ["spec required"]),
        ({"egress": []}, ["spec required"]),
        ({"egress": [{}]}, ["spec.egress[0].hosts required"]),
        ({"workloadSelector": {"labels": {"app": "*"}}, "egress": ALL}, ['spec.workloadSelector.labels["app"] invalid-value']),
        ({"ingress": [{}]}, ["spec.ingress[0].port required"]),
        ({"ingress": [{"port": {}}]}, ["spec.ingress[0].port.number out-of-range"]),
        (ingress(port={"number": 90, "protocol": "SMTP", "name": "A_", "targetPort": 1}),
         [f"spec.ingress[0].port.{field} invalid-value" for field in ("name", "protocol", "targetPort")]),
        (ingress(bind="unix:///a"), ["spec.ingress[0].bind invalid-value"]),
        ({"ingress": [{"port": {"number": 90}}, {"port": {"number": 90}}]}, ["spec.ingress[1].port.number duplicate"]),
        (ingress(tls={"mode": "PASSTHROUGH"}), ["spec.ingress[0].tls conflict"]),
        (ingress(port={"number": 90, "protocol": "TLS"}, tls={"mode": "ISTIO_MUTUAL"}),
         ["spec.ingress[0].tls.mode invalid-value"]),
        (ingress(port={"number": 90, "protocol": "TLS"}, tls={"mode": "SIMPLE", "credentialName": "a"}),
         ["spec.ingress[0].tls.credentialName invalid-value"]),
        (ingress(connectionPool={}), ["spec.ingress[0].connectionPool required"]),
        ({"inboundConnectionPool": {}}, ["spec.inboundConnectionPool required"]),
        (egress({}, {}), ["spec.egress[0].port required"]),
        (egress({}, {"port": {"number": 1}}), ["spec.egress[0].port required"]),
        (egress({"port": {"number": 65536}}), ["spec.egress[0].port.number out-of-range"]),
        (egress({"port": {"number": 80}, "bind": "a.b"}), ["spec.egress[0].bind invalid-value"]),
        (egress({"port": {"number": 80}}, {"port": {"number": 80}}), ["spec.egress[1].port duplicate"]),
        (egress({"port": {}}), ["spec.egress[0].port.number required"]),
        (egress({**SOCKET, "bind": "unix://relative"}), ["spec.egress[0].bind invalid-value"]),
        (egress({**SOCKET, "bind": "unix:///folder/"}), ["spec.egress[0].bind invalid-value"]),
        (egress(SOCKET, SOCKET), ["spec.egress[1].port duplicate"]),
        (egress({**SOCKET, "captureMode": "IPTABLES"}), ["spec.egress[0].captureMode conflict"]),
        ({"outboundTrafficPolicy": {}}, ["spec.outboundTrafficPolicy not-supported"]),
        ({"outboundTrafficPolicy": {"egressProxy": {"host": "a.b", "port": {"number": 1}}}},
         ["spec.outboundTrafficPolicy.egressProxy conflict"]),
        ({"outboundTrafficPolicy": {"mode": "ALLOW_ANY", "egressProxy": {"host": "a.b"}}},
         ["spec.outboundTrafficPolicy.egressProxy.port required"]),
        ({"outboundTrafficPolicy": {"mode": "ALLOW_ANY", "egressProxy": {"host": "*", "port": {"number": 0}}}},
         ["spec.outboundTrafficPolicy.egressProxy.host invalid-host"]),
    ],
)  # fmt: skip
def test_faults(spec: dict[str, Any], said: list[str]) -> None:
    assert judged(spec) == said


@pytest.mark.parametrize(
    "text",
    ["", "1.1.1.1:80", "localhost:80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:0",
     "127.0.0.1:65536", "::1:80", "[127.0.0.1]:80", "[::2]:80", "unix://", "unix:///", "127.0.0.1:-1", "127.0.0.1:²"],
)  # fmt: skip
def test_bad_default_endpoints(text: str) -> None:
    said = set(judged(ingress(defaultEndpoint=text)))
    if text:
        assert {item.split()[0] for item in said} == {"spec.ingress[0].defaultEndpoint"}
    else:
        assert not said


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"workloadSelector": {}, **hosts("./*")}, ["spec.workloadSelector unreachable"]),
        (hosts("test/*", "test/a.com"), ["spec.egress[0].hosts[1] duplicate"]),
        (hosts("test/a.com", "test/*"), ["spec.egress[0].hosts[1] duplicate"]),
        (hosts("./a.com", "shop/a.com"), ["spec.egress[0].hosts[1] duplicate"]),
        (hosts("*/*", "test/a.com"), ["spec.egress[0].hosts duplicate"]),
        (ingress(port={"number": 1, "protocol": "TCP"}, connectionPool={"http": {"maxRetries": 1}}),
         ["spec.ingress[0].connectionPool.http unreachable"]),
    ],
)  # fmt: skip
def test_what_probably_is_not_meant_is_a_warning(spec: dict[str, Any], said: list[str]) -> None:
    assert judged(spec) == []
    assert judged(spec, Severity.WARNING) == said


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        (ingress(), "spec.ingress"),
        ({"inboundConnectionPool": {"tcp": {"maxConnections": 1}}}, "spec.inboundConnectionPool"),
        ({"outboundTrafficPolicy": {}}, "spec.outboundTrafficPolicy"),
        (egress({"port": {"number": 80}}), "spec.egress[0].port"),
        (egress({"captureMode": "NONE"}), "spec.egress[0].captureMode"),
    ],
)
def test_what_no_builder_reads_is_refused_and_named(spec: dict[str, Any], path: str) -> None:
    raw = {
        "apiVersion": "networking.istio.io/v1beta1",
        "kind": "Sidecar",
        "metadata": {"name": "narrow", "namespace": "shop"},
        "spec": spec,
    }
    made, findings = decode_object(raw)
    assert made is None
    assert [(item.path, item.code) for item in findings] == [(path, "not-supported")]


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha3"])
def test_every_version_is_the_same_object(version: str) -> None:
    raw = {
        "apiVersion": f"networking.istio.io/{version}",
        "kind": "Sidecar",
        "metadata": {"name": "narrow", "namespace": "shop"},
        "spec": {"egress": [{"hosts": ["./*"], "captureMode": "DEFAULT"}]},
    }
    made, findings = decode_object(raw)
    assert findings == ()
    assert made is not None
    assert str(made.key) == "Sidecar/shop/narrow"
