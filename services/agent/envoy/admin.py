"""What the agent asks of Envoy's admin interface. Source: https://www.envoyproxy.io/docs/envoy/latest/operations/admin"""

from __future__ import annotations

import asyncio
import re

TIMEOUT_S = 2.0
LIMIT_BYTES = 32 * 1024 * 1024
_ACTIVE = re.compile(r"^listener\.(?!admin)[^:]*?downstream_cx_active: (\d+)$", re.MULTILINE)


class Admin:
    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)

    async def get(self, path: str) -> tuple[int, bytes]:
        return await self._request("GET", path)

    async def post(self, path: str) -> tuple[int, bytes]:
        return await self._request("POST", path)

    async def _request(self, method: str, path: str) -> tuple[int, bytes]:
        """One request over a connection of its own. Raises OSError or TimeoutError."""
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(
                self._host, self._port, limit=LIMIT_BYTES
            )
            try:
                head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                writer.write(head.encode())
                await writer.drain()
                answer = await reader.read(-1)
            finally:
                writer.close()
        head_bytes, _, body = answer.partition(b"\r\n\r\n")
        words = head_bytes.split(b" ", 2)
        if b"transfer-encoding: chunked" in head_bytes.lower():
            body = _dechunk(body)
        return (int(words[1]) if len(words) > 1 and words[1].isdigit() else 0), body

    async def not_ready(self) -> str:
        """Why Envoy cannot serve yet; empty when it can: CDS and LDS accepted once, and LIVE."""
        try:
            _, stats = await self.get(
                "/stats?filter=^(server.state|cluster_manager.cds.update_success|listener_manager.lds.update_success|"
                "cluster_manager.cds.update_rejected|listener_manager.lds.update_rejected)$"
            )
        except (OSError, TimeoutError):
            return "Envoy does not answer"
        found = dict(line.split(": ", 1) for line in stats.decode().splitlines() if ": " in line)
        for name, what in (
            ("cluster_manager.cds", "clusters"),
            ("listener_manager.lds", "listeners"),
        ):
            if int(found.get(f"{name}.update_success", "0")) == 0:
                rejected = int(found.get(f"{name}.update_rejected", "0"))
                return f"Envoy has {'rejected' if rejected else 'not received'} its {what}"
        return "" if found.get("server.state") == "0" else "Envoy is not LIVE"

    async def serves_application(self) -> bool:
        """Whether Envoy can serve, and has the clusters and listeners that lead to its application."""
        if await self.not_ready():
            return False
        try:
            _, stats = await self.get(
                "/stats?filter=^cluster.inbound|^listener_manager.total_listeners_warming"
            )
        except (OSError, TimeoutError):
            return False
        return b"cluster.inbound" in stats and b"total_listeners_warming: 0" in stats

    async def active_connections(self) -> int:
        """Connections of its listeners, the admin's own left out."""
        _, stats = await self.get("/stats?usedonly&filter=^listener.*downstream_cx_active$")
        return sum(int(number) for number in _ACTIVE.findall(stats.decode()))


def _dechunk(body: bytes) -> bytes:
    """A chunked body (RFC 9112, 7.1) in one piece."""
    parts: list[bytes] = []
    rest = body
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size.split(b";")[0] or b"0", 16)
        if not length:
            return b"".join(parts)
        parts.append(rest[:length])
        rest = rest[length + 2 :]
