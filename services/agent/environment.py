"""Istio's environment, as an injector sets it, read as this agent's settings. Pure.

    POD_NAMESPACE=shop  PROXY_CONFIG={"concurrency": 2}   ->   WINDWARD_AGENT_NAMESPACE=shop  WINDWARD_AGENT_CONCURRENCY=2

Windward's own variables and flags win; a field of PROXY_CONFIG, wherever that stands, gives way to a setting of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.agent.envoy.proxy_config import ProxyConfig, duration, parse_proxy_config

PREFIX = "WINDWARD_AGENT_"
NAMES = {
    "POD_NAMESPACE": "NAMESPACE",
    "POD_NAME": "WORKLOAD_NAME",
    "SERVICE_ACCOUNT": "SERVICE_ACCOUNT",
    "INSTANCE_IP": "ADDRESS",
    "INSTANCE_IPS": "INSTANCE_IPS",
    "HOST_IP": "HOST_IP",
    "TRUST_DOMAIN": "TRUST_DOMAIN",
    "CA_ADDR": "CITADEL_ADDRESS",
    "PROXY_CONFIG": "PROXY_CONFIG",
    "ISTIO_BOOTSTRAP_OVERRIDE": "BOOTSTRAP_OVERRIDE",
    "ISTIO_KUBE_APP_PROBERS": "APP_PROBERS",
    "ISTIO_PROMETHEUS_ANNOTATIONS": "SCRAPE",
    "ENVOY_STATUS_PORT": "ENVOY_STATUS_PORT",
    "ENVOY_PROMETHEUS_PORT": "PROMETHEUS_PORT",
    "ENVOY_SECURE_METRICS_PORT": "SECURE_METRICS_PORT",
    "ENVOY_SECURE_MERGED_METRICS_PORT": "SECURE_MERGED_METRICS_PORT",
    "ISTIO_DUAL_STACK": "DUAL_STACK",
    "COMPLIANCE_POLICY": "COMPLIANCE_POLICY",
    "MINIMUM_DRAIN_DURATION": "NOTICE_TIME",
    "ISTIO_META_INTERCEPTION_MODE": "INTERCEPTION",
    "ISTIO_META_DNS_CAPTURE": "DNS_CAPTURE",
    "ISTIO_META_DNS_AUTO_ALLOCATE": "DNS_AUTO_ALLOCATE",
    "DNS_PROXY_ADDR": "DNS_ADDRESS",
    "DNS_FORWARD_PARALLEL": "DNS_UPSTREAM_PARALLEL",
    "DNS_FORWARD_TIMEOUT": "DNS_UPSTREAM_TIMEOUT",
    "SECRET_TTL": "CERTIFICATE_TTL",
}
LOWER = frozenset({"INTERCEPTION"})
NOTHING: Mapping[str, Any] = {}


def settings_environment(
    environ: Mapping[str, str],
    processors: int,
    *,
    flag: str | None = None,
    file: Mapping[str, Any] = NOTHING,
) -> dict[str, str]:
    """Variables to add. ``processors`` is what ``concurrency: 0`` means. Raises BadProxyConfig.

    ``flag``: of --proxy-config, if it was given; ``file``: what the settings file says, by the settings' names.
    """
    in_environment = environ.get(PREFIX + "PROXY_CONFIG") or environ.get("PROXY_CONFIG")
    text = flag if flag is not None else in_environment or str(file.get("proxy_config", ""))
    proxy, _ = parse_proxy_config(text)
    found = {
        name: value
        for name, value in _of_proxy_config(proxy, processors).items()
        if name.lower() not in file
    }
    # An injector makes variables of proxyMetadata; where nobody injects, they are in force all the same.
    said = {**{name: text for name, text in proxy.proxy_metadata.items() if text}, **environ}
    for theirs, ours in NAMES.items():
        if said.get(theirs):
            found[ours] = said[theirs].lower() if ours in LOWER else said[theirs]
    return {PREFIX + name: value for name, value in found.items() if PREFIX + name not in environ}


def _of_proxy_config(proxy: ProxyConfig, processors: int) -> dict[str, str]:
    found = {
        "ENVOY_BINARY": proxy.binary_path,
        "STATE_DIR": proxy.config_path,
        "PILOT_ADDRESS": proxy.discovery_address,
        "DRAIN_TIME": proxy.termination_drain_duration,
        "LISTENER_DRAIN_TIME": proxy.drain_duration,
        "ACCESS_LOG_FLUSH": proxy.file_flush_interval,
        "ADMIN_ADDRESS": f"127.0.0.1:{proxy.proxy_admin_port}" if proxy.proxy_admin_port else "",
        "STATUS_ADDRESS": f"0.0.0.0:{proxy.status_port}" if proxy.status_port else "",
        "INTERCEPTION": (proxy.interception_mode or "").lower(),
    }
    for name in ("DRAIN_TIME", "LISTENER_DRAIN_TIME", "ACCESS_LOG_FLUSH"):
        # Checked here, where the field's own name can be told.
        duration(found[name], f"PROXY_CONFIG: {name.lower()}")
    if proxy.concurrency is not None:
        found["CONCURRENCY"] = str(proxy.concurrency or processors)
    return {name: value for name, value in found.items() if value}
