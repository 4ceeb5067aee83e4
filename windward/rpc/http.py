"""A small HTTP/1.1 server for status and metrics: bounded in everything, one request a connection.

It serves probes and scrapes, not users: no bodies are read, no keep-alive is offered, and a client that is slow or
large is cut off. Where it has a certificate it speaks TLS too, on the same port: the first byte tells which
(either.py), and a caller's certificate says who it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from windward.identity.spiffe_id import SpiffeId
from windward.process import FatalError
from windward.rpc.either import EitherServer, TlsNow, caller_of
from windward.telemetry.logging import get_logger

log = get_logger()
HEAD_LIMIT_BYTES = 16 * 1024
READ_TIMEOUT_S = 5.0
WRITE_TIMEOUT_S = 30.0
LOOPBACK = "127.0.0.1"
BOTH_FAMILIES = ("0.0.0.0", "::")
THIS_MACHINE = frozenset({LOOPBACK, "::1", "::ffff:127.0.0.1"})


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    query: Mapping[str, list[str]]
    peer: str
    """The caller's address."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Lower-case name -> value; of several of one name, the values by comma."""
    target: str = ""
    """Path and query as they were asked for."""
    identity: SpiffeId | None = None
    """Whose certificate the caller has proved to have; None without one."""

    @property
    def local(self) -> bool:
        """From this machine, by its loopback address."""
        return self.peer in THIS_MACHINE


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"


Handler = Callable[[Request], Awaitable[Response]]
Routes = Mapping[tuple[str, str], Handler]
"""(method, path) -> handler."""


async def serve_http(
    host: str,
    port: int,
    routes: Routes,
    otherwise: Handler | None = None,
    *,
    tls: TlsNow | None = None,
    shared: bool = False,
) -> asyncio.Server | EitherServer:
    """Start serving; ``otherwise`` answers for paths without a route. Raises OSError when the port is taken.

    ``tls`` gives the material to speak TLS with, once there is some. ``shared``: other processes serve the same port.
    """

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(
            OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
        ):
            async with asyncio.timeout(READ_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
            response = await _guarded(head, writer, routes, otherwise)
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                writer.write(_render(response))
                await writer.drain()
        writer.close()

    if tls is not None:
        return await EitherServer.start(
            connection, host, port, tls, limit=HEAD_LIMIT_BYTES, shared=shared
        )
    return await asyncio.start_server(
        connection, host, port, limit=HEAD_LIMIT_BYTES, reuse_port=shared or None
    )


@asynccontextmanager
async def http_at(
    address: str,
    routes: Routes,
    *,
    setting: str,
    otherwise: Handler | None = None,
    tls: TlsNow | None = None,
    shared: bool = False,
    loopback: bool = False,
) -> AsyncIterator[int]:
    """Serve at ``host:port`` while the block lasts; gives the port in use. Raises FatalError naming the setting.

    Without a host: any address of both families. ``loopback``: at 127.0.0.1 and the same port too.
    """
    host, _, port = address.rpartition(":")
    servers: list[asyncio.Server | EitherServer] = []
    try:
        try:
            number = int(port)
            hosts = (host.strip("[]"),) if host else BOTH_FAMILIES
            for at in (*hosts, *([LOOPBACK] if loopback else [])):
                servers.append(
                    await serve_http(at, number, routes, otherwise, tls=tls, shared=shared)
                )
                number = servers[0].sockets[0].getsockname()[1]
        except (OSError, ValueError, OverflowError) as error:
            raise FatalError(f"{setting} {address}: {error}") from error
        yield number
    finally:
        for server in servers:
            server.close()


async def _guarded(
    head: bytes, writer: asyncio.StreamWriter, routes: Routes, otherwise: Handler | None
) -> Response:
    """An answer to anything: what a handler raises is a 500, what is no request a 400."""
    try:
        return await _answer(head, writer, routes, otherwise)
    except ValueError:
        return Response(400, b"not a request\n")
    except Exception as error:
        log.exception("http.failed", reason=f"{type(error).__name__}: {error}")
        return Response(500, b"internal error\n")


async def _answer(
    head: bytes, writer: asyncio.StreamWriter, routes: Routes, otherwise: Handler | None
) -> Response:
    first, *lines = head.split(b"\r\n")
    words = first.split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        return Response(400, b"not an HTTP/1.1 request\n")
    target = urlsplit(words[1].decode("latin-1"))
    method = words[0].decode("latin-1")
    peer = writer.get_extra_info("peername")
    request = Request(
        method,
        target.path,
        parse_qs(target.query),
        str(peer[0]) if peer else "",
        _headers(lines),
        words[1].decode("latin-1"),
        caller_of(writer),
    )
    handler = routes.get((method, target.path))
    if handler is not None:
        return await handler(request)
    if any(path == target.path for _, path in routes):
        return Response(405, b"method not allowed\n")
    if otherwise is not None:
        return await otherwise(request)
    return Response(404, b"not found\n")


def _headers(lines: list[bytes]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            key, text = name.lower(), value.strip()
            found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def _render(response: Response) -> bytes:
    head = (
        f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}\r\n"
        f"content-type: {response.content_type}\r\n"
        f"content-length: {len(response.body)}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + response.body
