from __future__ import annotations

from dataclasses import replace

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from services.pilot.envoy.cluster import HTTP_OPTIONS
from services.pilot.envoy.common import UINT32_MAX
from tests.unit.pilot.mesh import (
    OPTIONS,
    REVIEWS,
    WITH_MIXER,
    cluster,
    direct,
    generate,
    make,
    port,
    service_entry,
    sidecar,
    snap,
    workload,
)
from windward.xds import resource as xds

NAME = f"outbound|9080||{REVIEWS}"
V1 = f"outbound|9080|v1|{REVIEWS}"
Cluster = cluster_pb2.Cluster


def rule(policy=None):
    subsets = [{"name": "v1", "labels": {"version": "v1"}}]
    spec = {"host": "reviews", "subsets": subsets}
    return make("DestinationRule", "reviews", {**spec, "trafficPolicy": policy} if policy else spec)


def built(*objects, workloads=(), name=NAME, proxy=None, options=OPTIONS):
    return cluster(generate(snap(*objects, workloads=workloads), proxy or sidecar(), options), name)


def tls_of(socket) -> tls_pb2.UpstreamTlsContext:
    context = tls_pb2.UpstreamTlsContext()
    assert socket.typed_config.Unpack(context)
    return context


def sans(socket) -> list[str]:
    validation = tls_of(
        socket
    ).common_tls_context.combined_validation_context.default_validation_context
    return [item.matcher.exact for item in validation.match_typed_subject_alt_names]


def test_a_static_service_gets_its_endpoints_by_eds():
    made = built(service_entry())
    assert made.type == Cluster.EDS
    assert made.eds_cluster_config.service_name == NAME
    assert made.eds_cluster_config.eds_config.HasField("ads")
    assert not made.HasField("load_assignment")


@pytest.mark.parametrize(
    ("resolution", "kind"),
    [("DNS", Cluster.STRICT_DNS), ("DNS_ROUND_ROBIN", Cluster.LOGICAL_DNS)],
)
def test_dns_resolves_the_host_where_no_endpoint_is_listed(resolution, kind):
    entry = service_entry(
        "api",
        hosts=["api.example.com"],
        resolution=resolution,
        workloadSelector=None,
        location="MESH_EXTERNAL",
    )
    made = built(entry, name="outbound|9080||api.example.com")
    assert made.type == kind
    (place,) = made.load_assignment.endpoints
    (endpoint,) = place.lb_endpoints
    assert endpoint.endpoint.address.socket_address.address == "api.example.com"
    assert not made.transport_socket_matches


def test_what_resolves_nothing_goes_where_the_application_meant():
    entry = service_entry(
        "any",
        hosts=["any.example.com"],
        resolution="NONE",
        workloadSelector=None,
        location="MESH_EXTERNAL",
    )
    made = built(entry, name="outbound|9080||any.example.com")
    assert (made.type, made.lb_policy) == (Cluster.ORIGINAL_DST, Cluster.CLUSTER_PROVIDED)


def test_defaults_are_istios_not_envoys():
    made = built(service_entry())
    assert made.connect_timeout.seconds == 10
    assert made.lb_policy == Cluster.LEAST_REQUEST
    assert made.common_lb_config.healthy_panic_threshold.value == 0
    assert made.common_lb_config.HasField("healthy_panic_threshold")
    (limits,) = made.circuit_breakers.thresholds
    assert {
        limits.max_connections.value,
        limits.max_pending_requests.value,
        limits.max_requests.value,
        limits.max_retries.value,
    } == {UINT32_MAX}
    assert not made.HasField("outlier_detection")


def test_a_policy_in_full():
    policy = {
        "loadBalancer": {"simple": "RANDOM"},
        "connectionPool": {
            "tcp": {"maxConnections": 1, "connectTimeout": "250ms"},
            "http": {
                "http1MaxPendingRequests": 2,
                "http2MaxRequests": 3,
                "maxRetries": 4,
                "maxRequestsPerConnection": 5,
            },
        },
        "outlierDetection": {
            "consecutive5xxErrors": 6,
            "consecutiveGatewayErrors": 0,
            "interval": "7s",
            "baseEjectionTime": "8s",
            "maxEjectionPercent": 9,
        },
    }
    made = built(service_entry(), rule(policy))
    assert made.lb_policy == Cluster.RANDOM
    assert made.connect_timeout.nanos == 250_000_000
    (limits,) = made.circuit_breakers.thresholds
    assert limits.max_connections.value == 1
    assert limits.max_pending_requests.value == 2
    assert limits.max_requests.value == 3
    assert limits.max_retries.value == 4
    options = http_protocol_options_pb2.HttpProtocolOptions()
    assert made.typed_extension_protocol_options[HTTP_OPTIONS].Unpack(options)
    assert options.common_http_protocol_options.max_requests_per_connection.value == 5
    assert options.explicit_http_config.HasField("http_protocol_options")
    outlier = made.outlier_detection
    assert outlier.consecutive_5xx.value == 6
    assert outlier.enforcing_consecutive_5xx.value == 100
    assert outlier.enforcing_consecutive_gateway_failure.value == 0
    assert outlier.HasField("enforcing_consecutive_gateway_failure")
    assert (outlier.interval.seconds, outlier.base_ejection_time.seconds) == (7, 8)
    assert outlier.max_ejection_percent.value == 9


@pytest.mark.parametrize("protocol", ["HTTP2", "GRPC"])
def test_http2_where_the_port_says_so(protocol):
    made = built(service_entry(ports=[port(9080, protocol)]))
    options = http_protocol_options_pb2.HttpProtocolOptions()
    assert made.typed_extension_protocol_options[HTTP_OPTIONS].Unpack(options)
    assert options.explicit_http_config.HasField("http2_protocol_options")


def test_http1_needs_no_options():
    assert not built(service_entry()).typed_extension_protocol_options


def test_mtls_by_what_each_endpoint_can_and_only_its_accounts_accepted():
    workloads = [workload(), workload("reviews-v2", "127.7.0.3", service_account="reviews-two")]
    made = built(service_entry(), rule(), workloads=workloads)
    able, other = made.transport_socket_matches
    assert able.match.fields["tlsMode"].string_value == "istio"
    assert sans(able.transport_socket) == [
        "spiffe://cluster.local/ns/shop/sa/reviews",
        "spiffe://cluster.local/ns/shop/sa/reviews-two",
    ]
    context = tls_of(able.transport_socket)
    assert context.sni == f"outbound_.9080_._.{REVIEWS}"
    (secret,) = context.common_tls_context.tls_certificate_sds_secret_configs
    assert secret.name == "default"
    grpc = secret.sds_config.api_config_source.grpc_services[0]
    assert grpc.envoy_grpc.cluster_name == "sds-grpc"
    assert not other.match.fields
    assert other.transport_socket.name == "envoy.transport_sockets.raw_buffer"


def test_a_subset_expects_its_own_workloads_accounts_only():
    workloads = [workload(), workload("reviews-v2", "127.7.0.3", service_account="reviews-two")]
    made = built(service_entry(), rule(), workloads=workloads, name=V1)
    assert sans(made.transport_socket_matches[0].transport_socket) == [
        "spiffe://cluster.local/ns/shop/sa/reviews"
    ]
    assert (
        tls_of(made.transport_socket_matches[0].transport_socket).sni
        == f"outbound_.9080_.v1_.{REVIEWS}"
    )


def test_mtls_by_rule_is_for_all_endpoints():
    made = built(service_entry(), rule({"tls": {"mode": "ISTIO_MUTUAL"}}), workloads=[workload()])
    assert sans(made.transport_socket) == ["spiffe://cluster.local/ns/shop/sa/reviews"]
    assert not made.transport_socket_matches


def test_mtls_off_by_rule():
    made = built(service_entry(), rule({"tls": {"mode": "DISABLE"}}), workloads=[workload()])
    assert not made.HasField("transport_socket")
    assert not made.transport_socket_matches


@pytest.mark.parametrize(
    ("protocol", "alpn"),
    [("HTTP", ["istio-http/1.1", "http/1.1"]), ("GRPC", ["istio-h2", "h2"]), ("TCP", ["istio"])],
)
def test_what_is_spoken_inside_is_said_by_alpn(protocol, alpn):
    made = built(service_entry(ports=[port(9080, protocol)]), workloads=[workload()])
    socket = made.transport_socket_matches[0].transport_socket
    assert list(tls_of(socket).common_tls_context.alpn_protocols) == alpn


def test_passthrough_balancing_goes_to_the_original_destination_without_eds():
    made = generate(
        snap(service_entry(), rule({"loadBalancer": {"simple": "PASSTHROUGH"}})), sidecar()
    )
    assert cluster(made, NAME).type == Cluster.ORIGINAL_DST
    assert NAME not in made[xds.ENDPOINT]


def test_fixed_clusters():
    intercepted = generate(snap(), sidecar())
    assert set(intercepted[xds.CLUSTER]) == {
        "BlackHoleCluster",
        "PassthroughCluster",
        "InboundPassthroughCluster",
    }
    assert set(generate(snap(), direct())[xds.CLUSTER]) == {"BlackHoleCluster"}


def test_inbound_when_intercepted_goes_on_where_the_connection_went():
    made = built(
        service_entry(),
        workloads=[workload()],
        name="inbound|9080||",
        proxy=sidecar("127.7.0.2", account="reviews"),
    )
    assert made.type == Cluster.ORIGINAL_DST
    assert made.upstream_bind_config.source_address.address == "127.0.0.6"


def test_inbound_in_loopback_mode_goes_to_the_application():
    proxy = direct("127.7.0.2", account="reviews", app_address="127.0.0.77")
    made = built(
        service_entry(),
        workloads=[workload(ports={"http": 8080})],
        name="inbound|8080||",
        proxy=proxy,
    )
    place = made.load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address
    assert (place.address, place.port_value) == ("127.0.0.77", 8080)
    assert made.upstream_bind_config.source_address.address == "127.0.0.1"


def test_the_object_behind_a_cluster_is_named_in_its_metadata_and_origins():
    made = generate(snap(service_entry(), rule()), sidecar())
    origins = made[xds.CLUSTER][V1].origins
    assert [(item.kind, item.name) for item in origins] == [
        ("ServiceEntry", "reviews"),
        ("DestinationRule", "reviews"),
    ]
    text = cluster(made, V1).metadata.filter_metadata["windward"].fields["config"].string_value
    assert text == "/apis/networking.istio.io/namespaces/shop/ServiceEntry/reviews"


def test_mixer_is_reached_by_mtls_and_nobody_else_is_taken_for_it():
    name = "outbound|9091||mixer.istio-system.svc.cluster.local"
    options = replace(WITH_MIXER, trust_domain="mesh.example")
    made = built(options=options, name=name)
    assert sans(made.transport_socket) == [
        "spiffe://mesh.example/ns/istio-system/sa/windward-mixer"
    ]
    assert name not in generate(snap(), sidecar())[xds.CLUSTER]


def test_every_clusters_statistics_carry_its_name_as_a_label():
    """Envoy's bootstrap takes what stands before the semicolon for the label; without, each cluster has metrics of its own."""
    at = workload("reviews-v1-1", "10.0.0.7")
    made = generate(snap(service_entry(), rule(), workloads=[at]), sidecar(), WITH_MIXER)
    names = set(made[xds.CLUSTER])
    assert {NAME, V1, "PassthroughCluster"} < names
    assert {name: cluster(made, name).alt_stat_name for name in names} == {
        name: f"{name};" for name in names
    }
