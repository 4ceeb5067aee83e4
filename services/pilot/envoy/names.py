"""Istio's names for generated resources, which dashboards, logs and people know."""

from __future__ import annotations

from typing import Final

PASSTHROUGH: Final = "PassthroughCluster"
BLACK_HOLE: Final = "BlackHoleCluster"
INBOUND_PASSTHROUGH: Final = "InboundPassthroughCluster"
VIRTUAL_OUTBOUND: Final = "virtualOutbound"
VIRTUAL_INBOUND: Final = "virtualInbound"
OUTBOUND_PORT: Final = 15001
HTTP_PROXY_PORT: Final = 15002
INBOUND_PORT: Final = 15006
HTTP_PROXY: Final = "http_proxy"
ALLOW_ANY: Final = "allow_any"
BLOCK_ALL: Final = "block_all"


def outbound(port: int, subset: str, host: str) -> str:
    return f"outbound|{port}|{subset}|{host}"


def sni(port: int, subset: str, host: str) -> str:
    return f"outbound_.{port}_.{subset}_.{host}"


def inbound(port: int) -> str:
    return f"inbound|{port}||"


def statistics(name: str) -> str:
    """As it stands in the names of Envoy's statistics: up to there it becomes a label, not part of a metric's name.

    The bootstrap's tags cluster_name and http_conn_manager_prefix look for the semicolon (services/agent/envoy/stats.py).
    """
    return f"{name};"
