"""One small HTTP/1.1 request: bounded in time and size, from an address of one's choice. For probes and scrapes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

HEAD_LIMIT_BYTES = 64 * 1024


class TooLarge(OSError):
    """The answer is larger than allowed."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """Lower-case name -> value."""
    body: bytes


def _anybody() -> ssl.SSLContext:
    """Kubelet does not verify either: a probe asks whether the application answers, not who it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def get(
    host: str,
    port: int,
    target: str,
    headers: Mapping[str, str],
    *,
    timeout_s: float,
    limit_bytes: int,
    source: str = "",
    tls: bool = False,
    cut: bool = False,
) -> Answer:
    """GET over a connection of its own. ``cut``: a larger body is cut off, not an error.

    Raises OSError (TooLarge for a body over ``limit_bytes``) or TimeoutError.
    """
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(
            host,
            port,
            limit=HEAD_LIMIT_BYTES,
            ssl=_anybody() if tls else None,
            local_addr=(source, 0) if source else None,
        )
        try:
            lines = [f"GET {target} HTTP/1.1", *(f"{name}: {headers[name]}" for name in headers)]
            writer.write("\r\n".join([*lines, "connection: close", "", ""]).encode("latin-1"))
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            status, found = _parse(head)
            body = await _body(reader, found, limit_bytes, cut=cut)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise ConnectionError(f"{host}:{port} does not answer with HTTP: {error}") from error
        finally:
            writer.close()
    return Answer(status, found, body)


def _parse(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
        raise ValueError("no status line")
    pairs = (line.partition(":") for line in lines if ":" in line)
    return int(words[1]), {name.lower(): value.strip() for name, _, value in pairs}


async def _body(
    reader: asyncio.StreamReader, headers: Mapping[str, str], limit: int, *, cut: bool
) -> bytes:
    parts: list[bytes] = []
    room = limit + 1
    if "chunked" in headers.get("transfer-encoding", "").lower():
        while room > 0 and (size := int((await reader.readline()).split(b";")[0] or b"0", 16)):
            parts.append(await reader.readexactly(min(size, room)))
            room -= size
            if room > 0:
                await reader.readline()
    else:
        length = headers.get("content-length", "")
        left = int(length) if length.isdigit() else limit + 1
        # Cut off early or not: what has come is what there is, as with every other HTTP/1.0 body.
        with suppress(ConnectionError):
            while room > 0 and left > 0 and (part := await reader.read(min(left, room, 65536))):
                parts.append(part)
                room -= len(part)
                left -= len(part)
        if length.isdigit() and left > 0 and room > 0:
            raise ValueError("the body ends early")
    body = b"".join(parts)
    if len(body) > limit and not cut:
        raise TooLarge(f"the answer is larger than {limit} bytes")
    return body[:limit]
