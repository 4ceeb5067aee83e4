"""Random histories of a mesh: objects and workloads that come, change and go. One seed is one history, in every process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any

from services.pilot.model.proxy import Proxy
from services.pilot.snapshot import Delta, MeshSnapshot
from services.pilot.state import MeshState
from tests.unit.pilot.mesh import (
    change,
    direct,
    make,
    port,
    router,
    service_entry,
    sidecar,
    snap,
    workload,
)
from windward.config.object import ConfigObject, ObjectKey
from windward.registration import RegisteredWorkload

NAMES = ("reviews", "ratings", "details")
NAMESPACES = ("shop", "other", "istio-system")
POOL = 600
"""Objects that histories draw from: decoding one costs as much as a step."""
PROXIES: tuple[Proxy, ...] = (
    sidecar("10.0.0.1", account="reviews", labels={"app": "reviews"}),
    router(),
    sidecar("10.0.0.3", namespace="other"),
    direct("10.0.0.2", account="ratings", labels={"app": "ratings"}),
    replace(sidecar("10.0.0.5"), vips=True),
    replace(sidecar("10.0.0.6"), proxyless=True),
)

Event = ConfigObject[Any] | RegisteredWorkload | ObjectKey | tuple[str, str]
"""An object or a workload as it is now, or the key of one that is gone."""


@dataclass(slots=True)
class Contents:
    """What there is at one moment."""

    objects: dict[ObjectKey, ConfigObject[Any]]
    workloads: dict[tuple[str, str], RegisteredWorkload]

    def copy(self) -> Contents:
        return Contents(dict(self.objects), dict(self.workloads))

    def take(self, event: Event) -> None:
        match event:
            case ConfigObject():
                self.objects[event.key] = event
            case RegisteredWorkload():
                self.workloads[event.namespace, event.name] = event
            case ObjectKey():
                self.objects.pop(event, None)
            case _:
                self.workloads.pop(event, None)

    def snapshot(self, random: Random) -> MeshSnapshot:
        """As a Pilot that starts now makes it, whatever the order in which the store lists."""
        objects, workloads = list(self.objects.values()), list(self.workloads.values())
        random.shuffle(objects)
        random.shuffle(workloads)
        return snap(*objects, workloads=workloads)

    def events_to(self, other: Contents) -> list[Event]:
        """What has to happen here to be as there."""
        events: list[Event] = [key for key in self.objects if key not in other.objects]
        events += [key for key in self.workloads if key not in other.workloads]
        events += [item for key, item in other.objects.items() if self.objects.get(key) != item]
        events += [
            item for place, item in other.workloads.items() if self.workloads.get(place) != item
        ]
        return events


def event(random: Random, now: Contents) -> Event:
    """What happens next. Every two in three put something; what exists goes every sixth time."""
    what = random.random()
    if what < 0.17 and now.objects:
        return random.choice(sorted(now.objects))
    if what < 0.25 and now.workloads:
        return random.choice(sorted(now.workloads))
    if what < 0.5:
        return random.choice(_workloads())
    return random.choice(_objects())


def apply(state: MeshState, events: list[Event], revision: int = 1) -> Delta:
    """All at once, in this order."""
    return change(
        state,
        *(item for item in events if isinstance(item, ConfigObject)),
        workloads=[item for item in events if isinstance(item, RegisteredWorkload)],
        removed=[item for item in events if isinstance(item, ObjectKey)],
        gone=[
            item for item in events if isinstance(item, tuple) and not isinstance(item, ObjectKey)
        ],
        revision=revision,
    )


def independent(events: list[Event]) -> list[Event]:
    """The first event of each key."""
    found: dict[object, Event] = {}
    for item in events:
        match item:
            case ConfigObject():
                found.setdefault(item.key, item)
            case RegisteredWorkload():
                found.setdefault((item.namespace, item.name), item)
            case _:
                found.setdefault(item, item)
    return list(found.values())


@cache
def _objects() -> tuple[ConfigObject[Any], ...]:
    random = Random("objects")
    makers = (
        _entry,
        _entry,
        _rule,
        _rule,
        _virtual_service,
        _virtual_service,
        _gateway,
        _policy,
        _sidecar,
    )
    return tuple(random.choice(makers)(random) for _ in range(POOL))


@cache
def _workloads() -> tuple[RegisteredWorkload, ...]:
    random = Random("workloads")
    made = []
    for _ in range(60):
        number, version = random.randint(1, 3), random.choice(("v1", "v2"))
        ports = {"a": random.choice((8080, 9080))} if random.random() < 0.5 else {}
        made.append(
            workload(
                f"{NAMES[number - 1]}-{version}",
                f"10.0.0.{number}",
                ports=ports,
                unhealthy=random.random() < 0.3,
            )
        )
    return tuple(made)


def _entry(random: Random) -> ConfigObject[Any]:
    protocols = ("HTTP", "GRPC", "TCP")
    ports = [port(9080, random.choice(protocols), "a"), port(9081, random.choice(protocols), "b")]
    changes: dict[str, Any] = {"ports": ports[: random.randint(1, 2)]}
    if random.random() < 0.3:
        changes["exportTo"] = ["."]
    if random.random() < 0.4:
        changes["addresses"] = [f"10.1.0.{random.randint(1, 3)}"]
    if random.random() < 0.2:
        changes |= {"resolution": "DNS", "workloadSelector": None, "location": "MESH_EXTERNAL"}
    namespace = random.choice(("shop", "shop", "other"))
    return service_entry(
        random.choice(NAMES), namespace=namespace, born=random.randint(0, 3), **changes
    )


def _rule(random: Random) -> ConfigObject[Any]:
    name = random.choice(NAMES)
    subsets = [
        {"name": subset, "labels": {"version": random.choice(("v1", "v2"))}}
        for subset in ("v1", "v2")
        if random.random() < 0.7
    ]
    spec: dict[str, Any] = {"host": f"{name}.shop.svc.cluster.local", "subsets": subsets}
    if random.random() < 0.5:
        mode = random.choice(("ISTIO_MUTUAL", "DISABLE"))
        spec["trafficPolicy"] = {"tls": {"mode": mode}}
    return _made(random, "DestinationRule", name, spec, random.choice(NAMESPACES))


def _virtual_service(random: Random) -> ConfigObject[Any]:
    name, target = random.choice(NAMES), random.choice(NAMES)
    destination = {
        "host": f"{target}.shop.svc.cluster.local",
        "subset": random.choice(("v1", "v2")),
    }
    http: dict[str, Any] = {"route": [{"destination": destination}]}
    if random.random() < 0.5:
        labels = {"app": random.choice(NAMES)}
        http["match"] = [{"uri": {"prefix": "/a"}, "sourceLabels": labels}]
    spec = {
        "hosts": [f"{name}.shop.svc.cluster.local"],
        "http": [http],
        "gateways": random.choice((["mesh"], ["shop/edge"], ["mesh", "shop/edge"])),
    }
    return _made(random, "VirtualService", f"{name}-{target}", spec, "shop")


def _gateway(random: Random) -> ConfigObject[Any]:
    servers: list[dict[str, Any]] = [
        {"port": {"number": number, "name": f"p{number}", "protocol": "HTTP"}, "hosts": ["*"]}
        for number in random.sample((80, 8080), random.randint(1, 2))
    ]
    if random.random() < 0.5:
        tls = {"mode": "ISTIO_MUTUAL"}
        port_ = {"number": 443, "name": "s", "protocol": "HTTPS"}
        servers.append(
            {"port": port_, "hosts": random.choice((["*"], ["a.com", "b.com"])), "tls": tls}
        )
    return _made(
        random, "Gateway", "edge", {"selector": {"istio": "ingress"}, "servers": servers}, "shop"
    )


def _policy(random: Random) -> ConfigObject[Any]:
    spec: dict[str, Any] = {
        "mtls": {"mode": random.choice(("UNSET", "STRICT", "PERMISSIVE", "DISABLE"))}
    }
    if random.random() < 0.5:
        spec["selector"] = {"matchLabels": {"app": random.choice(NAMES)}}
    name = random.choice(("default", "p"))
    return _made(random, "PeerAuthentication", name, spec, random.choice(NAMESPACES))


def _sidecar(random: Random) -> ConfigObject[Any]:
    hosts = ["./*", "*/*", "~/*", *(f"*/{name}.shop.svc.cluster.local" for name in NAMES)]
    spec: dict[str, Any] = {"egress": [{"hosts": random.sample(hosts, random.randint(1, 3))}]}
    if random.random() < 0.5:
        spec["workloadSelector"] = {"labels": {"app": random.choice(NAMES)}}
    return _made(random, "Sidecar", random.choice(NAMES), spec, random.choice(NAMESPACES))


def _made(
    random: Random, kind: str, name: str, spec: Mapping[str, Any], namespace: str
) -> ConfigObject[Any]:
    return make(kind, name, spec, namespace=namespace, born=random.randint(0, 3))
