"""Metrics of the agent, Envoy and the application as one text, for a scraper that knows one port.

Each part that fails is left out and counted: two thirds of the truth are better than none. The application comes last,
because an OpenMetrics text ends with ``# EOF``. Source: istio pilot/cmd/pilot-agent/status/server.go (handleStats).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Annotated

import msgspec
from msgspec import Meta

from services.agent.asking import http
from windward.rpc.http import Request, Response
from windward.telemetry.logging import get_logger

log = get_logger()
RESERVED_PORTS = frozenset({15000, 15001, 15004, 15006, 15008, 15020, 15021, 15053, 15090})
APPLICATION_LIMIT_BYTES = 10 * 1024 * 1024
ENVOY_LIMIT_BYTES = 64 * 1024 * 1024
MOST_TARGETS = 16
TIMEOUT_S = 10.0
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text"
EOF = b"# EOF"


class BadScrape(ValueError):
    """One line: what of the scrape configuration cannot be."""


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    port: str
    path: str = ""


class Scrape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pod's prometheus.io annotations, as the injector passes them on."""

    scrape: str = ""
    path: str = ""
    port: str = ""
    targets: Annotated[tuple[Target, ...], Meta(max_length=MOST_TARGETS)] = ()


def parse_scrape(text: str, own_ports: frozenset[int]) -> tuple[tuple[int, str], ...]:
    """(port, path) of what the application exposes. Raises BadScrape, also for a port that would be a loop."""
    if not text:
        return ()
    try:
        scrape = msgspec.json.decode(text, type=Scrape)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise BadScrape(f"--scrape: {error}") from error
    if scrape.scrape == "false":
        return ()
    targets = scrape.targets or (Target(scrape.port or "80", scrape.path),)
    found = []
    for target in targets:
        if not target.port.isdigit() or not 0 < int(target.port) < 65536:
            raise BadScrape(f"--scrape: {target.port!r} is not a port")
        port = int(target.port)
        if port in RESERVED_PORTS | own_ports:
            raise BadScrape(f"--scrape: port {port} is the sidecar's own: it would scrape itself")
        path = target.path or "/metrics"
        if not path.startswith("/") or any(char.isspace() for char in path):
            raise BadScrape(f"--scrape: {path!r} is not a path")
        found.append((port, path))
    return tuple(found)


class MergedMetrics:
    """``own`` renders the agent's; ``failed`` is told ``envoy`` or ``application`` for each part that is missing."""

    def __init__(
        self,
        own: Callable[[], bytes],
        envoy: tuple[str, int, str],
        targets: tuple[tuple[int, str], ...],
        failed: Callable[[str], None],
    ) -> None:
        self._own = own
        self._envoy = envoy
        self._targets = targets
        self._failed = failed

    async def answer(self, request: Request) -> Response:
        headers = _passed_on(request.headers)
        timeout_s = _timeout_s(request.headers)
        host, port, path = self._envoy
        query = request.target.partition("?")[2]
        gathered = await asyncio.gather(
            self._part(
                "envoy",
                host,
                port,
                f"{path}?{query}" if query else path,
                headers | {"accept": "text/plain"},
                timeout_s,
                ENVOY_LIMIT_BYTES,
            ),
            *(
                self._part(
                    "application",
                    "127.0.0.1",
                    port,
                    path,
                    headers,
                    timeout_s,
                    APPLICATION_LIMIT_BYTES,
                )
                for port, path in self._targets
            ),
        )
        parts = [(self._own(), TEXT)] + [part for part in gathered if part is not None]
        kinds = {kind for body, kind in parts[2 if gathered[0] else 1 :]}
        kind = kinds.pop() if len(kinds) == 1 else TEXT
        body = b"".join(_whole_lines(body) for body, _ in parts)
        if kind.startswith(OPEN_METRICS):
            body += EOF + b"\n"
        return Response(200, body, kind)

    async def _part(
        self,
        what: str,
        host: str,
        port: int,
        target: str,
        headers: Mapping[str, str],
        timeout_s: float,
        limit: int,
    ) -> tuple[bytes, str] | None:
        try:
            answer = await http.get(
                host,
                port,
                target,
                {"host": f"{host}:{port}", **headers},
                timeout_s=timeout_s,
                limit_bytes=limit,
            )
            if answer.status != 200:
                raise ConnectionError(f"it answers {answer.status}")
        except (OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            log.warning("scrape.failed", what=what, port=port, reason=reason)
            self._failed(what)
            return None
        kind = answer.headers.get("content-type", TEXT)
        return answer.body, kind if kind.startswith(OPEN_METRICS) else TEXT


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    names = ("user-agent", "x-prometheus-scrape-timeout-seconds", "accept")
    found = {name: headers[name] for name in names if name in headers}
    accepted = found.get("accept", "")
    # Texts can be joined, protobuf cannot.
    found["accept"] = f"{OPEN_METRICS}, text/plain;q=0.5" if OPEN_METRICS in accepted else TEXT
    return found


def _timeout_s(headers: Mapping[str, str]) -> float:
    said = TIMEOUT_S
    with suppress(ValueError):
        said = float(headers.get("x-prometheus-scrape-timeout-seconds", ""))
    return said if 0 < said <= 60 else TIMEOUT_S


def _whole_lines(body: bytes) -> bytes:
    """A body without its end mark, ending in a line's end."""
    text = body.rstrip(b" \t\r\n").removesuffix(EOF)
    return text if not text or text.endswith(b"\n") else text + b"\n"
