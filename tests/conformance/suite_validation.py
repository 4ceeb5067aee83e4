"""pilot/validation: tables of Istio's validators, each message wrapped into the smallest object that holds it.

A table is a file named after an upstream test; a row is ``{input, expect}`` with messages in protobuf's JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conformance.cases import NOT_IMPLEMENTED, Result, index
from tests.conformance.verdict import GROUPS, judge

ROUTE = {"destination": {"host": "a.example.com"}}
WHOLE = frozenset(
    {
        "VirtualService",
        "DestinationRule",
        "Gateway",
        "ServiceEntry",
        "WorkloadEntry",
        "WorkloadGroup",
        "PeerAuthentication",
        "Sidecar",
    }
)
NAMESPACES = {"TestValidateSidecar": "bar"}
"""Where a table's objects live upstream, if its rows depend on it."""
NUMBERS = frozenset({"minimumRingSize", "tableSize", "minClusterSize"})


def run(folder: Path) -> Result:
    result = Result()
    tables: dict[str, Any] = {}
    for case, entry in index(folder, "validation"):
        file = entry["input"]
        if file not in tables:
            tables[file] = json.loads((folder / "pilot" / file).read_text())
        result.count(case, check(Path(file).stem, tables[file][entry["item"]]))
    return result


def check(table: str, row: dict[str, Any]) -> str:
    made = wrap(table, row)
    if made is None:
        return NOT_IMPLEMENTED
    expect = row["expect"]
    if "expected" in expect:
        return judge(made, valid=expect["expected"] is None, warning=None)
    warning = bool(expect["warning"]) if "warning" in expect else None
    return judge(made, valid=expect["valid"], warning=warning)


def wrap(table: str, row: dict[str, Any]) -> dict[str, Any] | None:
    """The object to judge; None for a table that has no counterpart here."""
    given = row["input"]
    by_name = BY_TABLE.get(table)
    if by_name is not None:
        return by_name(row)
    message = next(
        (
            given[key]
            for key in ("in", "route", "redirect", "directResponse", "destination")
            if key in given
        ),
        None,
    )
    if not isinstance(message, dict) or "@message" not in message:
        absent = ABSENT.get(table)
        return absent() if message is None and absent else None
    kind = message["@message"].removeprefix("istio.networking.v1alpha3.").rsplit("v1beta1.", 1)[-1]
    value = plain(message["value"])
    if table == "TestValidateGateway" and kind != "Gateway":
        return networking("Gateway", value)
    if kind in WHOLE:
        group = "security" if kind == "PeerAuthentication" else "networking"
        made = thing(group, kind, value, given.get("configName", "x"))
        made["metadata"]["namespace"] = NAMESPACES.get(table, "default")
        made["metadata"]["labels"] = given.get("labels") or {}
        return made
    wrapper = BY_MESSAGE.get(kind)
    return wrapper(value) if wrapper else None


def plain(value: Any) -> Any:
    """Protobuf's JSON as a user writes it: 64-bit numbers are numbers, an absent list element an empty one."""
    if isinstance(value, dict):
        return {
            key: int(item) if key in NUMBERS and isinstance(item, str) else plain(item)
            for key, item in value.items()
        }
    return [plain(item) for item in value] if isinstance(value, list) else value


def thing(group: str, kind: str, spec: Any, name: str = "x") -> dict[str, Any]:
    return {
        "apiVersion": GROUPS[group],
        "kind": kind,
        "metadata": {"name": name or "x", "namespace": "default"},
        "spec": spec,
    }


def networking(kind: str, spec: Any) -> dict[str, Any]:
    return thing("networking", kind, spec)


def http(**fields: Any) -> dict[str, Any]:
    return networking("VirtualService", {"hosts": ["a.example.com"], "http": [fields]})


def routed(**fields: Any) -> dict[str, Any]:
    return http(route=[ROUTE], **fields)


def policy(**fields: Any) -> dict[str, Any]:
    return networking("DestinationRule", {"host": "a.example.com", "trafficPolicy": fields})


def gateway(server: Any) -> dict[str, Any]:
    return networking("Gateway", {"servers": [server]})


def header(name: str) -> dict[str, Any]:
    return routed(match=[{"headers": {name: {"exact": "x"}}}])


def set_header(name: str, value: str) -> dict[str, Any]:
    return routed(headers={"request": {"set": {name: value}}})


def port_of(row: dict[str, Any]) -> dict[str, Any]:
    port = plain(row["input"]["in"]["value"])
    return gateway(
        {
            "port": port,
            "hosts": ["a.example.com"],
            "bind": row["input"].get("bind", ""),
        }
    )


def export_to(row: dict[str, Any]) -> dict[str, Any]:
    given = row["input"]
    names = given.get("exportTo") or []
    if given.get("isServiceEntry"):
        spec = {
            "hosts": ["a.example.com"],
            "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
            "resolution": "DNS",
            "exportTo": names,
        }
        made = networking("ServiceEntry", spec)
    else:
        spec = {"host": "a.example.com", "exportTo": names}
        if given.get("isDestinationRuleWithSelector"):
            spec["workloadSelector"] = {"matchLabels": {"app": "a"}}
        made = networking("DestinationRule", spec)
    made["metadata"]["namespace"] = given.get("namespace") or "default"
    return made


def tcp_routes(row: dict[str, Any]) -> dict[str, Any]:
    routes = [plain(item["value"]) for item in row["input"]["routes"] or []]
    return networking("VirtualService", {"hosts": ["a.example.com"], "tcp": [{"route": routes}]})


BY_TABLE: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "TestValidateHTTPHeaderName": lambda row: header(row["name"]),
    "TestStrictValidateHTTPHeaderName": lambda row: routed(
        headers={"request": {"remove": [row["name"]]}}
    ),
    "TestValidateHTTPHeaderValue": lambda row: set_header("x-header", row["input"]["input"]),
    "TestValidateHTTPStatus": lambda row: routed(
        fault={"abort": {"httpStatus": row["input"]["in"], "percentage": {"value": 1}}}
    ),
    "TestValidatePortName": lambda row: gateway(
        {
            "port": {"number": 80, "protocol": "HTTP", "name": row["name"]},
            "hosts": ["a.example.com"],
        }
    ),
    "TestValidateServerPort": port_of,
    "TestValidateRouteDestination": tcp_routes,
    "Test_validateExportTo": export_to,
}
ABSENT: dict[str, Callable[[], dict[str, Any]]] = {
    "TestValidateHTTPRewrite": routed,
    "TestValidateHTTPRetry": routed,
    "TestValidateHTTPRedirect": routed,
    "TestValidateHTTPDirectResponse": routed,
    "TestValidateHTTPFaultInjectionAbort": routed,
    "TestValidateHTTPFaultInjectionDelay": routed,
    "TestValidateCORSPolicy": routed,
    "TestValidateTlsOptions": lambda: gateway(
        {"port": {"number": 80, "protocol": "HTTP", "name": "x"}, "hosts": ["a.example.com"]}
    ),
}
BY_MESSAGE: dict[str, Callable[[Any], dict[str, Any]]] = {
    "HTTPRoute": lambda value: http(**value),
    "HTTPRewrite": lambda value: routed(rewrite=value),
    "RegexRewrite": lambda value: routed(rewrite={"uriRegexRewrite": value}),
    "HTTPRedirect": lambda value: http(redirect=value),
    "HTTPDirectResponse": lambda value: http(directResponse=value),
    "HTTPRetry": lambda value: routed(retries=value),
    "HTTPFaultInjection.Abort": lambda value: routed(fault={"abort": value}),
    "HTTPFaultInjection.Delay": lambda value: routed(fault={"delay": value}),
    "CorsPolicy": lambda value: routed(corsPolicy=value),
    "Destination": lambda value: http(route=[{"destination": value}]),
    "ConnectionPoolSettings": lambda value: policy(connectionPool=value),
    "LoadBalancerSettings": lambda value: policy(loadBalancer=value),
    "OutlierDetection": lambda value: policy(outlierDetection=value),
    "TrafficPolicy": lambda value: policy(**value),
    "Server": gateway,
    "ServerTLSSettings": lambda value: gateway(
        {
            "port": {"number": 443, "protocol": "HTTPS", "name": "https"},
            "hosts": ["a.example.com"],
            "tls": value,
        }
    ),
}
