"""One mesh that uses every feature that builders know, and a proxy of each shape."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from services.pilot.credentials.credential import Credential
from services.pilot.model.proxy import Interception
from services.pilot.snapshot import MeshSnapshot
from tests.unit.pilot.mesh import direct, make, port, router, service_entry, sidecar, snap, workload
from windward.config.gateway import CIPHER_SUITES
from windward.config.object import ConfigObject

HELD = Credential(b"chain", b"key", b"roots")
OWN = {"app": "reviews", "version": "v1"}
MESH_PROXIES = [
    sidecar("127.7.0.2", account="reviews", labels=OWN),
    replace(sidecar("127.7.0.2", account="reviews", labels=OWN), interception=Interception.TPROXY),
    replace(sidecar("127.7.0.2", account="reviews", labels=OWN), ipv6=True),
    direct("127.7.0.2", account="reviews", labels=OWN),
    router(),
    sidecar("127.7.0.50", namespace="other"),
]


def _services():
    outside = {"location": "MESH_EXTERNAL", "workloadSelector": None}
    several = [port(), port(9081, "GRPC", "grpc"), port(3306, "TCP", "tcp")]
    listed = [
        {"address": "10.3.0.1", "locality": "eu/a", "weight": 3, "labels": {"version": "v1"}},
        {"address": "10.3.0.2", "locality": "eu/b", "ports": {"http": 81}},
    ]
    return [
        service_entry(ports=several, addresses=["10.0.0.1"]),
        service_entry("ratings"),
        service_entry("listed", workloadSelector=None, endpoints=listed),
        service_entry("api", hosts=["api.example.com"], resolution="DNS", **outside),
        service_entry("one", hosts=["one.example.com"], resolution="DNS_ROUND_ROBIN", **outside),
        service_entry("wild", hosts=["*.wild.example.com"], resolution="NONE", **outside),
    ]


def _part(subset, weight=0, **changes):
    return {
        "destination": {"host": "reviews", "subset": subset, "port": {"number": 9080}},
        "weight": weight,
        **changes,
    }


def _routes():
    match = {
        "name": "m",
        "uri": {"prefix": "/a"},
        "scheme": {"exact": "http"},
        "method": {"regex": "GET|POST"},
        "authority": {"prefix": "rev"},
        "headers": {"end-user": {"exact": "tester"}, "any": {}},
        "withoutHeaders": {"bot": {"regex": ".+"}, "other": {}},
        "queryParams": {"q": {"exact": "1"}, "r": {}},
        "ignoreUriCase": True,
    }
    fault = {
        "delay": {"fixedDelay": "100ms", "percentage": {"value": 10}},
        "abort": {"httpStatus": 503, "percentage": {"value": 0.5}},
    }
    headers = {
        "request": {"set": {"a": "1", "host": "inner"}, "add": {"b": "2"}, "remove": ["c"]},
        "response": {"add": {"d": "4"}, "remove": ["e"]},
    }
    retries = {"attempts": 3, "perTryTimeout": "1s", "retryOn": "5xx,429"}
    pattern = {"match": [{"uri": {"regex": "/r/([0-9]+)"}}], "rewrite": {"uri": "/s"}}
    return [
        {"name": "r", "match": [match], "route": [_part("v1")], "fault": fault},
        {"match": [{"uri": {"exact": "/go"}}], "redirect": {"uri": "/gone", "redirectCode": 307}},
        {
            "match": [{"uri": {"prefix": "/tea"}}],
            "directResponse": {"status": 418, "body": {"string": "tea"}},
        },
        {**pattern, "route": [_part("v1")], "retries": retries, "timeout": "5s"},
        {
            "match": [{"uri": {"prefix": "/p"}}],
            "rewrite": {"uri": "/q", "authority": "z"},
            "route": [_part("v2")],
            "retries": {"attempts": 0},
        },
        {"route": [_part("v1", 90, headers=headers), _part("v2", 10)], "headers": headers},
    ]


def _rules():
    policy = {
        "loadBalancer": {"simple": "ROUND_ROBIN"},
        "connectionPool": {
            "tcp": {"maxConnections": 100, "connectTimeout": "1s"},
            "http": {"http1MaxPendingRequests": 10, "maxRequestsPerConnection": 100},
        },
        "outlierDetection": {"consecutive5xxErrors": 3, "interval": "1s", "maxEjectionPercent": 50},
    }
    subsets = [
        {"name": "v1", "labels": {"version": "v1"}},
        {
            "name": "v2",
            "labels": {"version": "v2"},
            "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}},
        },
    ]
    passing = {"host": "ratings", "trafficPolicy": {"loadBalancer": {"simple": "PASSTHROUGH"}}}
    spec = {"host": "reviews", "trafficPolicy": policy, "subsets": subsets}
    tcp = [{"match": [{"port": 3306}], "route": [_part("v1", 50), _part("v2", 50)]}]
    return [
        make("DestinationRule", "reviews", spec),
        make("DestinationRule", "ratings", passing),
        make("VirtualService", "reviews", {"hosts": ["reviews"], "http": _routes(), "tcp": tcp}),
        make(
            "VirtualService",
            "edge",
            {"hosts": ["shop.example.com"], "gateways": ["edge"], "http": _routes()},
        ),
    ]


def _rest():
    servers: list[dict[str, Any]] = [
        {"port": {"number": number, "name": f"p{number}", "protocol": "HTTP"}, "hosts": ["*"]}
        for number in (8080, 8081)
    ]
    secure = {"number": 8443, "protocol": "HTTPS"}
    modes: list[dict[str, Any]] = [
        {"mode": "MUTUAL", "credentialName": "cert", "cipherSuites": sorted(CIPHER_SUITES)},
        {"mode": "OPTIONAL_MUTUAL", "credentialName": "cert", "subjectAltNames": ["a", "10.0.0.1"]},
        {"mode": "ISTIO_MUTUAL", "minProtocolVersion": "TLSV1_1"},
        {"mode": "SIMPLE", "serverCertificate": "/tls.crt", "privateKey": "/tls.key"},
    ]
    servers += [
        {"port": {**secure, "name": f"s{n}"}, "hosts": [f"*.{n}.com", f"{n}.com"], "tls": tls}
        for n, tls in enumerate(modes)
    ]
    servers.append(
        {
            "port": {"number": 8082, "name": "redirect", "protocol": "HTTP"},
            "hosts": ["shop.example.com", "bare.example.com"],
            "tls": {"httpsRedirect": True},
        }
    )
    actions = [{"handler": "deny", "instances": ["nothing"]}]
    own = {"selector": {"matchLabels": {"app": "reviews"}}, "mtls": {"mode": "STRICT"}}
    return [
        make("Gateway", "edge", {"selector": {"istio": "ingress"}, "servers": servers}),
        make("PeerAuthentication", "default", {"mtls": {"mode": "PERMISSIVE"}}),
        make(
            "PeerAuthentication", "reviews", {**own, "portLevelMtls": {"9081": {"mode": "DISABLE"}}}
        ),
        make("handler", "deny", {"compiledAdapter": "denier", "params": {"status": {"code": 7}}}),
        make("instance", "nothing", {"compiledTemplate": "checknothing"}),
        make("rule", "deny", {"match": "true", "actions": actions}),
    ]


def whole_objects() -> list[ConfigObject[Any]]:
    """Every object of the mesh."""
    return [*_services(), *_rules(), *_rest()]


def whole_mesh() -> MeshSnapshot:
    workloads = [
        workload(),
        workload("reviews-v2", "127.7.0.3", unhealthy=True),
        workload("ratings-v1", "127.7.0.4"),
    ]
    made = snap(*whole_objects(), workloads=workloads)
    return replace(made, credentials={("shop", "cert"): HELD})
