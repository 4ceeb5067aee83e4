"""From a snapshot to everything one proxy should have, at once: what long-lived scopes and groups must agree with. Pure.

(MeshSnapshot, proxy, options) -> {type URL: {name: Resource}}
"""

from __future__ import annotations

from services.pilot.envoy.memo import Memo
from services.pilot.envoy.options import Options
from services.pilot.envoy.own import own_resources, scope_of
from services.pilot.envoy.scope import Resources, ScopeResources
from services.pilot.model.proxy import Proxy
from services.pilot.snapshot import MeshSnapshot
from windward.slices import at_once


def generate(
    snapshot: MeshSnapshot, proxy: Proxy, options: Options, memo: Memo | None = None
) -> Resources:
    memo = memo or Memo()
    scope = ScopeResources(scope_of(snapshot, proxy), options, memo)
    at_once(scope.build(snapshot))
    made = {type_url: dict(named) for type_url, named in scope.made.items()}
    own: Resources = {}
    for item in own_resources(snapshot, proxy, options, memo=memo):
        own.setdefault(item.type_url, {}).setdefault(item.name, item)
    for type_url, named in own.items():
        made.setdefault(type_url, {}).update(named)
    return made
