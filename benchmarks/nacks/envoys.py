"""Real Envoys as proxies, lean ones: no agent beside them, ADS and secrets over a unix socket, an admin socket to ask them by."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from google.protobuf import json_format

from services.pilot.envoy.common import SDS_CLUSTER
from windward.xds import resource as xds

MESSAGES: Mapping[str, Any] = {
    xds.CLUSTER: cluster_pb2.Cluster,
    xds.LISTENER: listener_pb2.Listener,
    xds.ROUTE: route_pb2.RouteConfiguration,
}
API = {False: "DELTA_GRPC", True: "GRPC"}
NODES = {
    "sidecar": ("sidecar~10.9.9.1~caller.shop~shop.svc.cluster.local", {}),
    "router": (
        "router~10.9.9.2~edge.shop~shop.svc.cluster.local",
        {"LABELS": {"istio": "ingress"}},
    ),
}


def bootstrap(kind: str, socket: Path, admin: Path, *, sotw: bool) -> str:
    node, metadata = NODES[kind]
    by_ads = {"ads": {}, "resource_api_version": "V3"}
    return json.dumps(
        {
            "node": {"id": node, "cluster": kind, "metadata": metadata},
            "admin": {"address": {"pipe": {"path": str(admin)}}},
            "dynamic_resources": {
                "ads_config": {
                    "api_type": API[sotw],
                    "transport_api_version": "V3",
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
                },
                "cds_config": by_ads,
                "lds_config": by_ads,
            },
            "static_resources": {
                "clusters": [_at(name, socket) for name in ("xds-grpc", SDS_CLUSTER)]
            },
        }
    )


def _at(name: str, socket: Path) -> dict[str, Any]:
    options = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    place = {"endpoint": {"address": {"pipe": {"path": str(socket)}}}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
        },
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [place]}]},
    }


class LeanEnvoy:
    """One process, in a network namespace of its own: it binds the ports that it is told to, and nobody is in its way."""

    def __init__(self, binary: str, kind: str, folder: Path, *, sotw: bool) -> None:
        self.node = NODES[kind][0]
        self._admin = folder / f"{kind}.admin"
        config = bootstrap(kind, folder / "ads", self._admin, sotw=sotw)
        self._command = [
            shutil.which("setpriv") or "setpriv", "--pdeathsig", "KILL", "unshare", "--net",
            binary, "--config-yaml", config, "--disable-hot-restart", "--concurrency", "1", "-l", "off",
        ]  # fmt: skip
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        none = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=none, stdout=none, stderr=none
        )

    async def stop(self) -> None:
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        await self._process.wait()
        self._process = None
        self._admin.unlink(missing_ok=True)

    async def in_force(self) -> dict[tuple[str, str], Any]:
        """(type URL, name) -> the message that Envoy has in force, from its config dump."""
        connector = aiohttp.UnixConnector(path=str(self._admin))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get("http://envoy/config_dump") as response,
        ):
            dump = json.loads(await response.read())
        return {
            (url, raw["name"]): json_format.ParseDict(_plain(raw), MESSAGES[url]())
            for section in dump["configs"]
            for url, raw in _resources(section)
        }


def _resources(section: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for item in section.get("dynamic_active_clusters", ()):
        yield xds.CLUSTER, item["cluster"]
    for item in section.get("dynamic_listeners", ()):
        if "active_state" in item:
            yield xds.LISTENER, item["active_state"]["listener"]
    for item in section.get("dynamic_route_configs", ()):
        yield xds.ROUTE, item["route_config"]


def _plain(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if key != "@type"}
