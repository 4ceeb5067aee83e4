"""The application's own probes, asked by the agent: under STRICT mTLS kubelet could not ask them itself.

    {"/app-health/web/livez": {"httpGet": {"path": "/healthy", "port": 8080}, "timeoutSeconds": 1}}
    kubelet -> GET :15020/app-health/web/livez -> agent -> application, from 127.0.0.6, which is not intercepted

Source: istio pilot/cmd/pilot-agent/status/server.go; Kubernetes' HTTP prober for redirects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import urljoin, urlsplit

import msgspec
from msgspec import Meta

from services.agent.asking import grpc_health, http
from windward.rpc.http import Request, Response
from windward.telemetry.logging import get_logger

log = get_logger()
PATH = re.compile(r"/(app-health|app-lifecycle)/[^/]+/(livez|readyz|startupz|prestopz|poststartz)")
SOURCE = {4: "127.0.0.6", 6: "::6"}
BODY_LIMIT_BYTES = 10 * 1024
MOST_REDIRECTS = 10
CONNECTION_HEADERS = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "content-length", "upgrade", "te", "trailer"}
)
Port = Annotated[int, Meta(ge=1, le=65535)]


class BadProbes(ValueError):
    """One line: which probe, and what is wrong with it."""


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    value: str = ""


class HttpGet(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    port: Port
    path: str = "/"
    scheme: Literal["HTTP", "HTTPS", ""] = "HTTP"
    host: str = ""
    """Kubelet's to read: where it calls the agent."""
    http_headers: tuple[Header, ...] = ()
    """Kubelet's too: it sends them, and what it sends is passed on."""


class TcpSocket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    port: Port
    host: str = ""


class Grpc(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    port: Port
    service: str | None = None


class Probe(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    grpc: Grpc | None = None
    timeout_seconds: Annotated[int, Meta(ge=0)] = 0

    @property
    def timeout_s(self) -> float:
        """Kubernetes' default is a second."""
        return float(self.timeout_seconds or 1)


def parse_probes(text: str) -> dict[str, Probe]:
    """Path -> probe. Raises BadProbes."""
    if not text:
        return {}
    try:
        found = msgspec.json.decode(text, type=dict[str, Probe])
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise BadProbes(f"--app-probers: {error}") from error
    for path, probe in found.items():
        if not PATH.fullmatch(path):
            raise BadProbes(f"--app-probers: {path}: must match {PATH.pattern}")
        kinds = (probe.http_get, probe.tcp_socket, probe.grpc)
        if sum(kind is not None for kind in kinds) != 1:
            raise BadProbes(f"--app-probers: {path}: one of httpGet, tcpSocket and grpc")
    return found


class AppProbes:
    """Asks the application at ``destination`` (its IP address) what kubelet asks the agent."""

    def __init__(self, probes: Mapping[str, Probe], destination: str, status_port: int) -> None:
        self._probes = probes
        self._destination = destination
        self._status_port = status_port
        self._source = SOURCE[6 if ":" in destination else 4]

    async def answer(self, request: Request) -> Response:
        """For every path that is no route of the status server."""
        if not PATH.fullmatch(request.path):
            return Response(404, b"not found\n")
        probe = self._probes.get(request.path)
        if probe is None:
            return Response(400, f"no probe is configured for {request.path}\n".encode())
        try:
            if probe.http_get is not None:
                return await self._http(request, probe.http_get, probe.timeout_s)
            if probe.tcp_socket is not None:
                await self._tcp(probe.tcp_socket.port, probe.timeout_s)
                return Response(200)
            assert probe.grpc is not None
            healthy = await grpc_health.serving(
                self._destination,
                probe.grpc.port,
                probe.grpc.service or "",
                timeout_s=probe.timeout_s,
                source=self._source,
            )
            return Response(200 if healthy else 500)
        except (OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            log.info("probe.failed", path=request.path, reason=reason)
            return Response(500, f"{reason}\n".encode())

    async def _http(self, request: Request, probe: HttpGet, timeout_s: float) -> Response:
        """Redirects on the application itself are followed, others are an answer: 200, as kubelet takes them."""
        port, tls = probe.port, probe.scheme == "HTTPS"
        target = probe.path if probe.path.startswith("/") else "/" + probe.path
        headers = self._forwarded(request, probe.port)
        for _ in range(MOST_REDIRECTS):
            answer = await http.get(
                self._destination,
                port,
                target,
                headers,
                timeout_s=timeout_s,
                limit_bytes=BODY_LIMIT_BYTES,
                source=self._source,
                tls=tls,
                cut=True,
            )
            if not 300 <= answer.status < 400:
                kind = answer.headers.get("content-type", "text/plain; charset=utf-8")
                return Response(answer.status, answer.body, kind)
            base = f"{'https' if tls else 'http'}://{_bracketed(self._destination)}:{port}{target}"
            onward = urlsplit(urljoin(base, answer.headers.get("location", "")))
            if "location" not in answer.headers or onward.hostname != self._destination:
                return Response(200)
            tls = onward.scheme == "https"
            port = onward.port or (443 if tls else 80)
            target = (onward.path or "/") + (f"?{onward.query}" if onward.query else "")
        raise ConnectionError(f"stopped after {MOST_REDIRECTS} redirects")

    def _forwarded(self, request: Request, port: int) -> dict[str, str]:
        """What kubelet sends, the port of a Host that named the agent's replaced by the application's."""
        headers = {
            name: value for name, value in request.headers.items() if name not in CONNECTION_HEADERS
        }
        host, colon, said = headers.get("host", "").rpartition(":")
        if colon and said == str(self._status_port):
            headers["host"] = f"{host}:{port}"
        elif "host" not in headers:
            headers["host"] = f"{_bracketed(self._destination)}:{port}"
        return headers

    async def _tcp(self, port: int, timeout_s: float) -> None:
        import asyncio

        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(
                self._destination, port, local_addr=(self._source, 0)
            )
        writer.close()


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
