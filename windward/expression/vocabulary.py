"""The attributes that Mixer knows, and their types. Source: Istio's attribute vocabulary (1.4)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Final


class ValueType(Enum):
    STRING = "STRING"
    INT64 = "INT64"
    DOUBLE = "DOUBLE"
    BOOL = "BOOL"
    TIMESTAMP = "TIMESTAMP"
    IP_ADDRESS = "IP_ADDRESS"
    DURATION = "DURATION"
    STRING_MAP = "STRING_MAP"


Value = str | int | float | bool | datetime | IPv4Address | IPv6Address | Mapping[str, str]

S, INT, B, T, IP, D, M = (
    ValueType.STRING,
    ValueType.INT64,
    ValueType.BOOL,
    ValueType.TIMESTAMP,
    ValueType.IP_ADDRESS,
    ValueType.DURATION,
    ValueType.STRING_MAP,
)

_PEER: Final = {
    "name": S, "namespace": S, "principal": S, "user": S, "ip": IP, "port": INT, "labels": M, "serviceAccount": S,
    "workload.name": S, "workload.namespace": S, "uid": S,
}  # fmt: skip

VOCABULARY: Final[Mapping[str, ValueType]] = {
    **{f"source.{name}": kind for name, kind in _PEER.items()},
    **{f"destination.{name}": kind for name, kind in _PEER.items()},
    "destination.service.host": S,
    "destination.service.name": S,
    "destination.service.namespace": S,
    "request.id": S,
    "request.path": S,
    "request.url_path": S,
    "request.query_params": M,
    "request.host": S,
    "request.method": S,
    "request.scheme": S,
    "request.headers": M,
    "request.referer": S,
    "request.useragent": S,
    "request.size": INT,
    "request.time": T,
    "connection.mtls": B,
    "connection.requested_server_name": S,
    "context.protocol": S,
    "context.reporter.kind": S,
    "context.time": T,
}
"""Name -> type."""
