"""Load assignments: who is behind a cluster now. Source: Envoy config/endpoint/v3/endpoint.proto."""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.core.v3 import base_pb2, health_check_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from google.protobuf import struct_pb2, wrappers_pb2

from services.pilot.envoy.common import address
from services.pilot.model.service import Endpoint, Port


def load_assignment(
    name: str, port: Port, endpoints: Iterable[Endpoint]
) -> endpoint_pb2.ClusterLoadAssignment:
    """Endpoints by locality, both in a fixed order: equal sets are equal bytes."""
    by_locality: dict[str, list[Endpoint]] = {}
    for endpoint in sorted(endpoints, key=_order):
        by_locality.setdefault(endpoint.locality, []).append(endpoint)
    groups = []
    for place, members in sorted(by_locality.items()):
        region, _, rest = place.partition("/")
        zone, _, sub_zone = rest.partition("/")
        groups.append(
            endpoint_components_pb2.LocalityLbEndpoints(
                locality=base_pb2.Locality(region=region, zone=zone, sub_zone=sub_zone),
                load_balancing_weight=wrappers_pb2.UInt32Value(
                    value=sum(max(e.weight, 1) for e in members)
                ),
                lb_endpoints=[_endpoint(endpoint, port) for endpoint in members],
            )
        )
    return endpoint_pb2.ClusterLoadAssignment(cluster_name=name, endpoints=groups)


def _order(endpoint: Endpoint) -> tuple[str, str, str]:
    return (endpoint.locality, endpoint.address, endpoint.workload)


def _endpoint(endpoint: Endpoint, port: Port) -> endpoint_components_pb2.LbEndpoint:
    made = endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(
            address=address(endpoint.address, endpoint.ports.get(port.name, port.target))
        ),
        load_balancing_weight=wrappers_pb2.UInt32Value(value=max(endpoint.weight, 1)),
        health_status=health_check_pb2.HEALTHY if endpoint.healthy else health_check_pb2.UNHEALTHY,
    )
    if endpoint.mtls:
        value = struct_pb2.Struct(fields={"tlsMode": struct_pb2.Value(string_value="istio")})
        made.metadata.filter_metadata["envoy.transport_socket_match"].CopyFrom(value)
    return made
