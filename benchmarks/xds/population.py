"""A mesh to measure: N services over K namespaces, and M sidecars that are endpoints of them. Pure.

A service: a ServiceEntry (STATIC, one port of P, visible everywhere) whose selector finds one registered workload, which
changes, and one WorkloadEntry or more, whose addresses are the fleet's. Every tenth has a VirtualService, every tenth a
DestinationRule with a subset. P ports make P route configurations, as many as a mesh's distinct HTTP ports: with P = 1
every route change sends all virtual hosts again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.fleet.identities import Member
from windward.registration import RegisteredWorkload

FIRST_PORT = 8000
TARGET_PORT = 8080
VERSION_LABELS = {"version": "v1", "security.istio.io/tlsMode": "istio"}


@dataclass(frozen=True, slots=True)
class Population:
    services: int
    streams: int
    scopes: int = 100
    ports: int = 20

    @property
    def replicas(self) -> int:
        """WorkloadEntries of each service: enough for one a stream."""
        return max(1, -(-self.streams // self.services))

    def namespace(self, service: int) -> str:
        return f"ns-{service % self.scopes:03d}"

    def app(self, service: int) -> str:
        return f"svc-{service:05d}"

    def host(self, service: int) -> str:
        return f"{self.app(service)}.{self.namespace(service)}.svc.cluster.local"

    def port(self, service: int) -> int:
        return FIRST_PORT + service % self.ports

    def cluster(self, service: int) -> str:
        """Name of the service's cluster and of its endpoints."""
        return f"outbound|{self.port(service)}||{self.host(service)}"

    def account(self, service: int, replica: int) -> str:
        return f"{self.app(service)}-{replica}"

    def address(self, service: int, replica: int) -> str:
        return f"10.{replica}.{service >> 8}.{service & 255}"

    def members(self) -> list[Member]:
        """Stream i is a sidecar of service i, of its first replica, then of the second..."""
        return [
            Member(
                name=f"{self.app(index % self.services)}-{index // self.services + 1}",
                namespace=self.namespace(index % self.services),
                service_account=self.account(index % self.services, index // self.services + 1),
                address=self.address(index % self.services, index // self.services + 1),
                app=self.app(index % self.services),
            )
            for index in range(self.streams)
        ]

    # ---- configuration ----------------------------------------------------------------------------------------------

    def objects(self) -> Iterator[dict[str, Any]]:
        """Everything that is configured, as JSON objects."""
        for service in range(self.services):
            yield self.service_entry(service)
            for replica in range(1, self.replicas + 1):
                yield self.workload_entry(service, replica)
            if service % 10 == 0:
                yield self.virtual_service(service, "rev-0")
            if service % 10 == 5:
                yield self.destination_rule(service)

    def _object(self, kind: str, service: int, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        return {
            "apiVersion": "networking.istio.io/v1",
            "kind": kind,
            "metadata": {"name": name, "namespace": self.namespace(service)},
            "spec": spec,
        }

    def service_entry(self, service: int) -> dict[str, Any]:
        port = {
            "number": self.port(service),
            "name": "http",
            "protocol": "HTTP",
            "targetPort": TARGET_PORT,
        }
        spec = {
            "hosts": [self.host(service)],
            "addresses": [f"240.240.{service >> 8}.{service & 255}"],
            "ports": [port],
            "location": "MESH_INTERNAL",
            "resolution": "STATIC",
            "exportTo": ["*"],
            "workloadSelector": {"labels": {"app": self.app(service)}},
        }
        return self._object("ServiceEntry", service, self.app(service), spec)

    def workload_entry(self, service: int, replica: int) -> dict[str, Any]:
        spec = {
            "address": self.address(service, replica),
            "ports": {"http": TARGET_PORT},
            "labels": {"app": self.app(service), **VERSION_LABELS},
            "serviceAccount": self.account(service, replica),
        }
        return self._object("WorkloadEntry", service, f"{self.app(service)}-{replica}", spec)

    def virtual_service(self, service: int, revision: str) -> dict[str, Any]:
        destination = {"host": self.host(service), "port": {"number": self.port(service)}}
        spec = {
            "hosts": [self.host(service)],
            "http": [
                {
                    "match": [{"headers": {"end-user": {"exact": "tester"}}}],
                    "headers": {"request": {"set": {"x-revision": revision}}},
                    "route": [{"destination": destination}],
                },
                {
                    "timeout": "5s",
                    "retries": {"attempts": 2, "perTryTimeout": "2s", "retryOn": "5xx"},
                    "route": [{"destination": destination}],
                },
            ],
        }
        return self._object("VirtualService", service, self.app(service), spec)

    def destination_rule(self, service: int) -> dict[str, Any]:
        spec = {
            "host": self.host(service),
            "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": 100}}},
            "subsets": [{"name": "v1", "labels": {"version": "v1"}}],
        }
        return self._object("DestinationRule", service, self.app(service), spec)

    # ---- registered workloads ---------------------------------------------------------------------------------------

    def workload(self, service: int, change: int = 0) -> RegisteredWorkload:
        """The workload that changes: every change gives it another address, as a new instance would have."""
        return RegisteredWorkload(
            namespace=self.namespace(service),
            name=f"{self.app(service)}-0",
            address=self.moved_address(service, change),
            workload_group=self.app(service),
            service_account=self.account(service, 1),
            labels={"app": self.app(service), "version": "v1"},
            ports={"http": TARGET_PORT},
        )

    def moved_address(self, service: int, change: int) -> str:
        if change == 0:
            return f"10.127.{service >> 8}.{service & 255}"
        return f"10.{128 + (change >> 16)}.{change >> 8 & 255}.{change & 255}"
