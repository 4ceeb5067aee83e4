"""Services and what is behind them, independent of where they were registered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import msgspec

from windward.config.service_entry import Resolution
from windward.xds.resource import Origin


class Protocol(Enum):
    """How Envoy treats a port's bytes."""

    HTTP = "http"
    HTTP2 = "http2"
    TCP = "tcp"

    @classmethod
    def of(cls, name: str) -> Protocol:
        """From Istio's protocol names."""
        match name.upper():
            case "HTTP" | "HTTP_PROXY":
                return cls.HTTP
            case "HTTP2" | "GRPC" | "GRPC-WEB":
                return cls.HTTP2
        return cls.TCP

    @property
    def is_http(self) -> bool:
        return self is not Protocol.TCP


@dataclass(frozen=True, slots=True)
class Port:
    number: int
    name: str
    protocol: Protocol
    target: int
    """Where a workload listens unless it says otherwise."""


@dataclass(frozen=True, slots=True)
class Service:
    host: str
    namespace: str
    ports: tuple[Port, ...]
    addresses: tuple[str, ...]
    resolution: Resolution
    external: bool
    """MESH_EXTERNAL: its endpoints have no sidecar unless they say so."""
    export_to: tuple[str, ...]
    selector: tuple[tuple[str, str], ...] | None
    """Labels of the workloads behind it; None when its endpoints are listed."""
    origin: Origin

    def visible_in(self, namespace: str) -> bool:
        """Istio's exportTo: empty and ``*`` mean everywhere, ``.`` its own namespace."""
        if not self.export_to or "*" in self.export_to:
            return True
        return namespace in self.export_to or (
            "." in self.export_to and namespace == self.namespace
        )

    def port(self, number: int) -> Port | None:
        return next((port for port in self.ports if port.number == number), None)


class Endpoint(msgspec.Struct, frozen=True, gc=False):
    """One address behind one service; port numbers by the service's port names."""

    address: str
    ports: dict[str, int]
    labels: dict[str, str]
    service_account: str
    """SPIFFE id's service account, with its namespace in ``namespace``; empty when unknown."""
    namespace: str
    workload: str
    locality: str = ""
    weight: int = 1
    mtls: bool = False
    """Whether a sidecar that speaks the mesh's mTLS is in front of it."""
    healthy: bool = True


def labels_match(selector: tuple[tuple[str, str], ...], labels: dict[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector)
