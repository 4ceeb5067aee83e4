"""What the DNS proxy counts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LATENCY_S = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1, 5)


class DnsMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        requests = Counter(
            "windward_agent_dns_requests",
            "DNS queries, by who answers: own (the mesh's names), upstream, refused (malformed, too many, too early)",
            ["answered"],
            registry=registry,
        )
        # Bound once: a lookup by labels costs three times the increment.
        self.own = requests.labels("own")
        self.upstream = requests.labels("upstream")
        self.refused = requests.labels("refused")
        seconds = Histogram(
            "windward_agent_dns_request_duration_seconds",
            "From a query's arrival to its answer",
            ["answered"],
            buckets=LATENCY_S,
            registry=registry,
        )
        self.own_s = seconds.labels("own")
        self.upstream_s = seconds.labels("upstream")
        self.upstream_failures = Counter(
            "windward_agent_dns_upstream_failures",
            "Queries that no resolver answered",
            registry=registry,
        )
        self.loops = Counter(
            "windward_agent_dns_loops",
            "The proxy's own queries that came back to it",
            registry=registry,
        )
        self.names = Gauge(
            "windward_agent_dns_names", "Names of the mesh in the table", registry=registry
        )
