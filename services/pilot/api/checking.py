"""Objects of a request: what they decode to, and every finding with its place in the user's file.

ApplyRequest ─► check ─► objects, findings
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from services.pilot.api.objects import ref
from windward.api.config.v1 import config_pb2
from windward.config.changing import FEW
from windward.config.decode import decode_object
from windward.config.finding import Finding, Severity
from windward.config.object import ConfigObject
from windward.records import read_json

SEVERITIES = {
    Severity.ERROR: config_pb2.Finding.ERROR,
    Severity.WARNING: config_pb2.Finding.WARNING,
}


async def checked(
    request: config_pb2.ApplyRequest,
) -> tuple[list[ConfigObject[Any]], list[config_pb2.Finding]]:
    """As ``check``; many objects beside the event loop, so that streams do not wait for them."""
    if len(request.objects) <= FEW:
        return check(request)
    return await asyncio.to_thread(check, request)


def check(
    request: config_pb2.ApplyRequest,
) -> tuple[list[ConfigObject[Any]], list[config_pb2.Finding]]:
    """Decode every object of a request; all findings of all of them."""
    wanted: list[ConfigObject[Any]] = []
    findings: list[config_pb2.Finding] = []
    not_an_object: tuple[Finding, ...] = (Finding("", "not-readable", "must be a JSON object"),)
    for index, given in enumerate(request.objects):
        raw = _load(given.json)
        if raw is None:
            made, found = None, not_an_object
        else:
            made, found = decode_object(
                raw, default_namespace=request.default_namespace or "default"
            )
        findings += [
            _finding(item, given, raw or {}, request.default_namespace, index) for item in found
        ]
        if made is not None:
            wanted.append(made)
    return wanted, findings


def _load(text: bytes) -> dict[str, Any] | None:
    try:
        return read_json(text, dict[str, Any])
    except msgspec.DecodeError:
        return None


def _finding(
    item: Finding, given: config_pb2.ObjectInput, raw: Mapping[str, Any], namespace: str, index: int
) -> config_pb2.Finding:
    metadata = raw.get("metadata")
    named: Mapping[str, Any] = metadata if isinstance(metadata, dict) else {}
    group = str(raw.get("apiVersion", "")).partition("/")[0]
    return config_pb2.Finding(
        file=given.file,
        line=line_of(given.lines, item.path),
        ref=ref(
            group,
            str(raw.get("kind", "")),
            str(named.get("namespace") or namespace or "default"),
            str(named.get("name", "")),
        ),
        path=item.path,
        severity=SEVERITIES[item.severity],
        code=item.code,
        message=item.message,
        fix=item.fix,
        object_index=index,
    )


def line_of(lines: Mapping[str, int], path: str) -> int:
    """The line of a field, or of the nearest one around it."""
    while path:
        if path in lines:
            return lines[path]
        cut = max(path.rfind("."), path.rfind("["))
        path = path[:cut] if cut > 0 else ""
    return lines.get("", 0)
