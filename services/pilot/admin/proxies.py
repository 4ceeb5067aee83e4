"""Views of connected proxies: who is here, how far each is, and what one should have. Pure.

Observed, filters -> rows, one at a time: whoever asks may stop, and may let others run, between any two
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from services.pilot.admin.observed import Observed
from services.pilot.push_log import short_name
from services.pilot.xds.connected import Connected
from windward.xds.resource import Resource
from windward.xds.stream import DeltaStream

Row = dict[str, Any]
Filters = Mapping[str, str]


class NoSuchProxy(LookupError):
    """Nobody, or more than one, is meant; says which."""


def connections(observed: Observed, filters: Filters) -> Iterator[Row]:
    """Every stream: whose it is, since when, and what it follows."""
    for item in _chosen(observed, filters):
        types = {
            short_name(url): "*" if state.subscription.wildcard else len(state.subscription.names)
            for url, state in item.stream.types.items()
        }
        yield {
            **_who(observed, item),
            "connectedAt": item.since,
            "protocol": "delta" if isinstance(item.stream, DeltaStream) else "sotw",
            "expiredNonces": item.stream.expired,
            "watches": types,
        }


def sync(observed: Observed, filters: Filters) -> Iterator[Row]:
    """Every proxy and type: SYNCED, STALE (sent, not accepted yet) or ERROR (refused), and at which revision."""
    for item in _chosen(observed, filters):
        now = item.view.current
        types = {
            short_name(url): {
                "state": state.state,
                "sentRevision": state.sent_revision,
                "ackedRevision": item.accepted(state),
                "ackedVersion": state.acked_version,
                "resources": item.stream.count(url),
                "rejects": state.rejects,
                "lastError": state.last_error,
                "refused": sorted(state.refused)[:20],
            }
            for url, state in item.stream.types.items()
        }
        yield {
            **_who(observed, item),
            "version": now.version,
            "revision": now.revision,
            "types": types,
        }


def config(observed: Observed, filters: Filters) -> Iterator[Row]:
    """What one proxy should have, with what each resource was built from; its ``body`` is the Resource. Raises NoSuchProxy."""
    item = the_proxy(observed, filters.get("proxy", ""))
    wanted = filters.get("type", "")
    for url in list(item.stream.types):
        if wanted and wanted not in {url, url.rpartition(".")[2], short_name(url)}:
            continue
        for name in item.stream.wanted(url):
            resource = item.stream.current.get(url, name)
            if resource is not None and filters.get("name", name) == name:
                yield _resource(item, resource)


def the_proxy(observed: Observed, text: str) -> Connected:
    """The one proxy that is meant; of its streams the newest. Raises NoSuchProxy."""
    if not text:
        raise NoSuchProxy("say which proxy: its node id, name or address; see the view sync")
    found = observed.connected.find(text)
    names = sorted({item.proxy.id for item in found})
    if not names:
        raise NoSuchProxy(f"no proxy {text[:200]!r} is connected here; see the view sync")
    if len(names) > 1:
        raise NoSuchProxy(f"{text[:200]!r} names several proxies: {', '.join(names[:20])}")
    return found[-1]


def _resource(item: Connected, resource: Resource) -> Row:
    refusal = item.stream.types[resource.type_url].refused.get(resource.name)
    accepted = item.stream.accepted(resource.type_url, resource.name)
    return {
        "type": resource.type_url,
        "name": resource.name,
        "version": resource.version,
        "acked": accepted == resource.version,
        "ackedVersion": accepted,
        "bytes": resource.size,
        "origins": [
            f"{o.kind}/{o.namespace}/{o.name}" + (f" {o.path}" if o.path else "")
            for o in resource.origins
        ],
        "error": refusal.error if refusal is not None else "",
        "body": resource,
    }


def _chosen(observed: Observed, filters: Filters) -> Iterator[Connected]:
    text, namespace = filters.get("proxy", ""), filters.get("namespace", "")
    streams = observed.connected.find(text) if text else list(observed.connected)
    for item in sorted(streams, key=lambda item: item.proxy.id):
        if not namespace or item.proxy.namespace == namespace:
            yield item


def _who(observed: Observed, item: Connected) -> Row:
    return {
        "proxy": item.proxy.id,
        "identity": str(item.proxy.identity or ""),
        "address": item.proxy.address,
        "pilot": observed.pilot,
    }
