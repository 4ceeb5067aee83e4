"""What the scratch Envoy is given, and what a resource becomes before it is asked about. Pure.

A resource keeps its content and loses its place: listeners bind no port, routes and endpoints go to a listener and a
cluster of the scratch's own, so that nothing but their content decides.
"""

from __future__ import annotations

import json
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)

from services.pilot.envoy import tls
from services.pilot.envoy.common import SDS_CLUSTER, address, ads, pack
from windward.xds import resource as xds
from windward.xds.resource import Resource, bytes_field

PROBE = "windward-probe"
ASKABLE = frozenset({xds.CLUSTER, xds.ENDPOINT, xds.LISTENER, xds.ROUTE})
"""Types that stand alone. Others are asked about as part of what refers to them, or not at all."""


def probe_of(resource: Resource) -> Resource:
    """The resource as the scratch is asked about it."""
    match resource.type_url:
        case xds.ROUTE:
            name = bytes_field(route_pb2.RouteConfiguration.NAME_FIELD_NUMBER, PROBE.encode())
            return Resource(xds.ROUTE, PROBE, resource.body + name)
        case xds.ENDPOINT:
            number = endpoint_pb2.ClusterLoadAssignment.CLUSTER_NAME_FIELD_NUMBER
            return Resource(
                xds.ENDPOINT, PROBE, resource.body + bytes_field(number, PROBE.encode())
            )
        case xds.LISTENER:
            listener = listener_pb2.Listener.FromString(resource.body)
            listener.bind_to_port.value = False
            # Envoy 1.40 ends with SIGSEGV over a transparent listener that has no socket of its own.
            listener.ClearField("transparent")
            return Resource(xds.LISTENER, resource.name, listener.SerializeToString())
    return resource


def own_cluster() -> Resource:
    """Where endpoints are tried. It wants the mesh's secrets, so that those are there for every cluster that is tried."""
    message = cluster_pb2.Cluster(
        name=PROBE,
        type=cluster_pb2.Cluster.EDS,
        eds_cluster_config=cluster_pb2.Cluster.EdsClusterConfig(
            eds_config=ads(), service_name=PROBE
        ),
        transport_socket=tls.upstream(PROBE, (), ()),
    )
    return Resource(xds.CLUSTER, PROBE, message.SerializeToString())


def own_listener() -> Resource:
    """Where routes are tried."""
    manager = hcm_pb2.HttpConnectionManager(
        stat_prefix=PROBE,
        rds=hcm_pb2.Rds(config_source=ads(), route_config_name=PROBE),
        http_filters=[
            hcm_pb2.HttpFilter(
                name="envoy.filters.http.router", typed_config=pack(router_pb2.Router())
            )
        ],
    )
    chain = listener_components_pb2.FilterChain(
        filters=[
            listener_components_pb2.Filter(
                name="envoy.filters.network.http_connection_manager", typed_config=pack(manager)
            )
        ]
    )
    message = listener_pb2.Listener(
        name=PROBE, address=address("127.0.0.1", 1), filter_chains=[chain]
    )
    message.bind_to_port.value = False
    return Resource(xds.LISTENER, PROBE, message.SerializeToString())


def empty(type_url: str, name: str) -> Resource | None:
    """An answer to what a tried resource refers to, so that Envoy need not wait for it; None where none is needed."""
    if type_url == xds.ENDPOINT:
        assignment = endpoint_pb2.ClusterLoadAssignment(cluster_name=name)
        return Resource(type_url, name, assignment.SerializeToString())
    if type_url == xds.ROUTE:
        routes = route_pb2.RouteConfiguration(name=name)
        return Resource(type_url, name, routes.SerializeToString())
    return None


def bootstrap(socket: str) -> str:
    """The scratch's bootstrap, as JSON: ADS over a unix socket, no admin port, no traffic."""
    http2 = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }

    def at(name: str, path: str) -> dict[str, Any]:
        place = {"endpoint": {"address": {"pipe": {"path": path}}}}
        return {
            "name": name,
            "type": "STATIC",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
            },
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [place]}]},
        }

    by_ads = {"ads": {}, "resource_api_version": "V3"}
    return json.dumps(
        {
            "node": {"id": PROBE, "cluster": PROBE},
            "dynamic_resources": {
                "ads_config": {
                    "api_type": "DELTA_GRPC",
                    "transport_api_version": "V3",
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
                },
                "cds_config": by_ads,
                "lds_config": by_ads,
            },
            "static_resources": {"clusters": [at("xds", socket), at(SDS_CLUSTER, socket)]},
        }
    )
