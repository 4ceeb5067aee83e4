"""A connected proxy, as its node message describes it and its certificate confirms it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from windward.config.hosts import is_ip
from windward.identity.spiffe_id import SpiffeId


class ProxyRejected(Exception):
    """A node that is not what its certificate says, or that says nothing usable."""


class ProxyType(Enum):
    SIDECAR = "sidecar"
    ROUTER = "router"


class Interception(Enum):
    REDIRECT = "REDIRECT"
    TPROXY = "TPROXY"
    NONE = "NONE"


@dataclass(frozen=True, slots=True)
class Proxy:
    """Everything that generated configuration may depend on; frozen, so that it can be part of a group's key."""

    id: str
    type: ProxyType
    namespace: str
    name: str
    service_account: str
    address: str
    labels: tuple[tuple[str, str], ...]
    interception: Interception
    app_address: str
    identity: SpiffeId | None
    proxyless: bool = False
    """A gRPC client with xDS support (Istio's ``GENERATOR: grpc``)."""
    vips: bool = False
    """Whether its workload resolves names by the mesh's DNS and is given virtual addresses there (Istio's DNS_AUTO_ALLOCATE)."""

    ipv6: bool = False
    """Whether its workload has an IPv6 address (INSTANCE_IPS): what is intercepted then comes by both families."""

    @classmethod
    def from_node(
        cls, node_id: str, metadata: Mapping[str, Any], identity: SpiffeId | None
    ) -> Proxy:
        """Raises ProxyRejected for a node id that is not Istio's form, or metadata that the identity contradicts."""
        parts = node_id.split("~")
        if len(parts) != 4 or parts[0] not in {kind.value for kind in ProxyType}:
            raise ProxyRejected(
                f"node id {node_id[:200]!r} is not type~address~name.namespace~domain"
            )
        name, _, namespace = parts[2].rpartition(".")
        if not name or not namespace:
            raise ProxyRejected(f"node id {node_id[:200]!r} names no workload and namespace")
        account = str(metadata.get("SERVICE_ACCOUNT", ""))
        if identity is not None and identity.workload != (namespace, account):
            raise ProxyRejected(
                f"the node says namespace {namespace[:100]!r} and service account {account[:100]!r}, its certificate {identity}"
            )
        labels = metadata.get("LABELS") or {}
        if not isinstance(labels, Mapping):
            raise ProxyRejected("LABELS is not a mapping")
        try:
            interception = Interception(metadata.get("INTERCEPTION_MODE", "REDIRECT"))
        except ValueError as error:
            raise ProxyRejected(f"INTERCEPTION_MODE: {error}") from error
        return cls(
            id=node_id,
            type=ProxyType(parts[0]),
            namespace=namespace,
            name=name,
            service_account=account,
            address=parts[1],
            labels=tuple(sorted((str(key), str(value)) for key, value in labels.items())),
            interception=interception,
            app_address=str(metadata.get("APP_ADDRESS", "") or "127.0.0.1"),
            identity=identity,
            proxyless=metadata.get("GENERATOR") == "grpc",
            vips=_is_on(metadata, "DNS_CAPTURE") and _is_on(metadata, "DNS_AUTO_ALLOCATE"),
            ipv6=_has_ipv6(parts[1], metadata.get("INSTANCE_IPS")),
        )


def _has_ipv6(address: str, listed: object) -> bool:
    """``listed``: addresses with commas between, as Istio's agents say them."""
    addresses = [address, *(listed.split(",") if isinstance(listed, str) else ())]
    return any(is_ip(item.strip()) and ":" in item for item in addresses)


def _is_on(metadata: Mapping[str, Any], name: str) -> bool:
    """Metadata of environment variables are strings."""
    return str(metadata.get(name, "")).lower() in {"true", "1"}
