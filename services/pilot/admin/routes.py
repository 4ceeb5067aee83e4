"""The views over HTTP on the metrics port: /debug/ says what there is; Istio's paths stand beside our own.

Source of Istio's: istio pilot/pkg/xds/debug.go.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import grpc
import msgspec

from services.pilot.admin.doorkeeper import Doorkeeper
from services.pilot.admin.views import VIEWS, Reader
from windward.rpc.errors import RefusedError
from windward.rpc.http import Handler, Request, Response, Routes

ISTIO: Final[Mapping[str, str]] = {
    "syncz": "sync",
    "adsz": "connections",
    "config_dump": "config",
    "registryz": "services",
    "endpointz": "endpoints",
    "edsz": "endpoints",
    "sidecarz": "scopes",
    "push_status": "status",
}
"""Istio's path below /debug/ -> the view that means the same; ``connections`` has the same name."""
RENAMED: Final = {"proxyID": "proxy"}
"""Istio's parameters."""
STATUSES: Final = {
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
}


def debug_routes(pilot: str, reader: Reader, keeper: Doorkeeper) -> Routes:
    """Routes for the metrics port."""
    index = _guarded(keeper, _index)
    routes: dict[tuple[str, str], Handler] = {
        ("GET", "/debug"): index,
        ("GET", "/debug/"): index,
    }
    for path, view in {**{name: name for name in VIEWS}, **ISTIO}.items():
        routes["GET", f"/debug/{path}"] = _guarded(keeper, _page(pilot, reader, view))
    return routes


def _guarded(keeper: Doorkeeper, handler: Handler) -> Handler:
    async def guarded(request: Request) -> Response:
        return keeper.refuses(request) or await handler(request)

    return guarded


def _page(pilot: str, reader: Reader, view: str) -> Handler:
    async def page(request: Request) -> Response:
        query = {RENAMED.get(key, key): values[-1] for key, values in request.query.items()}
        rows: list[bytes] = []
        truncated = False
        try:
            limit = _number(query.pop("limit", "0"))
            async for chunk in reader(view, query, limit):
                rows += chunk.rows
                truncated = chunk.truncated
        except RefusedError as error:
            status = STATUSES.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR)
            return Response(status, error.message.encode() + b"\n")
        head = msgspec.json.encode({"pilot": pilot, "view": view, "truncated": truncated})
        body = b"".join((head[:-1], b',"items":[', b",\n".join(rows), b"]}\n"))
        return Response(200, body, "application/json")

    return page


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise RefusedError(
            grpc.StatusCode.INVALID_ARGUMENT, f"limit={text[:20]!r} is not a number"
        ) from None


async def _index(_: Request) -> Response:
    istio: dict[str, list[str]] = {}
    for path, view in ISTIO.items():
        istio.setdefault(view, []).append(path)
    lines = [
        "<!doctype html><meta charset=utf-8><title>Pilot</title><h1>Pilot</h1><table>",
        "<tr><th align=left>view<th align=left>shows<th align=left>filters<th align=left>also as",
    ]
    for name, shown in VIEWS.items():
        others = ", ".join(f"<a href=/debug/{path}>{path}</a>" for path in istio.get(name, ()))
        lines.append(
            f"<tr><td><a href=/debug/{name}>{name}</a><td>{html.escape(shown.summary)}"
            f"<td>{', '.join((*shown.filters, 'limit'))}<td>{others}"
        )
    lines.append("</table><p><a href=/metrics>metrics</a>, <a href=/healthz/ready>readiness</a>")
    return Response(200, "\n".join(lines).encode(), "text/html; charset=utf-8")
