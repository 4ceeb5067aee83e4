"""The views by name, and reading one: in slices, bounded, whatever its size.

    name, query, limit -> read -> rows as JSON bytes, some at a time -> gRPC (service.py), HTTP (routes.py)

The event loop is held for SLICE_S at most: rows are made one at a time, and a resource that is long to put into JSON is
put into JSON by another thread.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from google.protobuf import json_format, symbol_database
from google.protobuf.message import DecodeError

from services.pilot.admin import mesh, proxies
from services.pilot.admin.observed import Observed
from services.pilot.admin.proxies import Filters, NoSuchProxy, Row
from services.pilot.credentials.credential import redacted
from windward.rpc.errors import invalid, not_found
from windward.xds.resource import SECRET, Resource

SLICE_S = 0.002
DEFAULT_ROWS = 1000
MOST_ROWS = 100_000
MOST_BYTES = 32 * 1024 * 1024
CHUNK_BYTES = 256 * 1024
INLINE_BYTES = 2 * 1024
"""A shorter resource is put into JSON where it is."""
LONG_BYTES = 128 * 1024
"""Of a longer one the JSON is written piece by piece: one call that writes all of it would hold the interpreter."""
LONGEST_VALUE = 1000


@dataclass(frozen=True, slots=True)
class View:
    rows: Callable[[Observed, Filters], Iterator[Row | None]]
    filters: tuple[str, ...]
    summary: str


VIEWS: Mapping[str, View] = {
    "sync": View(proxies.sync, ("proxy", "namespace"), "proxies: SYNCED, STALE or ERROR by type"),
    "connections": View(
        proxies.connections, ("proxy", "namespace"), "streams: whose, since when, what they follow"
    ),
    "config": View(
        proxies.config,
        ("proxy", "type", "name"),
        "what one proxy (?proxy=) should have, as Envoy's JSON, from which objects, and whether it was accepted",
    ),
    "services": View(mesh.services, ("host", "namespace"), "services of the registry"),
    "endpoints": View(
        mesh.endpoints, ("host", "namespace"), "what is behind each service: address, health, lease"
    ),
    "scopes": View(mesh.scopes, ("namespace",), "who shares what, its size, its Sidecar's egress"),
    "events": View(
        mesh.events, ("kind", "namespace", "name"), "the last pushes: cause, effect, percentiles"
    ),
    "refusals": View(mesh.refusals, (), "what Envoys refuse: which object and field is to blame"),
    "status": View(mesh.status, (), "this Pilot in one row"),
}


@dataclass(frozen=True, slots=True)
class Chunk:
    rows: tuple[bytes, ...]
    """A JSON object each."""
    truncated: bool = False
    """There was more; this is the last chunk then."""


Reader = Callable[[str, Mapping[str, str], int], AsyncGenerator[Chunk, None]]
"""(view, query, limit) -> its rows: ``read`` of one Pilot, or of several workers' (siblings.py)."""


async def read(
    observed: Observed, name: str, query: Mapping[str, str], limit: int = 0
) -> AsyncGenerator[Chunk, None]:
    """A view's rows. Raises RefusedError for a view, a filter or a proxy that there is not."""
    view = VIEWS.get(name)
    if view is None:
        raise not_found(f"there is no view {name[:100]!r}: one of {', '.join(VIEWS)}")
    for key, value in query.items():
        if key not in view.filters or len(value) > LONGEST_VALUE:
            known = ", ".join(view.filters) or "none"
            raise invalid(
                f"{name} has no filter {key[:100]!r} of that length; its filters: {known}"
            )
    if not 0 <= limit <= MOST_ROWS:
        raise invalid(f"at most {MOST_ROWS} rows are given at a time")
    try:
        async for chunk in _chunks(view.rows(observed, query), limit or DEFAULT_ROWS):
            yield chunk
    except NoSuchProxy as error:
        raise not_found(str(error)) from error


async def _chunks(rows: Iterator[Row | None], most: int) -> AsyncGenerator[Chunk, None]:
    loop = asyncio.get_running_loop()
    until, size, total, count = loop.time() + SLICE_S, 0, 0, 0
    held: list[bytes] = []
    for row in rows:
        if row is not None:
            if count == most or total > MOST_BYTES:
                yield Chunk(tuple(held), truncated=True)
                return
            made = await _encoded(row)
            held.append(made)
            size, total, count = size + len(made), total + len(made), count + 1
        if size > CHUNK_BYTES:
            yield Chunk(tuple(held))
            held, size = [], 0
        if loop.time() >= until:
            await asyncio.sleep(0)
            until = loop.time() + SLICE_S
    yield Chunk(tuple(held))


async def _encoded(row: Row) -> bytes:
    body = row.get("body")
    if not isinstance(body, Resource):
        return msgspec.json.encode(row)
    if body.size <= INLINE_BYTES:
        text = _envoy_json(body)
    else:
        text = await asyncio.to_thread(_envoy_json, body)
    return msgspec.json.encode({**row, "body": msgspec.Raw(text)})


def _envoy_json(resource: Resource) -> bytes:
    """Envoy's JSON of a resource, without private keys; null for a message of a type that this Pilot does not know."""
    try:
        message = symbol_database.Default().GetSymbol(resource.type_url.rpartition("/")[2])
        secret = resource.type_url == SECRET
        body = redacted(resource.body) if secret else resource.body
        made: Any = json_format.MessageToDict(message.FromString(body))
    except (KeyError, TypeError, DecodeError, json_format.Error):
        return b"null"
    if resource.size <= LONG_BYTES:
        return msgspec.json.encode(made)
    return "".join(json.JSONEncoder(separators=(",", ":")).iterencode(made)).encode()
