"""``windward proxy ...``: which Envoy has what, and what of it came from which object."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

from windward.api.config.v1 import config_pb2
from windward.cli.connect import DEADLINE_S, pilot
from windward.cli.debug import read
from windward.cli.failures import UserError
from windward.cli.output import print_data, print_table, say, say_unanswered
from windward.xds import resource as xds

COLUMNS: Final = (
    ("CDS", xds.CLUSTER),
    ("EDS", xds.ENDPOINT),
    ("LDS", xds.LISTENER),
    ("RDS", xds.ROUTE),
    ("ECDS", xds.EXTENSION),
)
SOME: Final = (("SDS", xds.SECRET), ("NDS", xds.NAME_TABLE))
"""Columns of what gateways alone, and workloads whose DNS is captured, ask for: there if anybody does."""
TYPES: Final = {
    "clusters": xds.CLUSTER,
    "endpoints": xds.ENDPOINT,
    "listeners": xds.LISTENER,
    "routes": xds.ROUTE,
    "secrets": xds.SECRET,
    "extensions": xds.EXTENSION,
}
MODULES: Final = (
    "envoy.config.cluster.v3.cluster_pb2",
    "envoy.config.endpoint.v3.endpoint_pb2",
    "envoy.config.listener.v3.listener_pb2",
    "envoy.config.route.v3.route_pb2",
    "envoy.config.core.v3.extension_pb2",
    "envoy.extensions.access_loggers.grpc.v3.als_pb2",
    "envoy.extensions.filters.http.ext_authz.v3.ext_authz_pb2",
    "envoy.extensions.filters.http.fault.v3.fault_pb2",
    "envoy.extensions.filters.http.router.v3.router_pb2",
    "envoy.extensions.filters.listener.http_inspector.v3.http_inspector_pb2",
    "envoy.extensions.filters.listener.original_dst.v3.original_dst_pb2",
    "envoy.extensions.filters.listener.original_src.v3.original_src_pb2",
    "envoy.extensions.filters.listener.tls_inspector.v3.tls_inspector_pb2",
    "envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2",
    "envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2",
    "envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2",
    "envoy.extensions.transport_sockets.raw_buffer.v3.raw_buffer_pb2",
    "envoy.extensions.transport_sockets.tls.v3.tls_pb2",
    "envoy.extensions.upstreams.http.v3.http_protocol_options_pb2",
)
"""Messages that may stand inside an Any of a resource; imported so that they print as JSON."""


def status(output: str, context: str | None) -> None:
    with pilot(context) as stub:
        found = stub.ListProxies(config_pb2.ListProxiesRequest(), timeout=DEADLINE_S)
    proxies = sorted(found.proxies, key=lambda proxy: str(proxy.id))
    say_unanswered(found.unanswered)
    if output != "table":
        print_data([_status_data(proxy) for proxy in proxies], output)
        return
    columns = [*COLUMNS, *(one for one in SOME if any(one[1] in proxy.types for proxy in proxies))]
    rows = [
        (
            proxy.id.split("~")[2] if proxy.id.count("~") == 3 else proxy.id,
            proxy.address,
            *(_state(proxy, url) for _, url in columns),
            proxy.identity,
        )
        for proxy in proxies
    ]
    print_table(("PROXY", "ADDRESS", *(name for name, _ in columns), "IDENTITY"), rows)
    _say_how_long(read("status", {}, 0, context).rows)
    if any(kind.last_error for proxy in proxies for kind in proxy.types.values()):
        _say_refusals(proxies, read("refusals", {}, 0, context).rows)


def _say_how_long(pilots: list[dict[str, Any]]) -> None:
    """From a change to the ACK of it, over the last pushes of each Pilot that answers."""
    for row in pilots:
        pushes = row["pushes"]
        if pushes["p50Ms"] is not None:
            took = f"p50 {pushes['p50Ms']:.0f} ms, p99 {pushes['p99Ms']:.0f} ms"
            say(f"from change to ACK, last pushes of {row['pilot']}: {took}")


def _say_refusals(proxies: list[config_pb2.ProxyStatus], refusals: list[dict[str, Any]]) -> None:
    """What each proxy has refused last: the object and the field to blame where Pilot knows them, Envoy's words anyway."""
    newest = sorted(refusals, key=lambda item: str(item["at"]))
    for proxy in proxies:
        for url, kind in sorted(proxy.types.items()):
            if kind.last_error:
                sys.stderr.write(f"{proxy.id}: {url.rsplit('.', 1)[-1]}: {kind.last_error}\n")
        mine = [item for item in newest if {proxy.identity, proxy.id} & set(item["by"])]
        for blame in mine[-1]["blames"] if mine else ():
            where = " ".join(filter(None, (blame["object"], blame["path"])))
            sys.stderr.write(f"{proxy.id}: to blame: {where}: {blame['words']}\n")


def _state(proxy: config_pb2.ProxyStatus, url: str) -> str:
    return proxy.types[url].state if url in proxy.types else "-"


def _status_data(proxy: config_pb2.ProxyStatus) -> dict[str, Any]:
    types = {
        url: {
            "state": kind.state,
            "sentRevision": kind.sent_revision,
            "ackedRevision": kind.acked_revision,
            "resources": kind.resources,
            "lastError": kind.last_error,
        }
        for url, kind in sorted(proxy.types.items())
    }
    return {
        "id": proxy.id,
        "identity": proxy.identity,
        "address": proxy.address,
        "pilot": proxy.pilot,
        "connectedAt": proxy.connected_at.ToJsonString(),
        "types": types,
    }


def config(name: str, kind: str | None, output: str, context: str | None) -> None:
    if kind is not None and kind not in TYPES:
        raise UserError(f"there is no resource type {kind!r}: one of {', '.join(TYPES)}")
    urls = [TYPES[kind]] if kind else []
    request = config_pb2.GetProxyConfigRequest(proxy=name, type_urls=urls)
    with pilot(context) as stub:
        resources = stub.GetProxyConfig(request, timeout=DEADLINE_S).resources
    if output == "table":
        print_table(
            ("TYPE", "NAME", "VERSION", "STATE", "BUILT FROM"),
            [
                (
                    item.type_url.rsplit(".", 1)[-1],
                    item.name,
                    item.version,
                    "acked" if item.acked else "sent",
                    ", ".join(
                        f"{origin.kind}/{origin.namespace}/{origin.name}" for origin in item.origins
                    )
                    or "-",
                )
                for item in resources
            ],
        )
        return
    print_data([_resource_data(item) for item in resources], output)


def _resource_data(item: config_pb2.GetProxyConfigResponse.Resource) -> dict[str, Any]:
    from google.protobuf import json_format, symbol_database

    for module in MODULES:
        importlib.import_module(module)
    message_type = symbol_database.Default().GetSymbol(item.type_url.rpartition("/")[2])
    body = json_format.MessageToDict(message_type.FromString(item.body))
    origins = [f"{origin.kind}/{origin.namespace}/{origin.name}" for origin in item.origins]
    return {
        "type": item.type_url,
        "name": item.name,
        "version": item.version,
        "acked": item.acked,
        "origins": origins,
        "body": body,
    }
