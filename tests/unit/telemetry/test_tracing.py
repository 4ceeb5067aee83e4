"""Traces: nothing without an endpoint; with one, spans arrive there as OTLP over HTTP in JSON."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

WITHOUT = """
import sys
from windward.telemetry import tracing
flush = tracing.configure("windward-sample", "")
with tracing.span("thing.done", count=1):
    pass
flush()
sys.exit(any(name.startswith("opentelemetry") for name in sys.modules))
"""
WITH = """
import sys
from windward.telemetry import tracing
flush = tracing.configure("windward-sample", sys.argv[1] + "/")
with tracing.span("outer", kind="x"):
    with tracing.span("inner", count=2):
        pass
flush()
"""


def test_without_an_endpoint_nothing_is_loaded():
    assert subprocess.run([sys.executable, "-c", WITHOUT], timeout=50, check=False).returncode == 0


async def test_spans_arrive_at_the_endpoint():
    received: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue()

    async def collector(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        await received.put((head, await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(collector, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WITH, f"http://127.0.0.1:{port}", env={"NO_PROXY": "*"}
        )
        head, body = await received.get()
        assert await process.wait() == 0
    assert head.startswith(b"POST /v1/traces HTTP/1.1\r\n")
    (resource,) = _decode(head, body)["resourceSpans"]
    assert "windward-sample" in json.dumps(resource["resource"])
    spans = [span for scope in resource["scopeSpans"] for span in scope["spans"]]
    assert {span["name"] for span in spans} == {"outer", "inner"}
    inner, outer = sorted(spans, key=lambda span: span["name"])
    assert inner["parentSpanId"] == outer["spanId"]


def _decode(head: bytes, body: bytes) -> Any:
    if b"gzip" in head.lower():
        import gzip

        body = gzip.decompress(body)
    return json.loads(body)
