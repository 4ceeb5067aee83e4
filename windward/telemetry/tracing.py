"""Traces, when an endpoint is configured; without one nothing is imported and every call costs a null check.

OTLP over HTTP with JSON: the protobuf exporters do not import beside the Envoy messages (both bring the same files).
Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_tracer: Any = None


def configure(service: str, endpoint: str) -> Callable[[], None]:
    """Export spans to an OTLP/HTTP endpoint; returns what flushes and ends it. Does nothing for an empty endpoint."""
    global _tracer  # noqa: PLW0603  one tracer a process, as there is one process name
    if not endpoint:
        return lambda: None
    from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = provider.get_tracer("windward")
    return provider.shutdown


@contextmanager
def span(name: str, **attributes: str | float) -> Iterator[None]:
    """A span around a block; free when tracing is off."""
    if _tracer is None:
        yield
        return
    with _tracer.start_as_current_span(name, attributes=attributes):
        yield
