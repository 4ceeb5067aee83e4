"""Envoy's bootstrap: where everything comes from; a real Envoy accepts each of its forms."""

from __future__ import annotations

import json
import subprocess
from importlib import import_module
from typing import Any

import pytest
from google.protobuf import json_format

from services.agent.envoy.bootstrap import SOCKET, Place, bootstrap, bootstrap_text
from services.agent.envoy.node import BadEnvironment, Node, build_node
from services.agent.envoy.process import find_envoy
from services.agent.envoy.proxy_config import BadProxyConfig, ProxyConfig, parse_proxy_config


def a_node(environ: dict[str, str] | None = None, **over: Any) -> Node:
    base: dict[str, Any] = {
        "node_id": "sidecar~10.0.0.7~a.b~b.svc.cluster.local",
        "known": {"NAME": "a", "NAMESPACE": "b"},
        "environ": environ or {},
        "proxy": ProxyConfig(),
        "proxy_raw": {},
        "instance_ips": ("10.0.0.7",),
    }
    return build_node(**base | over)


def made(config: str = "", environ: dict[str, str] | None = None, place: Any = None, **over: Any):
    proxy, raw = parse_proxy_config(config)
    node = a_node(environ, proxy=proxy, proxy_raw=raw, **over)
    return bootstrap(node, proxy, Place(**place or {}))


def clusters(message: dict[str, Any]) -> dict[str, Any]:
    return {cluster["name"]: cluster for cluster in message["static_resources"]["clusters"]}


def address_of(cluster: dict[str, Any]) -> Any:
    (locality,) = cluster["load_assignment"]["endpoints"]
    (endpoint,) = locality["lb_endpoints"]
    return endpoint["endpoint"]["address"]


def test_everything_dynamic_comes_over_one_relative_socket():
    found = clusters(made())
    for name in ("xds-grpc", "sds-grpc"):
        assert address_of(found[name]) == {"pipe": {"path": SOCKET}}
    assert not SOCKET.startswith("/")
    ads = made()["dynamic_resources"]["ads_config"]
    assert ads["api_type"] == "DELTA_GRPC"
    assert ads["grpc_services"] == [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]


def test_only_where_asked_calls_leave_from_one_address():
    assert "upstream_bind_config" not in made()["cluster_manager"]
    source = made(place={"source_address": "127.1.2.3"})["cluster_manager"]["upstream_bind_config"]
    assert source == {"source_address": {"address": "127.1.2.3", "port_value": 0}}


@pytest.mark.parametrize(
    ("place", "addresses", "names"),
    [
        ({}, ("10.0.0.7",), ["0.0.0.0_15090", "0.0.0.0_15021"]),
        ({}, ("fd00::7",), ["::_15090", "::_15021"]),
        ({"listen_host": "127.1.2.3"}, ("10.0.0.7",), ["127.1.2.3_15090", "127.1.2.3_15021"]),
        ({"prometheus_port": 0, "status_port": 0}, ("10.0.0.7",), []),
        ({"secure_metrics_port": 15091, "secure_merged_metrics_port": 15092}, ("10.0.0.7",),
         ["0.0.0.0_15090", "0.0.0.0_15091", "0.0.0.0_15092", "0.0.0.0_15021"]),
    ],
)  # fmt: skip
def test_its_own_listeners(place, addresses, names):
    found = made(place=place, instance_ips=addresses)["static_resources"]["listeners"]
    assert [listener["name"] for listener in found] == names


def test_both_families_when_the_stack_is_dual():
    first, _ = made(place={"dual_stack": True})["static_resources"]["listeners"]
    (other,) = first["additional_addresses"]
    assert other["address"]["socket_address"]["address"] == "::"


@pytest.mark.parametrize(
    ("config", "environ", "limit"),
    [
        ("", {}, 2**31 - 1),
        ('{"runtimeValues": {"overload.global_downstream_max_connections": "5"}}', {}, 5),
        ('{"runtimeValues": {"overload.global_downstream_max_connections": "5"}}',
         {"ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS": "6"}, 6),
        ('{"connectionSettings": {"globalDownstreamConnectionLimit": 7}}',
         {"ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS": "6"}, 7),
    ],
)  # fmt: skip
def test_the_newest_form_of_the_limit_wins(config, environ, limit):
    (monitor,) = made(config, environ)["overload_manager"]["resource_monitors"]
    assert monitor["typed_config"]["max_active_downstream_connections"] == limit


@pytest.mark.parametrize(
    "environ",
    [
        {"ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS": "many"},
        {"ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS": "0"},
        {"ISTIO_META_LOAD_STATS_CONFIG_JSON": "{"},
    ],
)
def test_metadata_that_it_must_act_on_and_cannot_is_named(environ):
    name = next(iter(environ)).removeprefix("ISTIO_META_")
    with pytest.raises(BadEnvironment, match=f"^{name}: "):
        made(environ=environ)


def test_runtime_values_go_over_defaults_and_take_them_away():
    gone = "re2.max_program_size.error_level"
    config = json.dumps({"runtimeValues": {gone: "", "a": "true", "b": "false", "c": "3"}})
    flags = made(config)["layered_runtime"]["layers"][0]["static_layer"]
    assert gone not in flags
    assert (flags["a"], flags["b"], flags["c"]) == (True, False, "3")


@pytest.mark.parametrize(
    "config",
    [
        '{"tracing": {"zipkin": {"address": "nowhere"}}}',
        '{"envoyMetricsService": {"address": "a:1", "tlsSettings": {"mode": "SIMPLE"}}}',
        '{"envoyMetricsService": {"address": "a:1", "tlsSettings": {"mode": "MUTUAL", "caCertificates": "c"}}}',
        '{"envoyAccessLogService": {"address": "a:1", "tcpKeepalive": {"time": "x"}}}',
        '{"statsdUdpAddress": "x"}',
    ],
)
def test_what_envoy_would_refuse_is_refused_before(config):
    with pytest.raises(BadProxyConfig, match=r"^PROXY_CONFIG: "):
        made(config)


def test_lightsteps_spans_go_by_otlp_with_its_token():
    config = '{"tracing": {"lightstep": {"address": "collector:443", "accessToken": "t0k"}}}'
    provider = made(config)["tracing"]["http"]
    assert provider["name"] == "envoy.tracers.opentelemetry"
    call = provider["typed_config"]["grpc_service"]
    assert call["envoy_grpc"] == {"cluster_name": "lightstep"}
    assert call["initial_metadata"] == [{"key": "lightstep-access-token", "value": "t0k"}]


def test_files_and_certificates_of_collectors_come_by_sds():
    tls = {"mode": "ISTIO_MUTUAL", "subjectAltNames": ["spiffe://a"]}
    config = json.dumps({"envoyAccessLogService": {"address": "als:1", "tlsSettings": tls}})
    context = clusters(made(config))["envoy_accesslog_service"]["transport_socket"]["typed_config"]
    assert context["sni"] == "envoy_accesslog_service"
    common = context["common_tls_context"]
    assert [item["name"] for item in common["tls_certificate_sds_secret_configs"]] == ["default"]
    assert common["alpn_protocols"] == ["istio", "h2"]


def test_the_text_is_the_same_every_time():
    proxy = ProxyConfig()
    one = bootstrap_text(a_node(labels={"b": "2", "a": "1"}), proxy, Place())
    assert one == bootstrap_text(a_node(labels={"a": "1", "b": "2"}), proxy, Place())
    assert json.loads(one)["node"]["metadata"]["LABELS"] == {"a": "1", "b": "2"}


def test_it_is_a_bootstrap_message_to_the_last_field():
    from envoy.config.bootstrap.v3 import bootstrap_pb2

    for module in (
        "envoy.extensions.access_loggers.file.v3.file",
        "envoy.extensions.compression.brotli.compressor.v3.brotli",
        "envoy.extensions.compression.gzip.compressor.v3.gzip",
        "envoy.extensions.compression.zstd.compressor.v3.zstd",
        "envoy.extensions.filters.http.compressor.v3.compressor",
        "envoy.extensions.filters.http.router.v3.router",
        "envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager",
        "envoy.extensions.resource_monitors.downstream_connections.v3.downstream_connections",
        "envoy.extensions.upstreams.http.v3.http_protocol_options",
        "udpa.type.v1.typed_struct",
    ):
        import_module(module + "_pb2")
    text = bootstrap_text(a_node(), ProxyConfig(), Place())
    parsed = json_format.Parse(text, bootstrap_pb2.Bootstrap())
    assert parsed.admin.address.socket_address.port_value == 15000


TLS = {"mode": "MUTUAL", "clientCertificate": "/c", "privateKey": "/k", "caCertificates": "/ca"}
FORMS: list[tuple[dict[str, Any], dict[str, str], dict[str, Any], tuple[str, ...]]] = [
    ({}, {}, {}, ("10.0.0.7",)),
    ({}, {}, {"listen_host": "127.1.2.3", "source_address": "127.1.2.3"}, ("127.1.2.3",)),
    ({}, {"ISTIO_METAJSON_LABELS": json.dumps({"app": 'quote" and \\ and ☃'})}, {}, ("fd00::7",)),
    ({}, {}, {"dual_stack": True, "log_json": True}, ("10.0.0.7", "fd00::7")),
    ({}, {}, {"secure_metrics_port": 15091, "secure_merged_metrics_port": 15092,
              "compliance_policy": "fips-140-2", "outlier_log_path": ""}, ("10.0.0.7",)),
    ({"tracing": {"zipkin": {"address": "z:1"}, "tlsSettings": TLS}}, {}, {}, ("10.0.0.7",)),
    ({"tracing": {"zipkin": {"address": "z:1"}, "sampling": 0.01}}, {}, {}, ("10.0.0.7",)),
    ({"tracing": {"datadog": {"address": "$(HOST_IP):1"}}}, {}, {"host_ip": "10.9.9.9"}, ("10.0.0.7",)),
    ({"tracing": {"openTelemetry": {"address": "o:4317"}}}, {}, {}, ("10.0.0.7",)),
    ({"tracing": {"lightstep": {"address": "l:1", "accessToken": "t"}}}, {}, {}, ("10.0.0.7",)),
    ({"statsdUdpAddress": "10.1.1.1:1", "statsCompression": False, "extraStatTags": ["tag"],
      "envoyMetricsService": {"address": "m:1", "tlsSettings": TLS, "tcpKeepalive": {"probes": 3, "time": "10s"}},
      "envoyAccessLogService": {"address": "a:1", "tlsSettings": {
          "mode": "ISTIO_MUTUAL", "subjectAltNames": ["spiffe://x", "y"]}}}, {}, {}, ("10.0.0.7",)),
    ({"runtimeValues": {"a.b": "1", "c": "true"}, "connectionSettings": {"globalDownstreamConnectionLimit": 9}},
     {"ISTIO_META_LOAD_STATS_CONFIG_JSON": '{"api_type": "GRPC", "transport_api_version": "V3"}',
      "ISTIO_METAJSON_ANNOTATIONS": json.dumps({
          "sidecar.istio.io/statsHistogramBuckets": '{"istio": [1, 2.5, 10]}',
          "sidecar.istio.io/statsFlushInterval": "250ms", "sidecar.istio.io/statsEvictionInterval": "1s",
          "sidecar.istio.io/statsInclusionRegexps": "a.*,b"})}, {}, ("10.0.0.7",)),
]  # fmt: skip


@pytest.mark.parametrize(("config", "environ", "place", "addresses"), FORMS)
def test_a_real_envoy_accepts_it(config, environ, place, addresses):
    message = made(json.dumps(config), environ, place, instance_ips=addresses)
    checked = subprocess.run(
        [find_envoy(""), "--mode", "validate", "--config-yaml", json.dumps(message),
         "--disable-hot-restart", "-l", "error"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr
    assert " OK" in checked.stdout
    assert checked.stderr == ""


@pytest.mark.parametrize(
    ("tracing", "millionths"),
    [
        (None, 0),
        ({}, 0),
        ({"zipkin": {"address": "z:1"}}, 10_000),
        ({"datadog": {"address": "d:1"}, "sampling": 100}, 1_000_000),
        ({"openTelemetry": {"address": "o:1"}, "sampling": 0.01}, 100),
        ({"lightstep": {"address": "l:1"}, "sampling": 0}, 0),
    ],
)
def test_who_has_a_tracer_samples_the_share_it_is_told_and_nobody_else_does(tracing, millionths):
    layers = made(json.dumps({"tracing": tracing} if tracing is not None else {}))[
        "layered_runtime"
    ]
    share = layers["layers"][0]["static_layer"]["tracing.random_sampling"]
    assert share == {"numerator": millionths, "denominator": "MILLION"}
