"""When probes make a workload healthy or not: so many results of one kind in a row. Pure.

Source: Istio's pilot/pkg/model health checks (pilot/cmd/pilot-agent/health), defaults as in Kubernetes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from windward.api.registry.v1 import registry_pb2

TIMEOUT_S, PERIOD_S, SUCCESSES, FAILURES = 1, 10, 1, 3


@dataclass(frozen=True, slots=True)
class Timing:
    """In seconds."""

    initial_delay_s: float
    timeout_s: float
    period_s: float


def timing(probe: registry_pb2.ReadinessProbe) -> Timing:
    return Timing(
        float(probe.initial_delay_seconds),
        float(probe.timeout_seconds or TIMEOUT_S),
        float(probe.period_seconds or PERIOD_S),
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Unhealthy until proven otherwise."""

    successes: int
    failures: int
    healthy: bool = False
    run: int = 0
    """How many results in a row have contradicted ``healthy``."""

    @classmethod
    def of(cls, probe: registry_pb2.ReadinessProbe) -> Verdict:
        return cls(probe.success_threshold or SUCCESSES, probe.failure_threshold or FAILURES)

    def after(self, *, success: bool) -> Verdict:
        if success == self.healthy:
            return replace(self, run=0)
        run = self.run + 1
        if run >= (self.successes if success else self.failures):
            return replace(self, healthy=success, run=0)
        return replace(self, run=run)
