"""Metrics for Prometheus and health for probes, on one small HTTP port.

/metrics          Prometheus text
/healthz/live     200 while the process runs
/healthz/ready    200 once it serves; 503 with the reason otherwise
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from windward.rpc.http import Request, Response, Routes


def new_registry() -> CollectorRegistry:
    """A registry of one's own, with the process's CPU, memory and start time."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


def metrics_routes(registry: CollectorRegistry, not_ready: Callable[[], str]) -> Routes:
    """Routes of the metrics port. ``not_ready`` says why the process cannot serve yet; empty when it can."""

    async def metrics(_: Request) -> Response:
        return Response(200, generate_latest(registry), CONTENT_TYPE_LATEST)

    async def live(_: Request) -> Response:
        return Response(200, b"ok\n")

    async def ready(_: Request) -> Response:
        reason = not_ready()
        return Response(503, reason.encode() + b"\n") if reason else Response(200, b"ready\n")

    return {
        ("GET", "/metrics"): metrics,
        ("GET", "/healthz/live"): live,
        ("GET", "/healthz/ready"): ready,
    }
