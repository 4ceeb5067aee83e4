"""Envoy's bootstrap for this agent: its settings and environment as Node, ProxyConfig and Place."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.agent.envoy.bootstrap import SOCKET, Place, bootstrap_text
from services.agent.envoy.node import BadEnvironment, Node, build_node, parse_downward
from services.agent.envoy.proxy_config import BadProxyConfig, ProxyConfig, parse_proxy_config
from services.agent.settings import Settings
from windward import __version__
from windward.identity.names import PILOT_ACCOUNT, ROOT_NAMESPACE
from windward.identity.spiffe_id import workload_id
from windward.process import FatalError
from windward.telemetry.logging import get_logger

log = get_logger()
LIMIT_BYTES = 1024 * 1024
WILDCARDS = frozenset({"", "0.0.0.0", "::"})


def compose(settings: Settings, environ: Mapping[str, str]) -> str:
    """The bootstrap's text. Raises FatalError for settings or an environment it cannot be made of."""
    try:
        proxy, raw = parse_proxy_config(settings.proxy_config)
        if proxy.envoy_access_log_service is not None:
            log.warning(
                "bootstrap.nothing_logs_there",
                field="PROXY_CONFIG: envoyAccessLogService",
                reason="the mesh's access logs go to Mixer; only listeners of a --bootstrap-override may use its cluster",
            )
        return bootstrap_text(node(settings, environ, proxy, raw), proxy, place(settings))
    except (BadProxyConfig, BadEnvironment) as error:
        raise FatalError(str(error)) from error


def override_text(settings: Settings) -> str:
    """What the override file adds, to be given as ``--config-yaml``; empty without one. Raises FatalError."""
    if not settings.bootstrap_override:
        return ""
    text = _read(Path(settings.bootstrap_override), "--bootstrap-override")
    return text.replace("$(HOST_IP)", settings.host_ip) if settings.host_ip else text


def node_id(settings: Settings) -> str:
    namespace = settings.namespace
    return f"{settings.proxy_type}~{settings.address}~{settings.workload_name}.{namespace}~{namespace}.svc.cluster.local"


def node(
    settings: Settings, environ: Mapping[str, str], proxy: ProxyConfig, raw: Mapping[str, Any]
) -> Node:
    """How Envoy presents itself to Pilot and Mixer. Raises BadEnvironment or FatalError."""
    addresses = settings.instance_ips or (settings.address,)
    for address in addresses:
        try:
            ipaddress.ip_address(address)
        except ValueError as error:
            raise BadEnvironment(f"--instance-ips: {error}") from error
    known: dict[str, Any] = {
        "NAME": settings.workload_name,
        "NAMESPACE": settings.namespace,
        "WORKLOAD_NAME": settings.workload_name,
        "SERVICE_ACCOUNT": settings.service_account,
        "INTERCEPTION_MODE": settings.interception.upper(),
        "APP_ADDRESS": settings.app_address,
        "WINDWARD_VERSION": __version__,
    }
    if settings.dns_capture:
        known["DNS_CAPTURE"] = "true"
        known["DNS_AUTO_ALLOCATE"] = "true" if settings.dns_auto_allocate else "false"
    return build_node(
        node_id=node_id(settings),
        known=known,
        environ=environ,
        proxy=proxy,
        proxy_raw=raw,
        instance_ips=addresses,
        locality=settings.locality,
        labels={**_pod_info(settings, "labels"), **settings.labels},
        annotations={**_pod_info(settings, "annotations"), **settings.annotations},
    )


def on_loopback_too(settings: Settings) -> bool:
    """Whether the status port must be at 127.0.0.1 beside the address it was given.

    Where traffic is intercepted, the rules would send Envoy's own call to that address, for 15021, back to Envoy; and
    nobody there could ask what is for callers from this machine only.
    """
    host, _ = split_address(settings.status_address, "--status-address")
    own = host not in WILDCARDS and not host.startswith("127.") and host != "::1"
    return own and settings.interception != "none"


def status_listen(settings: Settings) -> str:
    """Where the status port listens: for any IPv4 address, and for any IPv6 one where the workload has such an address."""
    host, port = split_address(settings.status_address, "--status-address")
    ipv6 = any(":" in address for address in settings.instance_ips or (settings.address,))
    return f":{port}" if host == "0.0.0.0" and ipv6 else settings.status_address


def place(settings: Settings) -> Place:
    # Without interception all workloads of a host share its ports: each keeps to its own address.
    shared = settings.interception == "none"
    status_host, status_port = split_address(settings.status_address, "--status-address")
    wildcard = status_host in WILDCARDS or on_loopback_too(settings)
    pilot = workload_id(settings.trust_domain, ROOT_NAMESPACE, PILOT_ACCOUNT)
    return Place(
        admin=split_address(settings.admin_address, "--admin-address"),
        agent=("::1" if status_host == "::" else "127.0.0.1", status_port)
        if wildcard
        else (status_host, status_port),
        listen_host=settings.address if shared else "",
        status_port=settings.envoy_status_port,
        prometheus_port=settings.prometheus_port,
        secure_metrics_port=settings.secure_metrics_port,
        secure_merged_metrics_port=settings.secure_merged_metrics_port,
        xds_socket=SOCKET,
        sds_socket=SOCKET,
        pilot_sans=(str(pilot),),
        outlier_log_path=settings.outlier_log_path,
        source_address=settings.address if shared else "",
        dual_stack=settings.dual_stack,
        compliance_policy=settings.compliance_policy,
        log_json=settings.envoy_log_json,
        host_ip=settings.host_ip,
    )


def split_address(text: str, setting: str) -> tuple[str, int]:
    """``host:port``. Raises FatalError naming the setting."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise FatalError(f"{setting} {text}: must be host:port")
    return host.strip("[]"), int(port)


def _pod_info(settings: Settings, name: str) -> dict[str, str]:
    """Labels or annotations that Kubernetes mounts; a name made for one generation of pods is left out."""
    file = Path(settings.pod_info) / name
    if not settings.pod_info or not file.exists():
        return {}
    found = parse_downward(_read(file, "--pod-info"))
    found.pop("pod-template-hash", None)
    return found


def _read(file: Path, setting: str) -> str:
    try:
        with file.open("rb") as opened:
            read = opened.read(LIMIT_BYTES + 1)
        if len(read) > LIMIT_BYTES:
            raise FatalError(f"{setting} {file}: larger than {LIMIT_BYTES >> 20} MiB")
        return read.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise FatalError(f"{setting} {file}: {error}") from error
