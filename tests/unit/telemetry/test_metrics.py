"""The metrics port's routes: Prometheus text, liveness, and readiness with its reason."""

from __future__ import annotations

from prometheus_client import Counter

from windward.rpc.http import Request
from windward.telemetry.metrics import metrics_routes, new_registry

ASK = Request("GET", "/", {}, "127.0.0.1")


async def test_metrics_are_prometheus_text_with_the_process_beside():
    registry = new_registry()
    Counter("windward_sample", "A sample", registry=registry).inc(3)
    answer = await metrics_routes(registry, lambda: "")["GET", "/metrics"](ASK)
    text = answer.body.decode()
    assert answer.status == 200
    assert answer.content_type.startswith("text/plain")
    assert "windward_sample_total 3.0" in text
    assert "process_resident_memory_bytes" in text


async def test_registries_are_apart():
    first, second = new_registry(), new_registry()
    Counter("windward_sample", "A sample", registry=first)
    Counter("windward_sample", "A sample", registry=second)
    assert first is not second


async def test_ready_says_why_not():
    reason = "waiting for the store"
    routes = metrics_routes(new_registry(), lambda: reason)
    refused = await routes["GET", "/healthz/ready"](ASK)
    assert (refused.status, refused.body) == (503, b"waiting for the store\n")
    assert (await routes["GET", "/healthz/live"](ASK)).status == 200
    reason = ""
    assert (await routes["GET", "/healthz/ready"](ASK)).status == 200
