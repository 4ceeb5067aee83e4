"""Whom to blame for a host that cannot be built: values that protobuf itself refuses. Tried as what Envoy refuses is tried.

snapshot, scope, host -> the object without which building does not raise -> the field without which it does not
"""

from __future__ import annotations

from typing import Any

from services.pilot.blame.blame import Blame, field_of, shortened
from services.pilot.blame.workshop import Change, Objects, with_object
from services.pilot.envoy.memo import Memo
from services.pilot.envoy.options import Options
from services.pilot.envoy.outbound import HostBuilder, Scope
from services.pilot.snapshot import MeshSnapshot
from windward.config.object import ConfigObject, ObjectKey


def suspects_of(snapshot: MeshSnapshot, objects: Objects, host: str) -> list[ConfigObject[Any]]:
    """The objects about a host, the most particular first."""
    found = [*snapshot.routes.candidates(host), *snapshot.rules.candidates(host)]
    service = snapshot.services.get(host)
    if service is not None:
        o = service.origin
        entry = objects.get(ObjectKey(o.group, o.kind, o.namespace, o.name))
        found += [entry] if entry is not None else []
    return found


async def blame_unbuilt(
    snapshot: MeshSnapshot, scope: Scope, options: Options, objects: Objects, host: str
) -> list[Blame]:
    """The one to blame; nobody when it can be built after all, or when no single object explains it."""

    def error(*changes: Change) -> str:
        changed = snapshot
        for old, new in changes:
            changed = with_object(changed, old, new)
        try:
            HostBuilder(changed, scope, options, Memo()).part(host, referred=True)
        except Exception as raised:
            return f"{type(raised).__name__}: {raised}"
        return ""

    words = error()
    if not words:
        return []
    for item in suspects_of(snapshot, objects, host):
        if error((item, None)):
            continue

        async def refused(changed: ConfigObject[Any], item: ConfigObject[Any] = item) -> bool:
            return bool(error((item, changed)))

        return [Blame(item.key, await field_of(item, refused), shortened(words))]
    return []
