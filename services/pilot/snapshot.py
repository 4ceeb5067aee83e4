"""The mesh at one moment, and how it differs from the moment before: what builders read, and what tells them what to rebuild.

    services.pilot.state.MeshState -> (MeshSnapshot, Delta) -> scopes and groups

Snapshots are immutable and share with their predecessors everything that did not change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.pilot.credentials.credential import Credential, CredentialName
from services.pilot.model.hosts import HostIndex
from services.pilot.model.service import Endpoint, Service
from services.pilot.model.sidecar_scope import Sidecars
from services.pilot.model.vips import Vips
from windward.config.destination_rule import DestinationRule
from windward.config.gateway import Gateway
from windward.config.object import ConfigObject
from windward.config.peer_authentication import PeerAuthentication
from windward.config.virtual_service import VirtualService
from windward.identity.names import ROOT_NAMESPACE

Address = tuple[str, str]
"""(namespace, IP address) of a workload."""


@dataclass(frozen=True, slots=True)
class MeshSnapshot:
    version: int = 0
    revision: int = 0
    """The store's revision that configuration is at."""
    position: str = ""
    """How much of the store it reflects, as agents are told it: a Position."""
    services: Mapping[str, Service] = field(default_factory=dict)
    """Host -> service; of several with one host the oldest."""
    endpoints: Mapping[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    """Host -> everything behind it."""
    hosts_at: Mapping[Address, tuple[str, ...]] = field(default_factory=dict)
    """Workload -> hosts that it is behind, in order of their names."""
    vips: Vips = field(default_factory=Vips)
    """Addresses of services that were given none, for the proxies that resolve names by the mesh's DNS."""
    rules: HostIndex[ConfigObject[DestinationRule]] = field(default_factory=HostIndex)
    routes: HostIndex[ConfigObject[VirtualService]] = field(default_factory=HostIndex)
    gateway_routes: tuple[ConfigObject[VirtualService], ...] = ()
    """VirtualServices that name gateways, oldest first."""
    gateway_destinations: frozenset[str] = frozenset()
    """The services that they send to."""
    virtual_services: int = 0
    """How many there are."""
    routes_by_label: bool = False
    """Whether a VirtualService matches by the caller's labels: routes then differ by them."""
    gateways: tuple[ConfigObject[Gateway], ...] = ()
    credentials: Mapping[CredentialName, Credential] = field(default_factory=dict)
    """Gateways' certificates and roots."""
    peer_authentications: tuple[ConfigObject[PeerAuthentication], ...] = ()
    """Oldest first."""
    sidecars: Sidecars = field(default_factory=lambda: Sidecars(ROOT_NAMESPACE))
    checks_open: bool = False
    """Whether a Mixer rule that fails open decides about requests."""
    checks_closed: bool = False

    def endpoint_at(self, address: Address) -> Endpoint | None:
        """A workload as an endpoint of the first service that it is behind."""
        for host in self.hosts_at.get(address, ()):
            for endpoint in self.endpoints[host]:
                if (endpoint.namespace, endpoint.address) == address:
                    return endpoint
        return None


@dataclass(frozen=True, slots=True)
class Delta:
    """What differs from the snapshot before. Hosts are those of services."""

    services: frozenset[str] = frozenset()
    """Added, removed or otherwise; their endpoints apart."""
    endpoints: frozenset[str] = frozenset()
    rules: frozenset[str] = frozenset()
    """Hosts that a changed DestinationRule is about."""
    routes: frozenset[str] = frozenset()
    """Hosts that a changed VirtualService is about."""
    addresses: frozenset[Address] = frozenset()
    """Workloads whose labels, or services, may have changed."""
    gateways: bool = False
    """Gateways, or VirtualServices that name some."""
    credentials: frozenset[CredentialName] = frozenset()
    peers: bool = False
    checks: bool = False
    scopes: bool = False
    """Sidecars, or whether routes differ by label: a proxy may be of another scope now."""

    @property
    def hosts(self) -> frozenset[str]:
        return self.services | self.endpoints | self.rules | self.routes

    @property
    def only_endpoints(self) -> bool:
        """Whether services, policies and who is of which scope are what they were."""
        return self == Delta(endpoints=self.endpoints, addresses=self.addresses)

    def __bool__(self) -> bool:
        return self != NOTHING


NOTHING = Delta()
