"""A destination's traffic policy as it applies to one port and subset. Pure.

Source: istio pilot/pkg/networking/util/util.go, MergeTrafficPolicy: a matching port-level entry replaces the
destination-level policy whole; a subset overrides section by section.
"""

from __future__ import annotations

from dataclasses import dataclass

from windward.config.destination_rule import DestinationRule
from windward.config.traffic_policy import (
    ClientTLSMode,
    ClientTLSSettings,
    ConnectionPoolSettings,
    LoadBalancerSettings,
    OutlierDetection,
    PortTrafficPolicy,
    SimpleLB,
    TrafficPolicy,
)


@dataclass(frozen=True, slots=True)
class _Sections:
    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None

    def over(self, lower: _Sections) -> _Sections:
        return _Sections(
            self.load_balancer or lower.load_balancer,
            self.connection_pool or lower.connection_pool,
            self.outlier_detection or lower.outlier_detection,
            self.tls or lower.tls,
        )


@dataclass(frozen=True, slots=True)
class EffectivePolicy:
    """Zero means: not limited, or Envoy's default."""

    load_balancer: SimpleLB = SimpleLB.UNSPECIFIED
    connect_timeout_s: float = 0.0
    max_connections: int = 0
    max_pending_requests: int = 0
    max_requests: int = 0
    max_retries: int = 0
    max_requests_per_connection: int = 0
    outlier: OutlierDetection | None = None
    tls: ClientTLSMode | None = None
    """None: by what each endpoint can (auto mTLS)."""

    @property
    def passthrough(self) -> bool:
        return self.load_balancer is SimpleLB.PASSTHROUGH


def effective(rule: DestinationRule | None, port: int, subset: str) -> EffectivePolicy:
    """What applies to a port and subset of a rule's host."""
    if rule is None:
        return EffectivePolicy()
    sections = _sections(rule.traffic_policy, port)
    for item in rule.subsets:
        if item.name == subset and subset:
            own = _sections(item.traffic_policy, port)
            sections = own if _has_port(item.traffic_policy, port) else own.over(sections)
            break
    pool = sections.connection_pool
    tcp = pool.tcp if pool else None
    http = pool.http if pool else None
    balancer = sections.load_balancer
    return EffectivePolicy(
        load_balancer=(balancer.simple if balancer and balancer.simple else SimpleLB.UNSPECIFIED),
        connect_timeout_s=float(tcp.connect_timeout or 0) if tcp else 0.0,
        max_connections=tcp.max_connections if tcp else 0,
        max_pending_requests=http.http1_max_pending_requests if http else 0,
        max_requests=http.http2_max_requests if http else 0,
        max_retries=http.max_retries if http else 0,
        max_requests_per_connection=http.max_requests_per_connection if http else 0,
        outlier=sections.outlier_detection,
        tls=sections.tls.mode if sections.tls else None,
    )


def _has_port(policy: TrafficPolicy | None, port: int) -> bool:
    """Whether a policy has an entry for this port: its sections are then all there are."""
    settings = policy.port_level_settings if policy else ()
    return any(item.port is not None and item.port.number == port for item in settings)


def _sections(policy: TrafficPolicy | None, port: int) -> _Sections:
    if policy is None:
        return _Sections()
    chosen: TrafficPolicy | PortTrafficPolicy = policy
    for setting in policy.port_level_settings:
        if setting.port is not None and setting.port.number == port:
            chosen = setting
    return _Sections(
        chosen.load_balancer, chosen.connection_pool, chosen.outlier_detection, chosen.tls
    )
