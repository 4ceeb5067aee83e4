"""Istio's environment read as settings."""

from __future__ import annotations

import json

import pytest

from services.agent.environment import settings_environment
from services.agent.envoy.proxy_config import BadProxyConfig


def test_what_an_injector_sets_becomes_settings():
    environ = {
        "POD_NAMESPACE": "shop",
        "POD_NAME": "reviews-1",
        "INSTANCE_IP": "10.0.0.7",
        "ISTIO_META_INTERCEPTION_MODE": "REDIRECT",
        "TRUST_DOMAIN": "",
        "PATH": "/bin",
    }
    assert settings_environment(environ, 4) == {
        "WINDWARD_AGENT_NAMESPACE": "shop",
        "WINDWARD_AGENT_WORKLOAD_NAME": "reviews-1",
        "WINDWARD_AGENT_ADDRESS": "10.0.0.7",
        "WINDWARD_AGENT_INTERCEPTION": "redirect",
    }


def test_proxy_config_is_read_for_what_has_a_setting():
    config = {
        "concurrency": 0,
        "proxyAdminPort": 15099,
        "statusPort": 15098,
        "discoveryAddress": "pilot:15012",
        "terminationDrainDuration": "20s",
        "drainDuration": "30s",
        "fileFlushInterval": "2s",
        "configPath": "/state",
        "binaryPath": "/envoy",
        "interceptionMode": "NONE",
    }
    environ = {"PROXY_CONFIG": json.dumps(config)}
    assert settings_environment(environ, 4) == {
        "WINDWARD_AGENT_PROXY_CONFIG": environ["PROXY_CONFIG"],
        "WINDWARD_AGENT_CONCURRENCY": "4",
        "WINDWARD_AGENT_ADMIN_ADDRESS": "127.0.0.1:15099",
        "WINDWARD_AGENT_STATUS_ADDRESS": "0.0.0.0:15098",
        "WINDWARD_AGENT_PILOT_ADDRESS": "pilot:15012",
        "WINDWARD_AGENT_DRAIN_TIME": "20s",
        "WINDWARD_AGENT_LISTENER_DRAIN_TIME": "30s",
        "WINDWARD_AGENT_ACCESS_LOG_FLUSH": "2s",
        "WINDWARD_AGENT_STATE_DIR": "/state",
        "WINDWARD_AGENT_ENVOY_BINARY": "/envoy",
        "WINDWARD_AGENT_INTERCEPTION": "none",
    }


def test_windwards_own_variables_stay():
    environ = {
        "POD_NAMESPACE": "shop",
        "WINDWARD_AGENT_NAMESPACE": "own",
        "PROXY_CONFIG": '{"concurrency": 2}',
        "WINDWARD_AGENT_CONCURRENCY": "1",
    }
    added = settings_environment(environ, 4)
    assert not {"WINDWARD_AGENT_NAMESPACE", "WINDWARD_AGENT_CONCURRENCY"} & set(added)


def test_proxy_metadata_stands_for_variables_that_an_injector_would_have_made():
    names = {"ISTIO_META_DNS_CAPTURE": "true", "DNS_FORWARD_TIMEOUT": "2s", "SECRET_TTL": "24h0m0s"}
    config = {"PROXY_CONFIG": json.dumps({"proxyMetadata": names})}
    added = settings_environment(config, 4)
    assert added["WINDWARD_AGENT_DNS_CAPTURE"] == "true"
    assert added["WINDWARD_AGENT_DNS_UPSTREAM_TIMEOUT"] == "2s"
    assert added["WINDWARD_AGENT_CERTIFICATE_TTL"] == "24h0m0s"
    set_too = config | {"ISTIO_META_DNS_CAPTURE": "false"}
    assert settings_environment(set_too, 4)["WINDWARD_AGENT_DNS_CAPTURE"] == "false"


def test_a_proxy_config_counts_wherever_it_stands_and_the_nearest_one_alone():
    def workers(environ=None, **more):
        return settings_environment(environ or {}, 8, **more).get("WINDWARD_AGENT_CONCURRENCY")

    file = {"proxy_config": '{"concurrency": 2}'}
    variable = {"PROXY_CONFIG": '{"concurrency": 3}'}
    assert workers(file=file) == "2"
    assert workers(variable, file=file) == "3"
    assert workers(variable, file=file, flag='{"concurrency": 4}') == "4"
    assert workers(variable, file=file, flag="") is None
    assert workers(variable, file=file | {"concurrency": 5}) is None


def test_a_bad_proxy_config_is_one_line():
    with pytest.raises(BadProxyConfig, match=r"^PROXY_CONFIG: "):
        settings_environment({"PROXY_CONFIG": '{"drainDuration": "x"}'}, 4)
