"""From what is refused, or cannot be built, to what is tried and who is suspected.

refused resource of a proxy  -> its bench, the objects it is built from -> scratch Envoy's words about each trial
a host that cannot be built  -> its bench, the objects about it         -> the error that building raises
what is one proxy's alone    -> all that is its own                     -> likewise
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from envoy.config.route.v3.route_components_pb2 import VirtualHost

from services.pilot.blame.blame import Blame, blames
from services.pilot.blame.changed import Change, Object
from services.pilot.blame.search import bad_ones
from services.pilot.blame.workshop import (
    Bench,
    Made,
    Objects,
    Workshop,
    hosts_of,
    is_on_gateways,
    key_of,
    may_serve,
    of_virtual_hosts,
    virtual_hosts,
)
from services.pilot.envoy.outbound import Scope
from services.pilot.envoy.own import own_resources, scope_of
from services.pilot.model.proxy import Proxy, ProxyType
from windward.config.object import ObjectKey
from windward.xds import resource as xds
from windward.xds.resource import Origin, Resource

Refuses = Callable[[Resource], Awaitable[str]]
"""The scratch Envoy's words about a resource; empty when it takes it."""

SUSPECTS = (
    "VirtualService", "DestinationRule", "PeerAuthentication", "Gateway", "WorkloadEntry", "ServiceEntry",
)  # fmt: skip
"""Who is suspected first: without its service nothing is left to refuse, so that proves least."""
MOST_NEW = 8
"""Resources of another name that are tried in the place of one that a change does away with."""


@dataclass(frozen=True, slots=True)
class Inquiry:
    """About one refused resource of one proxy."""

    resource: Resource
    proxy: Proxy
    workshop: Workshop
    objects: Objects
    refuses: Refuses
    had: Resource | None = None
    """What the proxy took before, if anything: what is in both is not looked at first."""

    async def blames(self) -> list[Blame]:
        """Everyone to blame; nobody when the scratch takes the resource. Raises Unanswered."""
        if self.resource.type_url == xds.ROUTE and not self.proxy.proxyless:
            return await self._of_routes()
        if not await self.refuses(self.resource):
            return []
        bench, workloads = self._bench()
        trial = _Refusal(bench, self.resource.name, self.refuses)
        return await blames(trial, suspects(self.objects, self.resource.origins, workloads))

    async def _of_routes(self) -> list[Blame]:
        """The bad virtual hosts of a route configuration, each by itself."""
        name = self.resource.name

        async def refused(some: Sequence[VirtualHost]) -> bool:
            return bool(await self.refuses(of_virtual_hosts(name, some)))

        hosts = virtual_hosts(self.resource)
        bad = await bad_ones(self._new(hosts), refused) or await bad_ones(hosts, refused)
        found: list[Blame] = []
        for item in bad:
            of_host = self._at_gateway if self.proxy.type is ProxyType.ROUTER else self._at_sidecar
            bench, suspected = of_host(item.name)
            found += await blames(_Refusal(bench, item.name, self.refuses), suspected)
        return _distinct(found)

    def _new(self, hosts: Sequence[VirtualHost]) -> list[VirtualHost]:
        """Those that are not in what the proxy took before."""
        if self.had is None:
            return []
        known = {host.SerializeToString(deterministic=True) for host in virtual_hosts(self.had)}
        return [h for h in hosts if h.SerializeToString(deterministic=True) not in known]

    def _at_sidecar(self, name: str) -> tuple[Bench, list[Object]]:
        host = name.rpartition(":")[0]
        snapshot = self.workshop.snapshot
        return (
            self.workshop.virtual_hosts(scope_of(snapshot, self.proxy), host),
            about(self.workshop, self.objects, host),
        )

    def _at_gateway(self, name: str) -> tuple[Bench, list[Object]]:
        host = name.rpartition(":")[0]
        known = suspects(self.objects, self.resource.origins)
        rules = [
            item
            for item in known
            if item.key.kind == "VirtualService" and is_on_gateways(item) and may_serve(item, host)
        ]
        gateways = [item for item in known if item.key.kind == "Gateway"]
        bench = self.workshop.gateway_hosts(self.proxy, self.resource.name, rules)
        return bench, [*rules, *gateways]

    def _bench(self) -> tuple[Bench, list[Object]]:
        """And the WorkloadEntries that are behind what is built on it."""
        url, name = self.resource.type_url, self.resource.name
        scope = scope_of(self.workshop.snapshot, self.proxy)
        for host in hosts_of(self.objects, self.resource):
            bench = self.workshop.host(scope, host, url)
            if name in _made(bench):
                return bench, workloads_of(self.workshop, self.objects, host)
        return self.workshop.own(self.proxy, url), []


def _made(bench: Bench) -> Made:
    """What there is now; nothing where that cannot even be built: it is as it was before then, and somebody else's case."""
    try:
        return bench()
    except Exception:
        return {}


class _Refusal:
    """Whether a resource is refused, and with it what changes make beside it or in its place: under other names."""

    def __init__(self, bench: Bench, name: str, refuses: Refuses) -> None:
        self._bench = bench
        self._refuses = refuses
        self._others = _made(bench).keys() - {name}

    async def __call__(self, *changes: Change) -> str | None:
        try:
            there = self._made(*changes)
        except Exception as error:
            return _words(error)
        if not there:
            return None
        for resource in there[:MOST_NEW]:
            words = await self._refuses(resource)
            if words:
                return words
        return ""

    def _made(self, *changes: Change) -> list[Resource]:
        made = self._bench(*changes)
        return [resource for name, resource in made.items() if name not in self._others]

    def effect(self, *changes: Change) -> object:
        try:
            return frozenset((item.name, item.version) for item in self._made(*changes))
        except Exception:
            return object()


class _Building:
    """Whether something can be built."""

    def __init__(self, build: Callable[..., object]) -> None:
        self._build = build

    async def __call__(self, *changes: Change) -> str | None:
        try:
            return "" if self._build(*changes) else None
        except Exception as error:
            return _words(error)

    def effect(self, *_: Change) -> object:
        return object()  # that it can be built is all that is asked


def suspects(
    objects: Objects, origins: Iterable[Origin], others: Sequence[Object] = ()
) -> list[Object]:
    """The objects that something was built from, the likeliest first."""
    keys = dict.fromkeys(map(key_of, origins))
    known = [*(objects[key] for key in keys if key in objects), *others]
    usable = [item for item in known if item.key.kind in SUSPECTS]
    return sorted(usable, key=lambda item: (SUSPECTS.index(item.key.kind), -item.revision))


def about(workshop: Workshop, objects: Objects, host: str) -> list[Object]:
    """The objects about a host, the likeliest first."""
    snapshot = workshop.snapshot
    found = [*snapshot.routes.candidates(host), *snapshot.rules.candidates(host)]
    service = snapshot.services.get(host)
    if service is not None:
        workloads = workloads_of(workshop, objects, host)
        found += suspects(objects, [service.origin], workloads)
    return found


def workloads_of(workshop: Workshop, objects: Objects, host: str) -> list[Object]:
    """The WorkloadEntries behind a host that selects its workloads."""
    service = workshop.snapshot.services.get(host)
    if service is None or service.selector is None:
        return []
    group = service.origin.group
    keys = (
        ObjectKey(group, "WorkloadEntry", item.namespace, item.workload)
        for item in workshop.snapshot.endpoints.get(host, ())
    )
    return [objects[key] for key in keys if key in objects]


# ---- what cannot be built -------------------------------------------------------------------------------------------


async def of_unbuilt_host(
    workshop: Workshop, scope: Scope, objects: Objects, host: str
) -> list[Blame]:
    """Whom to blame for a host that cannot be built; nobody when it can be after all."""
    building = _Building(workshop.host(scope, host))
    return await blames(building, about(workshop, objects, host))


async def of_unbuilt_own(
    workshop: Workshop, proxy: Proxy, objects: Objects, origins: Sequence[Origin]
) -> list[Blame]:
    """Whom to blame for a part of a proxy's own resources that cannot be built."""
    suspected = suspects(objects, origins)
    alone = workshop.with_gateway_routes(
        [item for item in suspected if item.key.kind == "VirtualService"]
    )

    def build(*changes: Change) -> bool:
        errors: list[Exception] = []

        def failed(of: tuple[Origin, ...], error: Exception) -> None:
            if not set(origins).isdisjoint(of):
                errors.append(error)

        own_resources(alone.changed(changes), proxy, alone.options, failed)
        if errors:
            raise errors[0]
        return True

    return await blames(_Building(build), suspected)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _distinct(found: Iterable[Blame]) -> list[Blame]:
    """One of each object and field: an object may be in several virtual hosts."""
    return list({(blame.key, blame.path): blame for blame in found}.values())
