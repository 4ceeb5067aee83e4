"""Load assignments: who is behind a cluster now. Source: Envoy config/endpoint/v3/endpoint.proto.

endpoints, what was spliced before -> bytes of each endpoint, made once -> joined by locality
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from envoy.config.core.v3 import base_pb2, health_check_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from google.protobuf import struct_pb2, wrappers_pb2

from services.pilot.envoy.common import address
from services.pilot.model.service import Endpoint, Port
from windward.xds import resource as xds
from windward.xds.resource import Origin, Resource, bytes_field


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


@dataclass(frozen=True, slots=True)
class Spliced:
    """A load assignment in parts; each endpoint's bytes serve the next one too."""

    resource: Resource
    parts: Mapping[tuple[str, str, str], tuple[Endpoint, bytes]] = field(compare=False, repr=False)
    """Namespace, workload and address -> the endpoint as it was, and its ``LocalityLbEndpoints.lb_endpoints``."""


def spliced_assignment(
    name: str,
    port: Port,
    endpoints: Iterable[Endpoint],
    origins: tuple[Origin, ...] = (),
    before: Spliced | None = None,
) -> Spliced:
    """The bytes that ``load_assignment`` would have, joined from those of its endpoints.

    ``before``: an earlier one of the same port, whose endpoints need not be made again.
    """
    known = before.parts if before is not None else {}
    parts: dict[tuple[str, str, str], tuple[Endpoint, bytes]] = {}
    by_locality: dict[str, list[Endpoint]] = {}
    for endpoint in sorted(endpoints, key=_order):
        by_locality.setdefault(endpoint.locality, []).append(endpoint)
        key = (endpoint.namespace, endpoint.workload, endpoint.address)
        held = known.get(key)
        if held is None or held[0] is not endpoint:
            made = _endpoint(endpoint, port).SerializeToString(deterministic=True)
            held = (endpoint, bytes_field(LB_ENDPOINTS, made))
        parts[key] = held
    body = [endpoint_pb2.ClusterLoadAssignment(cluster_name=name).SerializeToString()]
    for place, members in sorted(by_locality.items()):
        body.append(bytes_field(LOCALITIES, _locality(place, members, parts)))
    return Spliced(Resource(xds.ENDPOINT, name, b"".join(body), origins), parts)


def _locality(
    place: str,
    members: list[Endpoint],
    parts: Mapping[tuple[str, str, str], tuple[Endpoint, bytes]],
) -> bytes:
    """A LocalityLbEndpoints: its fields in the order of their numbers, as protobuf writes them."""
    region, _, rest = place.partition("/")
    zone, _, sub_zone = rest.partition("/")
    before = endpoint_components_pb2.LocalityLbEndpoints(
        locality=base_pb2.Locality(region=region, zone=zone, sub_zone=sub_zone)
    )
    after = endpoint_components_pb2.LocalityLbEndpoints(
        load_balancing_weight=wrappers_pb2.UInt32Value(value=sum(max(e.weight, 1) for e in members))
    )
    within = (parts[e.namespace, e.workload, e.address][1] for e in members)
    return b"".join((before.SerializeToString(), *within, after.SerializeToString()))


LB_ENDPOINTS = endpoint_components_pb2.LocalityLbEndpoints.LB_ENDPOINTS_FIELD_NUMBER
LOCALITIES = endpoint_pb2.ClusterLoadAssignment.ENDPOINTS_FIELD_NUMBER


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
