"""Pilot's metrics; Istio's names where Istio has one."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from services.pilot.loop_watch import LoopWatch
from services.pilot.push_counts import PushCounts
from windward.telemetry.metrics import new_registry

REGISTRY = new_registry()

CONNECTED = Gauge("pilot_xds", "Proxies connected by xDS", ["version"], registry=REGISTRY)
PUSHED = PushCounts()
REGISTRY.register(PUSHED)
SERVICES = Gauge("pilot_services", "Services known", registry=REGISTRY)
VIRTUAL_SERVICES = Gauge("pilot_virt_services", "VirtualServices known", registry=REGISTRY)
PUBLISH_TIME = Histogram(
    "pilot_snapshot_publish_seconds",
    "From the first change of a batch to its snapshot in force",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
    registry=REGISTRY,
)
CONVERGENCE = Histogram(
    "pilot_proxy_convergence_time",
    "From the first change of a push to a proxy's ACK of all of it, seconds",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 3, 5, 10, 20, 30),
    registry=REGISTRY,
)
LOOP_HOLD = Gauge(
    "pilot_loop_longest_hold_seconds",
    "Longest time that the event loop was held since the last scrape",
    registry=REGISTRY,
)
CREDENTIALS_REFUSED = Counter(
    "pilot_gateway_credentials_refused",
    "Certificates that a proxy claimed as a gateway, and that its service account may not have",
    registry=REGISTRY,
)
REGISTRY_OBJECTS = Gauge(
    "pilot_registry_objects",
    "Services and endpoints that a registry has told",
    ["registry"],
    registry=REGISTRY,
)
REGISTRY_UP = Gauge(
    "pilot_registry_up",
    "Whether a registry's source answers (1); while not, what it said last stays (0)",
    ["registry"],
    registry=REGISTRY,
)
REGISTRY_PROBLEMS = Gauge(
    "pilot_registry_problems",
    "What a registry found and cannot be used; the log has each with its place",
    ["registry"],
    registry=REGISTRY,
)
REGISTRY_CONFLICTS = Gauge(
    "pilot_registry_conflicts",
    "Hosts that a registry has and an earlier one wins",
    registry=REGISTRY,
)


def watch_loop(watch: LoopWatch) -> None:
    """Every scrape takes the longest hold and begins a new one."""
    LOOP_HOLD.set_function(watch.take_longest_s)


MOST_VERSIONS = 20
_versions: set[str] = set()


def connected(version: str, change: int) -> None:
    """A proxy of a version came (1) or went (-1). Proxies say the version themselves: it is bounded in length and number."""
    label = version[:40] or "unknown"
    if label not in _versions and len(_versions) >= MOST_VERSIONS:
        label = "other"
    _versions.add(label)
    CONNECTED.labels(label).inc(change)
