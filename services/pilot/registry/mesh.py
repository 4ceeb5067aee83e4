"""The mesh registry: services from ServiceEntries, endpoints from their lists, WorkloadEntries and live workloads. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from services.pilot.model.service import Endpoint, Port, Protocol, Service
from windward.config.object import ConfigObject
from windward.config.service_entry import Location, ServiceEntry
from windward.config.workload_entry import WorkloadEntry
from windward.registration import RegisteredWorkload
from windward.xds.resource import Origin

EPOCH = datetime.min.replace(tzinfo=UTC)


def age_order(item: ConfigObject[Any]) -> tuple[datetime, str, str]:
    """Oldest first; names decide between equals, the same way in every replica."""
    return (item.created_at or EPOCH, item.key.namespace, item.key.name)


def origin_of(item: ConfigObject[Any], path: str = "") -> Origin:
    return Origin(item.key.group, item.key.kind, item.key.namespace, item.key.name, path)


def services_of(entry: ConfigObject[ServiceEntry]) -> list[Service]:
    """One service a host."""
    spec = entry.spec
    selector = spec.workload_selector
    ports = tuple(
        Port(port.number, port.name, Protocol.of(port.protocol), port.target_port or port.number)
        for port in spec.ports
    )
    return [
        Service(
            host=host,
            namespace=entry.key.namespace,
            ports=ports,
            addresses=spec.addresses
            if len(spec.hosts) == 1 or len(spec.addresses) != len(spec.hosts)
            else (spec.addresses[index],),
            resolution=spec.resolution,
            external=spec.location is Location.MESH_EXTERNAL,
            export_to=spec.export_to,
            selector=tuple(sorted(selector.labels.items())) if selector else None,
            origin=origin_of(entry),
        )
        for index, host in enumerate(spec.hosts)
    ]


def listed_endpoints(entry: ConfigObject[ServiceEntry]) -> tuple[Endpoint, ...]:
    """Endpoints that the ServiceEntry lists itself; its own addresses where it lists none and resolves nothing."""
    made = [
        endpoint_of_entry(endpoint, entry.key.namespace, f"{entry.key.name}-{index}")
        for index, endpoint in enumerate(entry.spec.endpoints)
    ]
    return tuple(made)


def endpoint_of_entry(entry: WorkloadEntry, namespace: str, name: str) -> Endpoint:
    return Endpoint(
        address=entry.address,
        ports=dict(entry.ports),
        labels=dict(entry.labels),
        service_account=entry.service_account,
        namespace=namespace,
        workload=name,
        locality=entry.locality,
        weight=entry.weight or 1,
        mtls=entry.labels.get("security.istio.io/tlsMode") == "istio",
    )


def endpoint_of_workload(workload: RegisteredWorkload, *, healthy: bool) -> Endpoint:
    """A live workload has an agent beside it, so it speaks the mesh's mTLS."""
    return Endpoint(
        address=workload.address,
        ports=dict(workload.ports),
        labels=dict(workload.labels),
        service_account=workload.service_account,
        namespace=workload.namespace,
        workload=workload.name,
        locality=workload.locality,
        weight=workload.weight or 1,
        mtls=True,
        healthy=healthy,
    )
