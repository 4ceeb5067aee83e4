"""One call of grpc.health.v1.Health/Check over HTTP/2, by hand: gRPC's own channels cannot choose where they call from.

    preface, SETTINGS, HEADERS, DATA  ->        <- SETTINGS (answered), HEADERS, DATA = HealthCheckResponse

Only DATA of the stream is read: a server that is not serving, or that has no such service, sends none that says SERVING.
Source: RFC 9113 (4.1, 6), RFC 7541 (6.2.2), grpc doc/PROTOCOL-HTTP2.md, grpc/health/v1/health.proto.
"""

from __future__ import annotations

import asyncio
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7
ACK, END_STREAM, END_HEADERS, PADDED = 0x1, 0x1, 0x4, 0x8
STREAM = 1
SERVING = b"\x08\x01"
LIMIT_BYTES = 64 * 1024
MOST_FRAMES = 64


async def serving(
    host: str, port: int, service: str, *, timeout_s: float, source: str = ""
) -> bool:
    """Whether the application says that ``service`` (empty: all of it) serves. Raises OSError or TimeoutError."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(
            host, port, local_addr=(source, 0) if source else None
        )
        try:
            name = service.encode()
            if len(name) > 100:
                raise ConnectionError("the service's name is longer than 100 bytes")
            message = b"\x0a" + bytes([len(name)]) + name if name else b""
            request = b"\x00" + struct.pack(">I", len(message)) + message
            writer.write(
                PREFACE
                + frame(SETTINGS, 0, 0, b"")
                + frame(HEADERS, END_HEADERS, STREAM, headers(f"{host}:{port}"))
                + frame(DATA, END_STREAM, STREAM, request)
            )
            await writer.drain()
            return await _answer(reader, writer) == SERVING
        except asyncio.IncompleteReadError as error:
            raise ConnectionError(f"{host}:{port} does not speak gRPC") from error
        finally:
            writer.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The response's message; empty when the stream ends without one."""
    body = b""
    for _ in range(MOST_FRAMES):
        head = await reader.readexactly(9)
        size, kind, flags = int.from_bytes(head[:3]), head[3], head[4]
        stream = int.from_bytes(head[5:]) & 0x7FFFFFFF
        if size > LIMIT_BYTES:
            raise ConnectionError("a frame is too large")
        payload = await reader.readexactly(size)
        if kind == SETTINGS and not flags & ACK:
            writer.write(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            writer.write(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY or (kind == RST_STREAM and stream == STREAM):
            return b""
        elif stream == STREAM:
            if kind == DATA:
                body += payload[1 : size - payload[0]] if flags & PADDED else payload
            if flags & END_STREAM and kind in {DATA, HEADERS}:
                break
    return body[5:] if body[:1] == b"\x00" else b""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def headers(authority: str) -> bytes:
    """The request's header block: literals, never indexed, so that no table is needed."""
    fields = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "kube-probe/windward"),
    )
    return b"".join(b"\x10" + _text(name) + _text(value) for name, value in fields)


def _text(text: str) -> bytes:
    raw = text.encode("ascii")
    if len(raw) > 126:
        raise ConnectionError("a header is too long")
    return bytes([len(raw)]) + raw
