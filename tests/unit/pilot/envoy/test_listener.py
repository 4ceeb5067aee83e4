from __future__ import annotations

from dataclasses import replace

import pytest
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.access_loggers.grpc.v3 import als_pb2
from envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from tests.unit.pilot.mesh import (
    OPTIONS,
    REVIEWS,
    WITH_MIXER,
    chain,
    direct,
    generate,
    listener,
    make,
    manager,
    port,
    router,
    service_entry,
    sidecar,
    snap,
    tcp_proxy,
    workload,
)
from windward.xds import resource as xds

Manager = hcm_pb2.HttpConnectionManager
REFUSING = replace(OPTIONS, allow_any=False)
OWN = sidecar("127.7.0.2", account="reviews")
MESH_ALPN = ["istio-peer-exchange", "istio", "istio-http/1.1", "istio-h2"]


def inbound(*objects, ports=None, options=OPTIONS, proxy=OWN) -> listener_pb2.Listener:
    entry = service_entry(ports=ports or [port()])
    made = generate(snap(entry, *objects, workloads=[workload()]), proxy, options)
    return listener(made, "virtualInbound")


def peers(mode, *, namespace="shop", selector=None, ports=None):
    spec = {"mtls": {"mode": mode}}
    if selector:
        spec["selector"] = {"matchLabels": selector}
    if ports:
        spec["portLevelMtls"] = {str(number): {"mode": value} for number, value in ports.items()}
    return make("PeerAuthentication", f"p-{mode.lower()}", spec, namespace=namespace)


def transports(made, number):
    """(transport protocol, by an ALPN of the mesh) of the chains of one port."""
    return [
        (
            item.filter_chain_match.transport_protocol,
            list(item.filter_chain_match.application_protocols) == MESH_ALPN,
        )
        for item in made.filter_chains
        if (item.filter_chain_match.destination_port.value or None) == number
    ]


def test_virtual_outbound_hands_on_and_passes_the_rest():
    made = listener(generate(snap(), sidecar()), "virtualOutbound")
    assert made.address.socket_address.port_value == 15001
    assert made.use_original_dst.value
    loop, rest = made.filter_chains
    assert loop.filter_chain_match.destination_port.value == 15001
    assert tcp_proxy(loop).cluster == "BlackHoleCluster"
    assert rest.name == "virtualOutbound-catchall-tcp"
    assert tcp_proxy(rest).cluster == "PassthroughCluster"
    refusing = listener(generate(snap(), sidecar(), REFUSING), "virtualOutbound")
    assert tcp_proxy(refusing.filter_chains[1]).cluster == "BlackHoleCluster"


def test_http_ports_share_a_listener_by_rds():
    both = [service_entry(), service_entry("ratings")]
    made = generate(snap(*both), sidecar())
    assert set(made[xds.LISTENER]) == {"virtualOutbound", "virtualInbound", "0.0.0.0_9080"}
    found = listener(made, "0.0.0.0_9080")
    assert not found.bind_to_port.value
    (http,) = found.filter_chains
    assert manager(http).rds.route_config_name == "9080"
    assert manager(http).rds.config_source.HasField("ads")
    assert tcp_proxy(found.default_filter_chain).cluster == "PassthroughCluster"


def test_spans_are_left_to_the_tracer_that_a_proxys_bootstrap_names():
    """Without this no request is traced, whatever the bootstrap says; a share for those that say nothing."""
    http = manager(
        listener(generate(snap(service_entry()), sidecar()), "0.0.0.0_9080").filter_chains[0]
    )
    assert http.HasField("tracing")
    assert not http.tracing.HasField("provider")
    assert http.tracing.random_sampling.value == 1


def test_outbound_calls_do_not_carry_what_a_caller_claims_to_be():
    made = generate(snap(service_entry()), sidecar())
    http = manager(listener(made, "0.0.0.0_9080").filter_chains[0])
    assert http.forward_client_cert_details == Manager.SANITIZE
    assert not http.use_remote_address.value
    assert [item.name for item in http.http_filters] == [
        "envoy.filters.http.fault",
        "envoy.filters.http.router",
    ]


def test_tcp_services_by_address():
    entry = service_entry(ports=[port(3306, "TCP", "tcp")], addresses=["10.0.0.1", "10.0.0.2"])
    made = generate(snap(entry), sidecar())
    assert {"10.0.0.1_3306", "10.0.0.2_3306"} <= set(made[xds.LISTENER])
    (only,) = listener(made, "10.0.0.1_3306").filter_chains
    assert tcp_proxy(only).cluster == f"outbound|3306||{REVIEWS}"
    assert not listener(made, "10.0.0.1_3306").listener_filters


def test_tcp_routes_by_weight():
    entry = service_entry(ports=[port(3306, "TCP", "tcp")], addresses=["10.0.0.1"])

    def part(subset, weight):
        return {"destination": {"host": "reviews", "subset": subset}, "weight": weight}

    tcp = [
        {"match": [{"port": 1}], "route": [part("never", 0)]},
        {"match": [{"sourceLabels": {"app": "x"}}], "route": [part("x", 0)]},
        {"match": [{"port": 3306}], "route": [part("v1", 80), part("v2", 20)]},
    ]
    rule = make("VirtualService", "reviews", {"hosts": ["reviews"], "tcp": tcp})

    def proxied(proxy):
        made = generate(snap(entry, rule), proxy)
        return tcp_proxy(listener(made, "10.0.0.1_3306").filter_chains[0])

    assert [(item.name, item.weight) for item in proxied(sidecar()).weighted_clusters.clusters] == [
        (f"outbound|3306|v1|{REVIEWS}", 80),
        (f"outbound|3306|v2|{REVIEWS}", 20),
    ]
    assert proxied(sidecar(labels={"app": "x"})).cluster == f"outbound|3306|x|{REVIEWS}"


def test_inbound_without_a_policy_takes_all_three():
    made = inbound()
    assert made.address.socket_address.port_value == 15006
    assert transports(made, 9080) == [("tls", True), ("raw_buffer", False), ("tls", False)]
    assert transports(made, None) == [("tls", True), ("raw_buffer", False), ("tls", False)]
    (loop,) = [
        c for c in made.filter_chains if c.filter_chain_match.destination_port.value == 15006
    ]
    assert tcp_proxy(loop).cluster == "BlackHoleCluster"


def test_strict_takes_mtls_only():
    made = inbound(peers("STRICT"))
    assert transports(made, 9080) == [("tls", True)]
    assert transports(made, None) == [("tls", True)]


def test_disabled_takes_no_mtls():
    made = inbound(peers("DISABLE"))
    assert transports(made, 9080) == [("raw_buffer", False), ("tls", False)]


def test_a_port_may_differ():
    app = {"app": "reviews"}
    made = inbound(peers("STRICT", selector=app, ports={9080: "DISABLE"}))
    assert transports(made, 9080) == [("raw_buffer", False), ("tls", False)]
    assert transports(made, None) == [("tls", True)]


def test_mtls_demands_a_certificate_of_the_trust_domain():
    made = chain(inbound(), "tls", 9080)
    context = tls_pb2.DownstreamTlsContext()
    assert made.transport_socket.typed_config.Unpack(context)
    assert context.require_client_certificate.value
    combined = context.common_tls_context.combined_validation_context
    (peer,) = combined.default_validation_context.match_typed_subject_alt_names
    assert peer.matcher.prefix == "spiffe://cluster.local/"
    assert combined.validation_context_sds_secret_config.name == "ROOTCA"


@pytest.mark.parametrize("transport", ["tls", "raw_buffer"])
def test_the_application_is_told_who_called(transport):
    http = manager(chain(inbound(), transport, 9080))
    assert http.forward_client_cert_details == Manager.SANITIZE_SET
    assert http.set_current_client_cert_details.uri
    (target,) = http.route_config.virtual_hosts
    assert target.routes[0].route.cluster == "inbound|9080||"
    assert target.routes[0].route.retry_policy.retry_on == "reset-before-request"


def test_an_applications_own_tls_is_passed_on():
    own = next(
        item
        for item in inbound().filter_chains
        if item.filter_chain_match.destination_port.value == 9080
        and item.filter_chain_match.transport_protocol == "tls"
        and not item.filter_chain_match.application_protocols
    )
    assert not own.HasField("transport_socket")
    assert tcp_proxy(own).cluster == "inbound|9080||"


def test_tcp_ports_inbound():
    made = inbound(ports=[port(3306, "TCP", "tcp")])
    assert tcp_proxy(chain(made, "raw_buffer", 3306)).cluster == "inbound|3306||"


def test_loopback_mode_binds_each_port_at_its_address():
    proxy = direct("127.7.0.2", account="reviews")
    made = generate(snap(service_entry(), workloads=[workload()]), proxy)
    assert set(made[xds.LISTENER]) == {"127.7.0.2_9080", "127.7.0.2_15002"}
    found = listener(made, "127.7.0.2_9080")
    assert found.address.socket_address.address == "127.7.0.2"
    assert transports(found, None) == [("tls", True), ("raw_buffer", False), ("tls", False)]
    http = manager(listener(made, "127.7.0.2_15002").filter_chains[0])
    assert http.rds.route_config_name == "http_proxy"


def test_a_policy_touches_only_the_listeners_of_whom_it_is_for():
    before = generate(snap(service_entry(), workloads=[workload()]), OWN)
    strict = snap(service_entry(), peers("STRICT"), workloads=[workload()])
    after = generate(strict, OWN)
    changed = [
        name
        for name, item in after[xds.LISTENER].items()
        if item.body != before[xds.LISTENER][name].body
    ]
    assert changed == ["virtualInbound"]


@pytest.mark.parametrize(
    ("proxy", "name"),
    [
        (router(), "0.0.0.0_8080"),
        (replace(router(), interception=direct().interception), "127.7.0.100_8080"),
    ],
)
def test_gateways_believe_no_client(proxy, name):
    server = {"port": {"number": 8080, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    gate = make("Gateway", "edge", {"selector": {"istio": "ingress"}, "servers": [server]})
    made = generate(snap(gate), proxy)
    assert list(made[xds.LISTENER]) == [name]
    http = manager(listener(made, name).filter_chains[0])
    assert http.rds.route_config_name == "http.8080"
    assert http.use_remote_address.value
    assert http.forward_client_cert_details == Manager.SANITIZE_SET


def logs(http):
    found = als_pb2.HttpGrpcAccessLogConfig()
    assert http.access_log[0].typed_config.Unpack(found)
    return found.common_config


def test_without_mixer_nothing_is_logged_or_asked():
    http = manager(chain(inbound(), "tls", 9080))
    assert not http.access_log
    assert [item.name for item in http.http_filters] == ["envoy.filters.http.router"]


def test_inbound_requests_are_logged_with_their_destination_and_checked_by_ecds():
    made = inbound(options=WITH_MIXER)
    http = manager(chain(made, "tls", 9080))
    common = logs(http)
    assert common.log_name == "windward.inbound"
    assert common.buffer_flush_interval.ToMilliseconds() == 500
    assert {item.tag: item.literal.value for item in common.custom_tags} == {
        "destination_service": REVIEWS,
        "destination_service_name": "reviews",
        "destination_service_namespace": "shop",
    }
    closed, open_, last = http.http_filters
    assert (closed.name, open_.name) == ("windward.mixer.check.closed", "windward.mixer.check.open")
    assert closed.config_discovery.config_source.HasField("ads")
    assert not closed.config_discovery.apply_default_config_without_warming
    assert last.name == "envoy.filters.http.router"
    (target,) = http.route_config.virtual_hosts
    for name in (closed.name, open_.name):
        context = ext_authz_pb2.ExtAuthzPerRoute()
        assert target.typed_per_filter_config[name].Unpack(context)
        assert dict(context.check_settings.context_extensions) == {
            "destination.service.host": REVIEWS,
            "destination.service.name": "reviews",
            "destination.service.namespace": "shop",
        }


def test_outbound_requests_are_logged_too_and_not_checked():
    made = generate(snap(service_entry()), sidecar(), WITH_MIXER)
    http = manager(listener(made, "0.0.0.0_9080").filter_chains[0])
    assert logs(http).log_name == "windward.outbound"
    assert not [item for item in http.http_filters if item.HasField("config_discovery")]


def test_tcp_connections_are_logged():
    made = inbound(ports=[port(3306, "TCP", "tcp")], options=WITH_MIXER)
    found = als_pb2.TcpGrpcAccessLogConfig()
    proxy = tcp_proxy(chain(made, "raw_buffer", 3306))
    assert proxy.access_log[0].typed_config.Unpack(found)
    assert found.common_config.log_name == "windward.inbound"
