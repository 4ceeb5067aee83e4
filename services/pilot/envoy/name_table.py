"""What the agents' DNS proxies answer for a host: one name table of one entry, so that only what changed moves. Pure.

    service, endpoints, virtual addresses -> Resource(NAME_TABLE, host, ...), or None: the name is left to other resolvers

Addresses are the service's own; else the virtual ones that were allocated to it; else, of a headless service, those of its
endpoints. Hosts that have none of these stay what they are to everybody else.
Source: Istio's pkg/dns/server/name_table.go (BuildNameTable); wire: proto/istio/networking/nds/v1/nds.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from services.pilot.envoy.common import resource
from services.pilot.model.service import Endpoint, Service
from windward.api.istio.networking.nds.v1 import nds_pb2
from windward.config.hosts import is_ip
from windward.config.service_entry import Resolution
from windward.xds.resource import NAME_TABLE, Resource

MOST_ADDRESSES: Final = 1000
"""A quarter of what a DNS answer over TCP can hold."""


def name_table(
    service: Service, endpoints: Iterable[Endpoint], vips: Sequence[str] = ()
) -> Resource | None:
    """The name table of a host. ``vips``: ``Vips.addresses(host)``, where virtual addresses are in use."""
    addresses = [address for address in service.addresses if is_ip(address)] or vips
    if not addresses and is_headless(service):
        addresses = _endpoint_addresses(endpoints)
    if not addresses:
        return None
    made = nds_pb2.NameTable()
    entry = made.table[service.host]
    entry.ips.extend(addresses)
    entry.registry = "Kubernetes" if service.origin.kind == "Service" else "Mesh"
    labels = service.host.split(".")
    if labels[1:3] == [service.namespace, "svc"] and len(labels) > 3:
        entry.shortname, entry.namespace = labels[0], service.namespace
    return resource(NAME_TABLE, service.host, made, (service.origin,))


def is_headless(service: Service) -> bool:
    """Whether its name stands for its endpoints: connections go where they were meant to, past any choice of Envoy's."""
    return not service.addresses and service.resolution is Resolution.NONE


def _endpoint_addresses(endpoints: Iterable[Endpoint]) -> list[str]:
    """In a fixed order, and without those that are down unless all are: a name without addresses helps nobody."""
    known = [endpoint for endpoint in endpoints if is_ip(endpoint.address)]
    healthy = [endpoint for endpoint in known if endpoint.healthy]
    return sorted({endpoint.address for endpoint in healthy or known})[:MOST_ADDRESSES]
