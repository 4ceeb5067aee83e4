"""Views of what this Pilot knows of the mesh, and of what it pushed. Pure.

Observed, filters -> rows, one at a time, or None where there is only a pause; those of one answer are of one snapshot
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from services.pilot.admin.observed import Observed
from services.pilot.admin.proxies import Filters, Row
from services.pilot.envoy.outbound import Scope
from services.pilot.model.service import Endpoint, Service
from services.pilot.model.sidecar_scope import EVERYTHING, Pattern
from services.pilot.push_log import Push, short_name
from windward.config.object import ObjectKey

MOST_CAUSES = 100
MOST_PATTERNS = 1000
RECENT = 20
"""Pushes that the status speaks of."""
EVERY = 10**9


def services(observed: Observed, filters: Filters) -> Iterator[Row | None]:
    """Every service, and how many endpoints it has."""
    snapshot = observed.snapshot()
    for service in _services(snapshot.services, filters):
        if service is None:
            yield None
            continue
        endpoints = snapshot.endpoints.get(service.host, ())
        yield {
            "host": service.host,
            "namespace": service.namespace,
            "ports": [
                {
                    "number": port.number,
                    "name": port.name,
                    "protocol": port.protocol.value,
                    "targetPort": port.target,
                }
                for port in service.ports
            ],
            "addresses": list(service.addresses),
            "virtualAddresses": list(snapshot.vips.addresses(service.host)),
            "resolution": service.resolution.value,
            "external": service.external,
            "exportTo": list(service.export_to) or ["*"],
            "selector": None if service.selector is None else dict(service.selector),
            "endpoints": len(endpoints),
            "healthy": sum(endpoint.healthy for endpoint in endpoints),
            "origin": f"{service.origin.kind}/{service.origin.namespace}/{service.origin.name}",
        }


def endpoints(observed: Observed, filters: Filters) -> Iterator[Row | None]:
    """Every endpoint of every service, with the state of its lease."""
    snapshot = observed.snapshot()
    for service in _services(snapshot.services, filters):
        yield None
        if service is None:
            continue
        for endpoint in snapshot.endpoints.get(service.host, ()):
            yield _endpoint(observed, service, endpoint)


def _endpoint(observed: Observed, service: Service, endpoint: Endpoint) -> Row:
    lease = observed.lease((endpoint.namespace, endpoint.workload))
    return {
        "host": service.host,
        "address": endpoint.address,
        "ports": dict(endpoint.ports),
        "workload": endpoint.workload,
        "namespace": endpoint.namespace,
        "serviceAccount": endpoint.service_account,
        "labels": dict(endpoint.labels),
        "locality": endpoint.locality,
        "weight": endpoint.weight,
        "mtls": endpoint.mtls,
        "healthy": endpoint.healthy,
        "lease": lease.value if lease is not None else "none",
    }


def _services(known: Mapping[str, Service], filters: Filters) -> Iterator[Service | None]:
    """Those that are meant; None for each of the others."""
    host, namespace = filters.get("host", ""), filters.get("namespace", "")
    for name in sorted(known) if not host else [host] * (host in known):
        service = known[name]
        yield service if namespace in {"", service.namespace} else None


def scopes(observed: Observed, filters: Filters) -> Iterator[Row]:
    """Who shares what: each scope with its size, its proxies, and what its Sidecar lets it see."""
    for shared in observed.groups.scopes():
        scope = shared.resources.scope
        if filters.get("namespace", scope.namespace) != scope.namespace:
            continue
        yield {
            "namespace": scope.namespace,
            "shape": scope.shape.value,
            "labels": dict(scope.labels),
            "virtualAddresses": scope.vips,
            "egress": _egress(scope),
            "ready": shared.ready,
            "groups": len(shared.groups),
            "proxies": sum(len(group.wakes) for group in shared.groups.values()),
            "resources": {
                short_name(url): {
                    "count": len(named),
                    "bytes": sum(item.size for item in named.values()),
                }
                for url, named in shared.made.items()
                if named
            },
            "failed": dict(shared.resources.failed),
        }


def _egress(scope: Scope) -> Row | None:
    """None: a Sidecar narrows nothing."""
    if scope.egress == EVERYTHING:
        return None
    return {
        "hosts": _patterns(scope.egress.included),
        "excluded": _patterns(scope.egress.excluded),
    }


def _patterns(patterns: frozenset[Pattern]) -> list[str]:
    return [f"{of}/{host}" for of, host in sorted(patterns)[:MOST_PATTERNS]]


def events(observed: Observed, filters: Filters) -> Iterator[Row | None]:
    """The last pushes, the newest first, each with its cause and its effect in words."""
    kind, namespace, name = (filters.get(key, "") for key in ("kind", "namespace", "name"))

    def is_meant(of_kind: str, of_namespace: str, of_name: str) -> bool:
        return (
            kind.lower() in {"", of_kind.lower()}
            and namespace in {"", of_namespace}
            and name in {"", of_name}
        )

    for push in observed.pushes.latest(EVERY):
        meant = (
            not (kind or namespace or name)
            or any(is_meant(key.kind, key.namespace, key.name) for key in push.causes)
            or any(is_meant("workload", of, called) for of, called in push.workloads)
        )
        yield event(push) if meant else None


def event(push: Push) -> Row:
    return {
        "version": push.version,
        "revision": push.revision,
        "at": push.at,
        "text": f"{push.cause()} -> {push.effect()}",
        "cause": push.cause(),
        "effect": push.effect(),
        "objects": [_key(key) for key in push.causes[:MOST_CAUSES]],
        "workloads": [f"{of}/{name}" for of, name in push.workloads[:MOST_CAUSES]],
        "resources": {short_name(url): len(names) for url, names in push.resources.items()},
        "proxies": push.proxies,
        "accepted": push.accepted,
        "p50Ms": _ms(push.percentile_s(0.5)),
        "p99Ms": _ms(push.percentile_s(0.99)),
    }


def refusals(observed: Observed, _: Filters) -> Iterator[Row]:
    """Everything that Envoys refuse now, with the object and the field that are to blame where they are known."""
    for case in observed.judge:
        refusal = case.refusal
        yield {
            "type": short_name(refusal.type_url),
            "name": refusal.name,
            "version": refusal.version,
            "at": case.at,
            "by": sorted(case.identities),
            "error": refusal.error,
            "heldForAll": case.proved,
            "blames": [
                {"object": _key(blame.key), "path": blame.path, "words": blame.words}
                for blame in case.blames
            ],
        }


def status(observed: Observed, _: Filters) -> Iterator[Row | None]:
    """One row: where this Pilot is, how many follow it and how far they are, and how its last pushes went."""
    snapshot = observed.snapshot()
    states: Counter[str] = Counter()
    for item in observed.connected:
        found = {state.state for state in item.stream.types.values()}
        states[next((s for s in ("ERROR", "STALE") if s in found), "SYNCED")] += 1
        yield None
    samples = sorted(s for push in observed.pushes.latest(RECENT) for s in push.samples_s)
    yield {
        "pilot": observed.pilot,
        "version": snapshot.version,
        "revision": snapshot.revision,
        "services": len(snapshot.services),
        "virtualServices": snapshot.virtual_services,
        "gateways": len(snapshot.gateways),
        "proxies": len(observed.connected),
        "synced": states["SYNCED"],
        "stale": states["STALE"],
        "error": states["ERROR"],
        "scopes": len(observed.groups.scopes()),
        "refusals": sum(1 for _ in observed.judge),
        "pushes": {
            "remembered": sum(1 for _ in observed.pushes.latest(EVERY)),
            "p50Ms": _ms(samples[len(samples) // 2]) if samples else None,
            "p99Ms": _ms(samples[int(0.99 * len(samples))]) if samples else None,
        },
    }


def _key(key: ObjectKey) -> str:
    return f"{key.kind}/{key.namespace}/{key.name}"


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
