"""Waiting for parts of the mesh: a bounded number of small HTTP requests, with what was last seen in the error."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from time import monotonic

from windward.local.child import Child
from windward.local.errors import LocalMeshError

POLL_S = 0.05
LONGEST_POLL_S = 0.4
LIMIT_BYTES = 4 * 1024 * 1024
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


async def http_get(host: str, port: int, path: str, timeout_s: float = 2.0) -> tuple[int, bytes]:
    """One GET over a connection of its own; (status, body). Raises OSError or TimeoutError."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(host, port, limit=LIMIT_BYTES)
        try:
            writer.write(
                f"GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
            )
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            length = CONTENT_LENGTH.search(head)
            # Envoy keeps a finished connection open for a while: what is announced is all there is.
            body = await (reader.readexactly(int(length[1])) if length else reader.read(-1))
        except asyncio.IncompleteReadError as error:
            raise ConnectionError(f"{host}:{port} closed the connection") from error
        finally:
            writer.close()
    words = head.split(b" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        raise ConnectionError(f"{host}:{port} does not speak HTTP")
    return int(words[1]), body


async def wait_http(
    child: Child, host: str, port: int, *, timeout_s: float, path: str = "/healthz/ready"
) -> None:
    """Wait until the part answers 200. Raises LocalMeshError with its last words when it does not."""
    seen = "no answer"

    async def ready() -> bool:
        nonlocal seen
        try:
            status, body = await http_get(host, port, path)
        except (OSError, TimeoutError) as error:
            seen = str(error) or type(error).__name__
            return False
        seen = body.decode(errors="replace").strip()
        return status == 200

    await wait_until(ready, child, lambda: f"{host}:{port}{path}: {seen}", timeout_s)


async def wait_until(
    condition: Callable[[], object], child: Child, seen: Callable[[], str], timeout_s: float
) -> None:
    """Poll an async condition, ever more slowly, until it holds, the child keeps dying, or the time is over."""
    deadline = monotonic() + timeout_s
    pause_s = POLL_S
    while True:
        held = condition()
        if await held if asyncio.iscoroutine(held) else held:
            return
        if child.restarts >= 3:
            raise LocalMeshError(f"{child.spec.name} keeps dying:\n{child.last_words()}")
        if monotonic() > deadline:
            raise LocalMeshError(
                f"{child.spec.name} is not ready after {timeout_s:.0f} s ({seen()}); "
                f"its log is {child.spec.log}:\n{child.last_words()}"
            )
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.3, LONGEST_POLL_S)
