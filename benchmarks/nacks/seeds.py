# ruff: noqa: E501  tables: one seed a line
"""The bad objects: each as it would be if nobody had validated it, with the field that is to blame.

A seed replaces good objects by bad ones, or brings bad ones along, while other objects change too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from windward.config.object import ConfigObject, ObjectKey
from windward.config.registry import KINDS
from windward.config.report import Report
from windward.config.walk import walk_partial

NAMESPACE = "shop"
NETWORKING = "networking.istio.io"
Spec = dict[str, Any]
EDGE = "edge.example.com"


def unchecked(kind: str, name: str, spec: Mapping[str, Any]) -> ConfigObject[Any]:
    """An object that no validator saw; what is not even of its type cannot be in one."""
    report = Report("spec")
    struct = KINDS[NETWORKING, kind].spec_type
    made = walk_partial(struct, spec, report)
    assert not report.findings, report.findings
    raw = {
        "apiVersion": f"{NETWORKING}/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": dict(spec),
    }
    return ConfigObject(ObjectKey(NETWORKING, kind, NAMESPACE, name), made, raw)


@dataclass(frozen=True, slots=True)
class Seed:
    name: str
    bad: tuple[tuple[ConfigObject[Any], str], ...]
    """Objects, and the path of the field of each that is to blame; several, with spaces between them."""
    beside: tuple[ConfigObject[Any], ...] = ()
    """Good objects that it needs."""
    first: bool = False
    """Whether proxies connect when it is there already."""


def destination(host: str = "reviews") -> list[Any]:
    return [{"destination": {"host": host}}]


def virtual_service(*http: Spec, marker: str = "", **more: Any) -> ConfigObject[Any]:
    """``reviews``: these routes, then the service itself."""
    rest = {"name": marker, "route": destination()}
    return unchecked(
        "VirtualService", "reviews", {"hosts": ["reviews"], "http": [*http, rest], **more}
    )


def at_gateway(*http: Spec, marker: str = "", hosts: Sequence[str] = (EDGE,)) -> ConfigObject[Any]:
    rest = {"name": marker, "route": destination()}
    spec = {"hosts": list(hosts), "gateways": ["edge"], "http": [*http, rest]}
    return unchecked("VirtualService", "edge", spec)


def destination_rule(policy: Spec, **more: Any) -> ConfigObject[Any]:
    return unchecked(
        "DestinationRule", "reviews", {"host": "reviews", "trafficPolicy": policy, **more}
    )


def service(name: str, **changes: Any) -> ConfigObject[Any]:
    spec: Spec = {
        "hosts": [f"{name}.{NAMESPACE}.svc.cluster.local"],
        "location": "MESH_INTERNAL",
        "resolution": "STATIC",
        "ports": [{"number": 9080, "name": "http", "protocol": "HTTP"}],
        "endpoints": [{"address": "10.1.0.1"}],
        **changes,
    }
    return unchecked("ServiceEntry", name, spec)


def gateway(
    number: int = 80, hosts: Sequence[str] = ("*",), name: str = "edge"
) -> ConfigObject[Any]:
    server = {"port": {"number": number, "name": "http", "protocol": "HTTP"}, "hosts": list(hosts)}
    return unchecked("Gateway", name, {"selector": {"istio": "ingress"}, "servers": [server]})


def gateways(name: str, *servers: Spec) -> ConfigObject[Any]:
    spec = {"selector": {"istio": "ingress"}, "servers": list(servers)}
    return unchecked("Gateway", name, spec)


# ---- what is bad ----------------------------------------------------------------------------------------------------

LINE = "a\nb"

_MATCHES: Sequence[tuple[str, Spec, str]] = (
    ("path, unbalanced", {"uri": {"regex": "(("}}, "uri.regex"),
    ("path, too large", {"uri": {"regex": "(a{900}){900}"}}, "uri.regex"),
    ("path, class", {"uri": {"regex": "[z-a]"}}, "uri.regex"),
    ("path, look-ahead", {"uri": {"regex": "a(?=b)"}}, "uri.regex"),
    ("header", {"headers": {"end-user": {"regex": "*x"}}}, "headers.end-user.regex"),
    ("absent header", {"withoutHeaders": {"bot": {"regex": "(["}}}, "withoutHeaders.bot.regex"),
    ("query", {"queryParams": {"q": {"regex": "a**("}}}, "queryParams.q.regex"),
    ("authority", {"authority": {"regex": "(?P<n"}}, "authority.regex"),
    ("method", {"method": {"regex": "GET|)"}}, "method.regex"),
    ("scheme", {"scheme": {"regex": "x{2,1}"}}, "scheme.regex"),
    ("header's name", {"headers": {LINE: {"exact": "x"}}}, f"headers.{LINE}"),
    ("absent header's name", {"withoutHeaders": {LINE: {"exact": "x"}}}, f"withoutHeaders.{LINE}"),
    ("header without a name", {"headers": {"": {"exact": "x"}}}, "headers."),
    ("query without a name", {"queryParams": {"": {"exact": "x"}}}, "queryParams."),
    ("query's name", {"queryParams": {"q" * 2000: {"exact": "x"}}}, f"queryParams.{'q' * 2000}"),
)  # fmt: skip
_ROUTES: Sequence[tuple[str, Spec, str]] = (
    ("request header set, no name", {"headers": {"request": {"set": {"": "v"}}}}, "headers.request.set."),
    ("request header add, value", {"headers": {"request": {"add": {"x": LINE}}}}, "headers.request.add.x"),
    ("response header set, name", {"headers": {"response": {"set": {LINE: "v"}}}}, f"headers.response.set.{LINE}"),
    ("response header add, variable", {"headers": {"response": {"add": {"x": "%NO_SUCH%"}}}}, "headers.response.add.x"),
    ("request header removed, no name", {"headers": {"request": {"remove": [""]}}}, "headers.request.remove[0]"),
    ("response header removed, name", {"headers": {"response": {"remove": ["ok", LINE]}}}, "headers.response.remove[1]"),
    ("rewritten path", {"rewrite": {"uri": "/x\n"}}, "rewrite.uri"),
    ("rewritten authority", {"rewrite": {"authority": LINE}}, "rewrite.authority"),
    ("retry, status", {"retries": {"attempts": 1, "retryOn": "gateway-error,99999999999"}}, "retries.retryOn"),
    ("retry, negative time", {"retries": {"attempts": 1, "perTryTimeout": "-1s"}}, "retries.perTryTimeout"),
    ("retry, negative attempts", {"retries": {"attempts": -1}}, "retries.attempts"),
    ("timeout, negative", {"timeout": "-2s"}, "timeout"),
    ("delay, negative", {"fault": {"delay": {"fixedDelay": "-1s", "percentage": {"value": 1}}}}, "fault.delay.fixedDelay"),
    ("abort, status too large", {"fault": {"abort": {"httpStatus": 600, "percentage": {"value": 1}}}}, "fault.abort.httpStatus"),
    ("host set as a header", {"headers": {"request": {"set": {"host": LINE}}}}, "headers.request.set.host"),
    ("too many headers", {"headers": {"request": {"add": {f"x-{number}": "v" for number in range(1001)}}}}, "headers.request.add"),
    ("abort, status", {"fault": {"abort": {"httpStatus": 42, "percentage": {"value": 1}}}}, "fault.abort.httpStatus"),
    ("abort, negative share", {"fault": {"abort": {"httpStatus": 503, "percentage": {"value": -3}}}}, "fault.abort.percentage.value"),
)  # fmt: skip
_ANSWERS: Sequence[tuple[str, Spec, str]] = (
    ("redirect, path", {"redirect": {"uri": "/a\r\nb"}}, "redirect.uri"),
    ("redirect, authority", {"redirect": {"authority": LINE}}, "redirect.authority"),
    ("direct response, status", {"directResponse": {"status": 99}}, "directResponse.status"),
    ("direct response, status too large", {"directResponse": {"status": 600}}, "directResponse.status"),
    ("redirect, prefix", {"redirect": {"prefixRewrite": "/a\nb"}}, "redirect.prefixRewrite"),
    ("direct response, body", {"directResponse": {"status": 200, "body": {"string": "x" * 1_050_000}}}, "directResponse.body.string"),
)  # fmt: skip
_POLICIES: Sequence[tuple[str, Spec, str]] = (
    ("outlier, share", {"outlierDetection": {"maxEjectionPercent": 300}}, "outlierDetection.maxEjectionPercent"),
    ("outlier, no interval", {"outlierDetection": {"interval": "-1s"}}, "outlierDetection.interval"),
    ("outlier, interval of nothing", {"outlierDetection": {"interval": "0s"}}, "outlierDetection.interval"),
    ("outlier, ejected for nothing", {"outlierDetection": {"baseEjectionTime": "0s"}}, "outlierDetection.baseEjectionTime"),
    ("outlier, negative time", {"outlierDetection": {"baseEjectionTime": "-3s"}}, "outlierDetection.baseEjectionTime"),
    ("connect timeout", {"connectionPool": {"tcp": {"connectTimeout": "-1s"}}}, "connectionPool.tcp.connectTimeout"),
    ("connections", {"connectionPool": {"tcp": {"maxConnections": -5}}}, "connectionPool.tcp.maxConnections"),
    ("pending requests", {"connectionPool": {"http": {"http1MaxPendingRequests": -1}}}, "connectionPool.http.http1MaxPendingRequests"),
    ("retries", {"connectionPool": {"http": {"maxRetries": -1}}}, "connectionPool.http.maxRetries"),
    ("requests a connection", {"connectionPool": {"http": {"maxRequestsPerConnection": -1}}}, "connectionPool.http.maxRequestsPerConnection"),
    ("of one port", {"portLevelSettings": [{"port": {"number": 9080}, "outlierDetection": {"maxEjectionPercent": 101}}]}, "portLevelSettings[0].outlierDetection.maxEjectionPercent"),
)  # fmt: skip
_TCP = {"ports": [{"number": 3306, "name": "tcp", "protocol": "TCP"}], "addresses": ["10.0.0.9"]}
_DNS = {"resolution": "DNS", "location": "MESH_EXTERNAL"}
_ENTRIES: Sequence[tuple[str, Spec, str]] = (
    ("endpoint, no IP address", {"endpoints": [{"address": "10.1.0.1"}, {"address": "not-an-ip"}]}, "endpoints[1].address"),
    ("endpoint, port", {"endpoints": [{"address": "10.1.0.1", "ports": {"http": 70000}}]}, "endpoints[0].ports.http"),
    ("target port", {"ports": [{"number": 9080, "name": "http", "protocol": "HTTP", "targetPort": 70000}]}, "ports[0].targetPort"),
    ("address", {**_TCP, "addresses": ["nowhere"]}, "addresses[0]"),
    ("host", {"hosts": [f"odd\n.{NAMESPACE}.svc.cluster.local"]}, "hosts[0]"),
    ("two endpoints for one name", {**_DNS, "resolution": "DNS_ROUND_ROBIN", "endpoints": [{"address": "a.example.com"}, {"address": "b.example.com"}]}, "endpoints"),
    ("endpoint by DNS, no name", {**_DNS, "endpoints": [{"address": ""}]}, "endpoints[0].address"),
    ("endpoint by DNS, port", {**_DNS, "endpoints": [{"address": "a.example.com", "ports": {"http": 99999}}]}, "endpoints[0].ports.http"),
    ("weights", {"endpoints": [{"address": "10.1.0.1", "weight": 4294967295}, {"address": "10.1.0.2", "weight": 5}]}, "endpoints[0].weight"),
    ("endpoint, port of nothing", {"endpoints": [{"address": "10.1.0.1", "ports": {"http": 4294967295}}]}, "endpoints[0].ports.http"),
    ("host as SNI", {"hosts": [f"{'h' * 60}.{'h' * 60}.{'h' * 60}.{'h' * 60}.{NAMESPACE}.svc.cluster.local"]}, "hosts[0]"),
    ("port", {**_TCP, "ports": [{"number": 70000, "name": "tcp", "protocol": "TCP"}]}, "ports[0].number"),
)  # fmt: skip


def _rules() -> list[Seed]:
    made = [
        Seed(f"rule: {name}", ((destination_rule(policy), f"spec.trafficPolicy.{path}"),))
        for name, policy, path in _POLICIES
    ]
    subsets = [
        {"name": "good", "labels": {"version": "v1"}},
        {
            "name": "bad",
            "labels": {"version": "v2"},
            "trafficPolicy": {"outlierDetection": {"maxEjectionPercent": 200}},
        },
    ]
    path = "spec.subsets[1].trafficPolicy.outlierDetection.maxEjectionPercent"
    made.append(Seed("rule: of one subset", ((destination_rule({}, subsets=subsets), path),)))
    long = [{"name": "s" * 300, "labels": {"version": "v1"}}]
    made.append(
        Seed(
            "rule: a subset's name as SNI",
            ((destination_rule({"tls": {"mode": "ISTIO_MUTUAL"}}, subsets=long), "spec.subsets[0].name"),),
        )
    )  # fmt: skip
    return made


def _routes() -> list[Seed]:
    made = []
    for name, match, path in _MATCHES:
        http = {"match": [{"uri": {"prefix": "/fine"}}, match], "route": destination()}
        made.append(
            Seed(f"match: {name}", ((virtual_service(http), f"spec.http[0].match[1].{path}"),))
        )
    for name, part, path in (*_ROUTES, *_ANSWERS):
        http = {"match": [{"uri": {"prefix": "/x"}}], **part}
        if not {"redirect", "directResponse"} & part.keys():
            http["route"] = destination()
        made.append(Seed(f"route: {name}", ((virtual_service(http), f"spec.http[0].{path}"),)))
    return made


def _edge() -> list[Seed]:
    def at(part: Spec, path: str) -> tuple[ConfigObject[Any], str]:
        http = {"match": [{"uri": {"prefix": "/x"}}], "route": destination(), **part}
        return at_gateway(http), f"spec.http[0].{path}"

    regex = {"match": [{"uri": {"regex": "(("}}]}
    server = {
        "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
        "hosts": ["good.example.com"],
    }
    mutual = {"mode": "ISTIO_MUTUAL"}
    plain = {
        "port": {"number": 80, "name": "http", "protocol": "HTTP"},
        "hosts": ["b\nd.example.com"],
    }

    def other(**changes: Any) -> ConfigObject[Any]:
        good = {**server, "tls": mutual}
        bad = {**good, "hosts": ["bad.example.com"], **changes}
        return gateways("other", good, bad)

    return [
        Seed("gateway: path", (at(regex, "match[0].uri.regex"),)),
        Seed("gateway: retries", (at({"retries": {"attempts": -1}}, "retries.attempts"),)),
        Seed("gateway: timeout", (at({"timeout": "-1s"}, "timeout"),)),
        Seed("gateway: header", (at({"headers": {"response": {"set": {"x": LINE}}}}, "headers.response.set.x"),)),
        Seed("gateway: host", ((at_gateway(hosts=[EDGE, "b\nc.example.com"]), "spec.hosts[1]"),)),
        Seed("gateway: port", ((gateway(70000, name="other"), "spec.servers[0].port.number"),)),
        Seed("gateway: partial wildcard", ((other(hosts=["b*d.example.com"]), "spec.servers[1].hosts[0]"),)),
        Seed("gateway: certificate's hash", ((other(tls={**mutual, "verifyCertificateHash": ["zz"]}), "spec.servers[1].tls.verifyCertificateHash[0]"),)),
        Seed("gateway: certificate's key", ((other(tls={**mutual, "verifyCertificateSpki": ["zz"]}), "spec.servers[1].tls.verifyCertificateSpki[0]"),)),
        Seed("gateway: redirected host", ((gateways("other", {**plain, "tls": {"httpsRedirect": True}}), "spec.servers[0].hosts[0]"),)),
    ]  # fmt: skip


def _several() -> list[Seed]:
    regex = virtual_service({"match": [{"uri": {"regex": "(("}}], "route": destination()})
    rule = destination_rule({"outlierDetection": {"maxEjectionPercent": 300}})
    entry = service("odd", endpoints=[{"address": "not-an-ip"}])
    negative = destination_rule({"connectionPool": {"tcp": {"maxConnections": -5}}})
    routes = (regex, "spec.http[0].match[0].uri.regex")
    twice = [
        {"match": [{"uri": {"regex": pattern}}], "route": destination()}
        for pattern in ("((", "/fine", "[z-a]")
    ]
    selecting = service("picked", endpoints=[], workloadSelector={"labels": {"app": "picked"}})
    picked = {"labels": {"app": "picked"}}
    workloads = [
        unchecked("WorkloadEntry", f"w{n}", {"address": address, **picked})
        for n, address in enumerate(("10.4.0.1", "nowhere"))
    ]
    return [
        Seed("two fields of one object", ((virtual_service(*twice), "spec.http[0].match[0].uri.regex spec.http[2].match[0].uri.regex"),)),
        Seed("workload: address", ((workloads[1], "spec.address"),), beside=(selecting, workloads[0])),
        Seed("three at once", (routes, (rule, "spec.trafficPolicy.outlierDetection.maxEjectionPercent"), (entry, "spec.endpoints[0].address"))),
        Seed("two of one host", (routes, (negative, "spec.trafficPolicy.connectionPool.tcp.maxConnections"))),
    ]  # fmt: skip


def seeds() -> list[Seed]:
    """All of them; every fifth is there before proxies connect."""
    entries = [
        Seed(f"service: {name}", ((service("odd", **changes), f"spec.{path}"),))
        for name, changes, path in _ENTRIES
    ]
    made = [*_routes(), *_rules(), *entries, *_edge(), *_several()]
    return [replace(seed, first=number % 5 == 4) for number, seed in enumerate(made)]


AMONG_MANY = (
    "match: path, unbalanced",
    "rule: outlier, share",
    "service: endpoint, no IP address",
    "gateway: path",
    "gateway: retries",
)
"""Those that are tried among a thousand good services too."""


def crowd(count: int) -> list[ConfigObject[Any]]:
    """Good services, each with a VirtualService: of sidecars, of a gateway, in turn."""
    made = []
    for number in range(count):
        name = f"s{number}"
        place = f"10.3.{number // 250}.{number % 250 + 1}"
        made.append(service(name, endpoints=[{"address": place}]))
        http = [
            {"match": [{"uri": {"prefix": "/a"}}], "route": destination(name)},
            {"route": destination(name)},
        ]
        spec: Spec = {"hosts": [name], "http": http}
        if number % 2:
            spec = {"hosts": [f"{name}.example.com"], "gateways": ["edge"], "http": http}
        made.append(unchecked("VirtualService", name, spec))
    return made
