"""What a gRPC client with xDS support needs of a service, without any proxy: API listeners, routes, clusters. Pure.

``xds:///HOST:PORT`` asks for the listener of that name; its routes are the service's ordinary virtual host, its clusters have
what grpc understands of a cluster. Endpoints are those that Envoys get.
Source: gRFC A27, A28, A29, A31; istio pilot/pkg/grpcgen/{lds,rds,cds}.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import api_listener_pb2, listener_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2
from google.protobuf import wrappers_pb2

from services.pilot.envoy import names
from services.pilot.envoy.cluster import identities_of
from services.pilot.envoy.common import ads, pack, resource
from services.pilot.envoy.endpoint import load_assignment
from services.pilot.envoy.route import FAULT_FILTER
from services.pilot.envoy.tls import TRANSPORT_SOCKET, matchers
from services.pilot.envoy.virtual_host import HostRoutes, aliases, route_configuration
from services.pilot.model.policy import EffectivePolicy
from services.pilot.model.service import Endpoint, Port, Service
from windward.config.service_entry import Resolution
from windward.config.traffic_policy import ClientTLSMode, SimpleLB
from windward.xds import resource as xds
from windward.xds.resource import Resource

CERTIFICATES = "default"
"""The instance of the client's bootstrap (``certificate_providers``) that has its certificate and the mesh's roots."""
UNDERSTOOD = frozenset({Resolution.STATIC, Resolution.DNS, Resolution.DNS_ROUND_ROBIN})
LB = {SimpleLB.LEAST_REQUEST: cluster_pb2.Cluster.LEAST_REQUEST}


def routes_of(
    service: Service, port: Port, routes: HostRoutes, namespace: str
) -> Iterator[Resource]:
    """The route configuration of a port, and a listener for each name that the client may call the host by."""
    name = names.outbound(port.number, "", service.host)
    yield route_configuration(name, [routes], None, disjoint=True)
    for host in (service.host, *aliases(service.host, namespace)):
        message = api_listener(f"{host}:{port.number}", name)
        yield resource(xds.LISTENER, message.name, message, routes.origins)


def api_listener(name: str, route_name: str) -> listener_pb2.Listener:
    filters = (
        (FAULT_FILTER, fault_pb2.HTTPFault()),
        ("envoy.filters.http.router", router_pb2.Router()),
    )
    manager = hcm_pb2.HttpConnectionManager(
        rds=hcm_pb2.Rds(config_source=ads(), route_config_name=route_name),
        http_filters=[
            hcm_pb2.HttpFilter(name=filter_name, typed_config=pack(config))
            for filter_name, config in filters
        ],
    )
    return listener_pb2.Listener(
        name=name, api_listener=api_listener_pb2.ApiListener(api_listener=pack(manager))
    )


def cluster(
    service: Service,
    port: Port,
    subset: str,
    policy: EffectivePolicy,
    chosen: Sequence[Endpoint],
    trust_domain: str,
) -> cluster_pb2.Cluster | None:
    """A cluster as grpc understands it; None for a service that it cannot reach by itself."""
    if service.resolution not in UNDERSTOOD or policy.passthrough:
        return None
    name = names.outbound(port.number, subset, service.host)
    made = cluster_pb2.Cluster(
        name=name, lb_policy=LB.get(policy.load_balancer, cluster_pb2.Cluster.ROUND_ROBIN)
    )
    if service.resolution is Resolution.STATIC:
        made.type = cluster_pb2.Cluster.EDS
        made.eds_cluster_config.CopyFrom(
            cluster_pb2.Cluster.EdsClusterConfig(eds_config=ads(), service_name=name)
        )
    else:
        made.type = cluster_pb2.Cluster.LOGICAL_DNS
        made.load_assignment.CopyFrom(load_assignment(name, port, _first(service, port, chosen)))
    if policy.max_requests:
        threshold = circuit_breaker_pb2.CircuitBreakers.Thresholds(
            max_requests=wrappers_pb2.UInt32Value(value=policy.max_requests)
        )
        made.circuit_breakers.thresholds.append(threshold)
    if policy.tls is ClientTLSMode.ISTIO_MUTUAL:
        made.transport_socket.CopyFrom(mtls(identities_of(chosen, trust_domain)))
    return made


def _first(service: Service, port: Port, chosen: Sequence[Endpoint]) -> Sequence[Endpoint]:
    """Grpc's LOGICAL_DNS takes exactly one name."""
    if chosen:
        return chosen[:1]
    return (
        Endpoint(
            address=service.host,
            ports={port.name: port.target},
            labels={},
            service_account="",
            namespace="",
            workload="",
        ),
    )


def mtls(identities: Sequence[str]) -> base_pb2.TransportSocket:
    """The client's own certificate, and a server that is one of those given."""
    instance = common_pb2.CertificateProviderPluginInstance(instance_name=CERTIFICATES)
    context = tls_pb2.CommonTlsContext.CombinedCertificateValidationContext(
        default_validation_context=common_pb2.CertificateValidationContext(
            ca_certificate_provider_instance=instance,
            match_subject_alt_names=matchers(identities),
        )
    )
    common = tls_pb2.UpstreamTlsContext(
        common_tls_context=tls_pb2.CommonTlsContext(
            tls_certificate_provider_instance=instance, combined_validation_context=context
        )
    )
    return base_pb2.TransportSocket(name=TRANSPORT_SOCKET, typed_config=pack(common))
