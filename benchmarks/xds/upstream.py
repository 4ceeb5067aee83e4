"""What the real Envoys call: servers of one workload's identity that answer with their own address, and a caller that
asks through an Envoy every five milliseconds. All on loopback.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from time import monotonic_ns
from typing import Self

from benchmarks.fleet.identities import certificate, write_secret
from services.citadel.authority.root import Root

POLL_S = 0.005
"""Each asking takes two Envoys, a server and this program 0.4 ms of the cores that the push runs on: one every millisecond
made ACKs 0.6 ms later."""
ANSWER_S = 5.0


class Upstream:
    """One workload at many addresses; ``listen_at`` each before it is announced."""

    def __init__(
        self, root: Root, trust_domain: str, namespace: str, account: str, folder: Path
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        identity, roots = folder / "upstream.pem", folder / "upstream-roots.pem"
        write_secret(identity, certificate(root, trust_domain, namespace, account))
        roots.write_bytes(root.pem)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(identity)
        self._tls.load_verify_locations(roots)
        self._tls.verify_mode = ssl.CERT_REQUIRED
        self._servers: list[asyncio.Server] = []

    async def listen_at(self, address: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Answer(address), address, port, ssl=self._tls)
        self._servers.append(server)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()


class _Answer(asyncio.Protocol):
    """HTTP/1.1, as little of it as Envoy needs: requests without a body."""

    def __init__(self, address: str) -> None:
        body = address.encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        self._answer = head + body
        self._transport: asyncio.Transport
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._seen += data
        while b"\r\n\r\n" in self._seen:
            _, _, self._seen = self._seen.partition(b"\r\n\r\n")
            self._transport.write(self._answer)


class Caller:
    """Asks for one host through one Envoy's ``http_proxy`` port, over one connection."""

    def __init__(self, proxy: str, port: int, authority: str) -> None:
        self._proxy = proxy
        self._port = port
        self._request = f"GET / HTTP/1.1\r\nhost: {authority}\r\n\r\n".encode()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.failures = 0
        """Answers other than 200, and broken connections."""

    async def until(self, address: str, timeout_s: float) -> int:
        """When an answer first came from this address, in ns of the monotonic clock; asks every ``POLL_S``."""
        async with asyncio.timeout(timeout_s):
            while True:
                due = asyncio.get_running_loop().time() + POLL_S
                if await self._ask() == address:
                    return monotonic_ns()
                await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))

    async def _ask(self) -> str:
        """The body of one answer; empty, and counted, for a failure."""
        try:
            async with asyncio.timeout(ANSWER_S):
                if self._streams is None:
                    self._streams = await asyncio.open_connection(self._proxy, self._port)
                reader, writer = self._streams
                writer.write(self._request)
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode("latin-1").lower().split("\r\n")
                length = next(int(x[15:]) for x in lines if x.startswith("content-length:"))
                body = await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError, TimeoutError, StopIteration):
            self.failures += 1
            self.close()
            return ""
        if " 200 " not in lines[0]:
            self.failures += 1
            return ""
        return body.decode()

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
