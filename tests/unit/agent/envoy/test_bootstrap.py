"""Envoy's bootstrap: who it says it is, where everything comes from; a real Envoy accepts it."""

from __future__ import annotations

import asyncio
import json

import pytest
from google.protobuf import json_format

from services.agent.envoy.bootstrap import SOCKET, bootstrap, bootstrap_text, node, node_id
from services.agent.envoy.process import find_envoy
from tests.unit.agent.settings import settings


@pytest.mark.parametrize("kind", ["sidecar", "router"])
def test_the_node_id_is_istios(kind):
    made = node_id(settings(proxy_type=kind))
    assert made == f"{kind}~10.0.0.7~reviews-v1-1.shop~shop.svc.cluster.local"


def test_the_node_carries_what_pilot_and_mixer_ask_for():
    made = node(settings(app_address="127.0.0.9", interception="none"), {"version": "v1"})
    assert made["metadata"] == {
        "NAME": "reviews-v1-1",
        "NAMESPACE": "shop",
        "LABELS": {"version": "v1"},
        "WORKLOAD_NAME": "reviews-v1-1",
        "SERVICE_ACCOUNT": "reviews",
        "INSTANCE_IPS": "10.0.0.7",
        "INTERCEPTION_MODE": "NONE",
        "APP_ADDRESS": "127.0.0.9",
        "WINDWARD_VERSION": made["metadata"]["WINDWARD_VERSION"],
    }
    assert node(settings(), {})["metadata"]["INTERCEPTION_MODE"] == "REDIRECT"


@pytest.mark.parametrize(
    ("labels", "cluster"), [({"app": "reviews"}, "reviews.shop"), ({}, "reviews-v1-1.shop")]
)
def test_the_cluster_is_the_application(labels, cluster):
    assert node(settings(labels=labels), labels)["cluster"] == cluster


def test_everything_comes_over_one_relative_socket():
    made = bootstrap(settings(), {})
    clusters = made["static_resources"]["clusters"]
    assert [cluster["name"] for cluster in clusters] == ["xds-grpc", "sds-grpc"]
    for cluster in clusters:
        (locality,) = cluster["load_assignment"]["endpoints"]
        (endpoint,) = locality["lb_endpoints"]
        assert endpoint["endpoint"]["address"] == {"pipe": {"path": SOCKET}}
    assert "/" not in SOCKET


def test_configuration_is_incremental():
    ads = bootstrap(settings(), {})["dynamic_resources"]["ads_config"]
    assert ads["api_type"] == "DELTA_GRPC"
    assert ads["grpc_services"] == [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]


def test_only_without_interception_calls_leave_from_the_workloads_address():
    assert "cluster_manager" not in bootstrap(settings(), {})
    made = bootstrap(settings(interception="none", address="127.1.2.3"), {})
    source = made["cluster_manager"]["upstream_bind_config"]["source_address"]
    assert source == {"address": "127.1.2.3", "port_value": 0}


def test_the_text_is_the_same_every_time():
    first = bootstrap_text(settings(), {"b": "2", "a": "1"})
    assert first == bootstrap_text(settings(), {"a": "1", "b": "2"})
    assert json.loads(first) == bootstrap(settings(), {"a": "1", "b": "2"})


def test_it_is_a_bootstrap_message_to_the_last_field():
    from envoy.config.bootstrap.v3 import bootstrap_pb2
    from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

    assert http_protocol_options_pb2.HttpProtocolOptions.DESCRIPTOR.full_name
    parsed = json_format.Parse(bootstrap_text(settings(), {}), bootstrap_pb2.Bootstrap())
    assert parsed.admin.address.socket_address.port_value == 15000


@pytest.mark.parametrize(
    "over",
    [
        {},
        {"interception": "none", "address": "127.1.2.3", "app_address": "127.0.0.1"},
        {"proxy_type": "router", "labels": {"app": 'quote" and \\ and ☃'}},
    ],
)
async def test_a_real_envoy_accepts_it(over):
    made = settings(**over)
    process = await asyncio.create_subprocess_exec(
        find_envoy(""), "--mode", "validate", "--config-yaml", bootstrap_text(made, made.labels),
        "--disable-hot-restart", "-l", "error",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert b" OK" in said
