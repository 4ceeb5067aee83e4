"""What is the same for every proxy of this Pilot."""

from __future__ import annotations

from dataclasses import dataclass

from services.pilot.envoy.http import Telemetry


@dataclass(frozen=True, slots=True)
class Options:
    trust_domain: str
    allow_any: bool
    """Whether hosts that no service has may be called."""
    mixer_addresses: tuple[str, ...]
    gateway_accounts: frozenset[tuple[str, str]] = frozenset()
    """(namespace, service account) of those that may have the certificates that Gateways name."""

    @property
    def telemetry(self) -> Telemetry:
        return Telemetry(bool(self.mixer_addresses), self.trust_domain)
