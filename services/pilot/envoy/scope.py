"""What all proxies of a scope share, kept up to date by what changed.

    snapshot, delta -> the parts of the hosts concerned -> listeners and route configurations of their ports
                    -> resources by type, and the names that differ

The law: whatever the history, the result is that of a fresh scope at the same snapshot.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from envoy.config.listener.v3 import listener_pb2

from services.pilot.envoy import cluster, listener, mixer, names, virtual_host
from services.pilot.envoy.common import resource
from services.pilot.envoy.exchange import NO_NAMES, Exchange, frozen, key_of, swapped
from services.pilot.envoy.memo import Memo
from services.pilot.envoy.options import Options
from services.pilot.envoy.outbound import (
    NOWHERE,
    HostBuilder,
    HostPart,
    Scope,
    Shape,
    TcpListener,
    differs,
)
from services.pilot.envoy.virtual_host import HostRoutes
from services.pilot.model.sidecar_scope import EVERYTHING
from services.pilot.snapshot import Delta, MeshSnapshot
from windward.slices import Work
from windward.xds import resource as xds
from windward.xds.resource import Resource

Resources = dict[str, dict[str, Resource]]
TYPES = (xds.CLUSTER, xds.ENDPOINT, xds.LISTENER, xds.ROUTE, xds.EXTENSION, xds.NAME_TABLE)
ONE_CONFIGURATION = 0
"""The place of the HTTP proxy's routes among those of ports."""


class PortHosts:
    """The virtual hosts of one port, in order of their names."""

    def __init__(self) -> None:
        self._hosts: dict[str, HostRoutes] = {}
        self._order: list[str] = []
        self._disjoint: bool | None = True
        """Whether no two hosts share a domain; None: not known."""

    def __bool__(self) -> bool:
        return bool(self._hosts)

    def copy(self) -> PortHosts:
        made = PortHosts()
        made._hosts, made._order = dict(self._hosts), list(self._order)
        made._disjoint = self._disjoint
        return made

    def replace(self, gone: str | None, come: HostRoutes | None) -> None:
        before = self._hosts.pop(gone, None) if gone is not None else None
        if come is None or gone != come.name:
            if before is not None:
                del self._order[bisect_left(self._order, before.name)]
            if come is not None:
                insort(self._order, come.name)
        if come is not None:
            self._hosts[come.name] = come
        if before is None or come is None or before.domains != come.domains:
            self._disjoint = None

    def configuration(self, name: str, fallback: HostRoutes) -> Resource:
        if self._disjoint is None:
            self._disjoint = virtual_host.are_disjoint(self._hosts.values())
        hosts = [self._hosts[host] for host in self._order]
        return virtual_host.route_configuration(name, hosts, fallback, disjoint=self._disjoint)


class ScopeResources:
    """The resources of one scope. ``made`` is replaced, never changed: who holds it holds one moment of the mesh."""

    def __init__(self, scope: Scope, options: Options, memo: Memo) -> None:
        self.scope = scope
        self.made: Resources = {type_url: {} for type_url in TYPES}
        self.changed = NO_NAMES
        """What the last ``advance`` or ``exchange`` added, changed or removed; one object where scopes share an exchange."""
        self._changing: dict[str, set[str]] = {}
        self._swaps: dict[str, dict[str, Resource | None]] = {}
        """Of the advance in hand; ``made`` is what was before it."""
        self.moving = False
        """Whether there is one: parts are half-way then."""
        self.failed: dict[str, str] = {}
        """Hosts that cannot be built as they are now, and why; they are as they were before."""
        self.touched: set[str] = set()
        """Hosts that the last ``advance`` looked at."""
        self._options = options
        self._memo = memo
        self._kind = f"{scope.shape.value} {scope.vips}"
        """Of scopes: what decides, beside the host, what its endpoints mean."""
        self._parts: dict[str, HostPart] = {}
        self._http: dict[int, PortHosts] = {}
        self._tcp: dict[int, dict[str, list[TcpListener]]] = {}
        self._listeners: dict[int, set[str]] = {}
        self._referring: dict[str, set[str]] = {}
        any_ = options.allow_any and scope.shape is Shape.INTERCEPTED
        self._fallback = virtual_host.spliceable(virtual_host.unknown_hosts(allow_any=any_))

    def build(self, snapshot: MeshSnapshot, base: ScopeResources | None = None) -> Work[None]:
        """Everything; yields where other work may go between.

        ``base``: the resources, at this very snapshot, of a scope that is like this one but for its namespace. What the two
        share is taken from there.
        """
        self._begin()
        if base is not None:
            self._take_over(base)
            here, there = self.scope.namespace, base.scope.namespace
            other = (h for h in snapshot.services if differs(snapshot, h, here, there))
            yield from self._advance(snapshot, Delta(services=frozenset(other)))
        else:
            self._put(self._fixed())
            everything = Delta(services=frozenset(snapshot.services), checks=True)
            yield from self._advance(snapshot, everything)
        self._end(shared=False)

    def is_like(self, scope: Scope) -> bool:
        """Whether another scope may be built from this one."""
        alike = replace(self.scope, namespace=scope.namespace) == scope
        return alike and scope.egress is EVERYTHING

    def _take_over(self, base: ScopeResources) -> None:
        self.made = base.made
        self.failed = dict(base.failed)
        self._parts = dict(base._parts)
        self._http = {port: hosts.copy() for port, hosts in base._http.items()}
        self._tcp = {port: dict(hosts) for port, hosts in base._tcp.items()}
        self._listeners = dict(base._listeners)
        self._referring = {host: set(others) for host, others in base._referring.items()}

    def advance(self, snapshot: MeshSnapshot, delta: Delta) -> Work[None]:
        """Take over what changed; yields where other work may go between."""
        self._begin()
        yield from self._advance(snapshot, delta)
        self._end(shared=True)

    def exchange(self, snapshot: MeshSnapshot, hosts: Iterable[str]) -> None:
        """Take over other endpoints of a few hosts, where nothing else changed: ``advance`` at a tenth of its cost.

        Scopes that had one map of a type have one map of it still, so the work is that of the first of them.
        """
        parts, found, touched = self._parts, list[Exchange](), set[str]()
        for host in hosts:
            before = parts.get(host)
            if before is None:
                continue
            touched.add(host)
            try:
                found.append(self._exchange(snapshot, host, before))
            except Exception as error:
                self.failed[host] = f"{type(error).__name__}: {error}"
        self.touched, self.changed = touched, NO_NAMES
        if not found:
            return
        one = found[0]
        if len(found) > 1:
            key = ("all", *map(id, found))
            one = self._memo.once(key, found, partial(Exchange.of_all, found))
        parts.update(one.parts)
        if one.swaps:
            made = dict(self.made)
            for type_url, swaps in one.swaps.items():
                made[type_url] = self._shared(made[type_url], swaps, one.keys[type_url])
            self.made, self.changed = made, one.changed

    def _exchange(self, snapshot: MeshSnapshot, host: str, before: HostPart) -> Exchange:
        """Made by the first scope that has this very part of the host; one that catches up is at an earlier snapshot."""
        seen = self.scope.sees(snapshot.services[host])
        key = (snapshot.version, host, id(before), self._kind, seen)
        return self._memo.once(key, before, partial(self._exchanged, snapshot, host, before))

    def _exchanged(self, snapshot: MeshSnapshot, host: str, before: HostPart) -> Exchange:
        builder = HostBuilder(snapshot, self.scope, self._options, self._memo)
        return Exchange.between(host, before, builder.with_endpoints(host, before))

    def _advance(self, snapshot: MeshSnapshot, delta: Delta) -> Work[None]:
        builder = HostBuilder(snapshot, self.scope, self._options, self._memo)
        whole = delta.services | delta.rules | delta.routes
        for host in delta.services & self._referring.keys():
            whole |= self._referring[host]
        ports: set[int] = set()
        for host in sorted(delta.endpoints - whole):
            before = self._parts.get(host)
            if before is not None:
                try:
                    moved = self._exchange(snapshot, host, before).parts[host]
                except Exception as error:
                    self.failed[host] = f"{type(error).__name__}: {error}"
                else:
                    ports |= self._replace(host, moved)
                yield
        waiting = dict.fromkeys(sorted(whole, reverse=True))
        while waiting:
            host, _ = waiting.popitem()
            referred = self._referred(host)
            try:
                part = builder.part(host, referred=host in self._referring)
            except Exception as error:
                # What cannot be built must not stop what can: this host stays as it was.
                self.failed[host] = f"{type(error).__name__}: {error}"
                yield
                continue
            self.failed.pop(host, None)
            ports |= self._replace(host, part)
            for other in sorted(referred ^ self._referred(host)):
                if self.scope.egress is not EVERYTHING:
                    # Out of sight, but a route that is in sight goes there (or no longer does).
                    waiting[other] = None
            yield
        for port in sorted(ports):
            self._assemble(port)
            yield
        if delta.checks:
            self._put(self._checks(snapshot))

    def _referred(self, host: str) -> frozenset[str]:
        return self._parts.get(host, NOWHERE).refers

    # ---- hosts ------------------------------------------------------------------------------------------------------

    def _replace(self, host: str, part: HostPart | None) -> set[int]:
        """Put a host's part in place of the one before; the ports that must be assembled again."""
        self.touched.add(host)
        before = self._parts.pop(host, NOWHERE)
        now = part or NOWHERE
        if part is not None:
            self._parts[host] = part
        if before is now:
            return set()
        self._swap(before.resources, now.resources)
        for other in before.refers - now.refers:
            self._referring[other].discard(host)
            if not self._referring[other]:
                del self._referring[other]
        for other in now.refers - before.refers:
            self._referring.setdefault(other, set()).add(host)
        return self._swap_http(before, now) | self._swap_tcp(host, before, now)

    def _swap_http(self, before: HostPart, now: HostPart) -> set[int]:
        """Routes live below their port; in one configuration for all, below none."""
        if before.http == now.http:
            return set()
        old, new = dict(before.http), dict(now.http)
        ports = set()
        for port in sorted(old.keys() | new.keys()):
            gone, come = old.get(port), new.get(port)
            if gone is come:
                continue
            place = ONE_CONFIGURATION if self.scope.shape is Shape.DIRECT else port
            hosts = self._http.setdefault(place, PortHosts())
            hosts.replace(gone.name if gone else None, come)
            ports.add(place)
        return ports

    def _swap_tcp(self, host: str, before: HostPart, now: HostPart) -> set[int]:
        if before.tcp == now.tcp:
            return set()
        for item in before.tcp:
            self._tcp[item.port].pop(host, None)
        for item in now.tcp:
            self._tcp.setdefault(item.port, {}).setdefault(host, []).append(item)
        return {item.port for item in (*before.tcp, *now.tcp)}

    # ---- ports ------------------------------------------------------------------------------------------------------

    def _assemble(self, port: int) -> None:
        """A port's route configuration, and its listeners: HTTP takes the whole port, then TCP by address."""
        http = self._http.get(port) or PortHosts()
        if self.scope.shape is Shape.DIRECT:
            self._put([http.configuration(names.HTTP_PROXY, self._fallback)])
            return
        tcp = self._tcp.get(port, {})
        wanted: dict[str, Resource] = {}
        if http:
            item = self._for_families(self._http_listener(port))
            wanted[item.name] = item
            self._put([http.configuration(str(port), self._fallback)])
        else:
            self._http.pop(port, None)
            self._drop(xds.ROUTE, [str(port)])
        for host in sorted(tcp):
            for found in tcp[host]:
                if not (found.anywhere and http):
                    item = found.resource
                    wanted.setdefault(
                        item.name, self._for_families(item) if found.anywhere else item
                    )
        self._drop(xds.LISTENER, self._listeners.get(port, set()) - wanted.keys())
        self._listeners[port] = set(wanted)
        self._put(wanted.values())

    def _http_listener(self, port: int) -> Resource:
        telemetry, allow = self._options.telemetry, self._options.allow_any
        return self._memo.get(
            "",
            ("listener", port),
            (),
            lambda: resource(
                xds.LISTENER,
                f"0.0.0.0_{port}",
                listener.outbound_http(telemetry, port, allow_any=allow),
            ),
        )

    def _for_families(self, made: Resource) -> Resource:
        """A listener for any address, of the families that the scope's workloads have."""
        if not self.scope.ipv6:
            return made
        message = listener_pb2.Listener.FromString(made.body)
        listener.add_ipv6(message)
        return resource(xds.LISTENER, made.name, message, made.origins)

    # ---- what every proxy has ---------------------------------------------------------------------------------------

    def _fixed(self) -> Iterator[Resource]:
        options, shape = self._options, self.scope.shape
        if shape is Shape.PROXYLESS:
            return
        # A gateway passes nothing through, but its bootstrap may say that it is intercepted.
        for item in cluster.fixed(intercepted=shape is not Shape.DIRECT):
            yield resource(xds.CLUSTER, item.name, item)
        if options.mixer_addresses:
            message = mixer.cluster(options.mixer_addresses, options.trust_domain)
            yield resource(xds.CLUSTER, mixer.CLUSTER_NAME, message)
        if shape is Shape.INTERCEPTED:
            outbound = listener.virtual_outbound(options.telemetry, allow_any=options.allow_any)
            made = resource(xds.LISTENER, names.VIRTUAL_OUTBOUND, outbound)
            yield self._for_families(made)
        if shape is Shape.DIRECT:
            yield PortHosts().configuration(names.HTTP_PROXY, self._fallback)

    def _checks(self, snapshot: MeshSnapshot) -> Iterator[Resource]:
        if not self._options.mixer_addresses or self.scope.shape is Shape.PROXYLESS:
            return
        for name, enabled in (
            (mixer.CHECK_OPEN, snapshot.checks_open),
            (mixer.CHECK_CLOSED, snapshot.checks_closed),
        ):
            yield resource(xds.EXTENSION, name, mixer.check_filter(name, enabled=enabled))

    # ---- keeping account --------------------------------------------------------------------------------------------

    def _swap(self, before: tuple[Resource, ...], now: tuple[Resource, ...]) -> None:
        if before is now:
            return
        left = {(item.type_url, item.name) for item in now}
        for item in before:
            if (item.type_url, item.name) not in left:
                self._drop(item.type_url, [item.name])
        self._put(now)

    def _put(self, resources: Iterable[Resource]) -> None:
        for item in resources:
            known = self._known(item.type_url, item.name)
            if known is item:
                continue
            if known is None or known.version != item.version:
                self._changing.setdefault(item.type_url, set()).add(item.name)
            # The same bytes may be of other objects: nothing to send then, but something to say of their origins.
            self._swaps.setdefault(item.type_url, {})[item.name] = item

    def _drop(self, type_url: str, dropped: Iterable[str]) -> None:
        for name in dropped:
            if self._known(type_url, name) is not None:
                self._changing.setdefault(type_url, set()).add(name)
                self._swaps.setdefault(type_url, {})[name] = None

    def _known(self, type_url: str, name: str) -> Resource | None:
        """As the advance in hand will leave it."""
        swaps = self._swaps.get(type_url)
        if swaps is not None and name in swaps:
            return swaps[name]
        return self.made[type_url].get(name)

    def _begin(self) -> None:
        self.moving = True
        self.touched = set()
        self._swaps, self._changing = {}, {}

    def _end(self, *, shared: bool) -> None:
        """Put what was swapped in force, at one stroke. ``shared``: with the scopes that do the same at this version."""
        made = dict(self.made)
        for type_url, swaps in self._swaps.items():
            before = made[type_url]
            if shared:
                made[type_url] = self._shared(before, swaps, key_of(swaps))
            else:
                made[type_url] = swapped(before, swaps)
        if self._swaps:
            self.made = made
        self.changed = frozen(self._changing)
        self._swaps, self._changing = {}, {}
        self.moving = False

    def _shared(
        self, before: dict[str, Resource], swaps: Mapping[str, Resource | None], key: Hashable
    ) -> dict[str, Resource]:
        """Those that had one map of a type, and swap the same in it, have one map of it again."""
        make = partial(swapped, before, swaps, self._memo.ahead.copy)
        return self._memo.once((id(before), key), (before, swaps), make)
