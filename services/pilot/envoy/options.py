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

    @property
    def telemetry(self) -> Telemetry:
        return Telemetry(bool(self.mixer_addresses), self.trust_domain)
