"""What the agent asks of Envoy's admin interface. Source: https://www.envoyproxy.io/docs/envoy/latest/operations/admin"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass

TIMEOUT_S = 2.0
LIMIT_BYTES = 32 * 1024 * 1024
_ACTIVE = re.compile(r"^listener\.(.+)\.downstream_cx_active: (\d+)$", re.MULTILINE)
_ARRIVED = re.compile(r"^(?:http|listener)\.(.+)\.downstream_(?:rq|cx)_total: (\d+)$", re.MULTILINE)
_UNCOUNTED = re.compile(r"^admin\b|^envoy_internal|\.(?:worker_\d+|main_thread)$")


NO_ANSWER = "Envoy does not answer"


@dataclass(frozen=True, slots=True)
class Updates:
    """Whether Envoy has ever taken, or refused, what Pilot sent of one kind."""

    accepted: bool
    rejected: bool

    def problem(self, what: str) -> str:
        if self.accepted:
            return ""
        return f"Envoy has {'rejected' if self.rejected else 'not received'} its {what}"


@dataclass(frozen=True, slots=True)
class EnvoyState:
    live: bool
    workers: bool
    clusters: Updates
    listeners: Updates

    @property
    def problem(self) -> str:
        """Why Envoy cannot serve; empty when it can."""
        return (
            self.clusters.problem("clusters")
            or self.listeners.problem("listeners")
            or ("" if self.live else "Envoy is not LIVE")
            or ("" if self.workers else "Envoy's workers have not started")
        )


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

    async def state(self) -> EnvoyState:
        """What readiness depends on. Raises OSError or TimeoutError."""
        _, stats = await self.get(
            "/stats?filter=^(server.state|listener_manager.workers_started|cluster_manager.cds.update_(success|rejected)|"
            "listener_manager.lds.update_(success|rejected))$"
        )
        lines = (line.split(": ", 1) for line in stats.decode().splitlines() if ": " in line)
        found = {name: int(value) for name, value in lines if value.isdigit()}
        return EnvoyState(
            live=found.get("server.state") == 0,
            workers=found.get("listener_manager.workers_started", 0) > 0,
            clusters=_updates(found, "cluster_manager.cds"),
            listeners=_updates(found, "listener_manager.lds"),
        )

    async def not_ready(self) -> str:
        """Why Envoy cannot serve yet; empty when it can."""
        try:
            return (await self.state()).problem
        except (OSError, TimeoutError):
            return NO_ANSWER

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

    async def arrivals(self) -> int:
        """How many connections and requests have come to inbound listeners so far: unchanged while nobody calls."""
        _, stats = await self.get(
            "/stats?usedonly&filter=^http.inbound_.*downstream_rq_total$|^listener.*downstream_cx_total$"
        )
        return sum(
            int(number)
            for name, number in _ARRIVED.findall(stats.decode())
            if not _UNCOUNTED.search(name)
        )

    async def active_connections(self, ports: Container[int] = ()) -> int:
        """Connections of its listeners: the admin's, internal ones and those of ``ports`` left out."""
        _, stats = await self.get("/stats?usedonly&filter=^listener.*downstream_cx_active$")
        return sum(
            int(number)
            for listener, number in _ACTIVE.findall(stats.decode())
            if not _UNCOUNTED.search(listener) and _port(listener) not in ports
        )


def _updates(found: Mapping[str, int], name: str) -> Updates:
    return Updates(
        accepted=found.get(f"{name}.update_success", 0) > 0,
        rejected=found.get(f"{name}.update_rejected", 0) > 0,
    )


def _port(listener: str) -> int:
    """Of ``0.0.0.0_15021``; 0 of a listener that is named otherwise."""
    port = listener.rpartition("_")[2]
    return int(port) if port.isdigit() else 0


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
