"""Everything that is loaded, beside everything that is wanted: both families, both iptables, and routing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.agent.netfilter.compare import differences
from services.agent.netfilter.errors import NetfilterError
from services.agent.netfilter.host import (
    Backend,
    CommandError,
    Host,
    Kind,
    backends,
    choose,
    read_all,
)
from services.agent.netfilter.interception import Interception
from services.agent.netfilter.routing import (
    Routing,
    marks_in,
    routing_of,
    tables_of_mark,
    tproxy_routing,
)
from services.agent.netfilter.rules import Family, Rule, rules_of
from services.agent.netfilter.state import Chains, Own, loaded, own_part, records


@dataclass(frozen=True, slots=True)
class Layer:
    """What of ours is loaded and what is wanted of one family in one of the two iptables."""

    backend: Backend
    rules: tuple[Rule, ...]
    own: Mapping[str, Own]
    """Table -> our part of it as it was read."""
    wanted: Mapping[str, Chains]
    likely: Mapping[str, Chains]
    """When cleaning: what rules of another tool's making look like, which nothing records."""

    def differences(self, table: str) -> list[str]:
        own = self.own.get(table, Own({}, {}))
        return differences(table, own, self.wanted.get(table, {}))

    def differing(self) -> tuple[str, ...]:
        """The tables that are not as wanted."""
        tables = sorted({*self.own, *self.wanted})
        return tuple(table for table in tables if self.differences(table))

    @property
    def residue(self) -> bool:
        return any(self.own.values())

    def own_now(self, table: str) -> Own:
        return own_part(self.backend.save().get(table, {}), self.likely.get(table, {}))


@dataclass(frozen=True, slots=True)
class Survey:
    layers: tuple[Layer, ...]
    missing: tuple[Routing, ...]
    stale: tuple[Routing, ...]

    def lines(self) -> list[str]:
        """What differs, a line each."""
        found = [
            f"{layer.backend.label} {line}"
            for layer in self.layers
            for table in layer.differing()
            for line in layer.differences(table)
        ]
        found += [f"routing: missing: {' '.join(one.command('add')[1:])}" for one in self.missing]
        found += [f"routing: unexpected: {' '.join(one.command('add')[1:])}" for one in self.stale]
        return found


def survey(
    host: Host, settings: Interception, *, wanted: bool, forced: Kind | None = None
) -> Survey:
    """Read everything. Not ``wanted``: nothing of ours should be there, and the settings only say what it may look like."""
    layers: list[Layer] = []
    chosen: Kind | None = None
    for family in Family:
        found = backends(host, family)
        saved = _saved(found, family, needed=wanted and settings.ipv6)
        if family is Family.V4:
            chosen = choose(saved, forced)
        elif wanted and settings.ipv6 and chosen not in found:
            raise NetfilterError(f"ip6tables ({chosen}) is not installed: apt-get install iptables")
        rules = rules_of(settings, family)
        for kind, backend in found.items():
            if wanted and kind == chosen and rules and not saved[kind]:
                # Nothing there, or not readable: then it is said why.
                saved[kind] = backend.save()
            put = (*rules, *records(rules)) if wanted and kind == chosen else ()
            likely = {} if wanted else loaded(rules)
            own = {
                table: own_part(chains, likely.get(table, {}))
                for table, chains in saved[kind].items()
            }
            layers.append(Layer(backend, put, own, loaded(put), likely))
    return Survey(tuple(layers), *_routing(host, settings, layers, wanted=wanted))


def _saved(
    found: Mapping[Kind, Backend], family: Family, *, needed: bool
) -> dict[Kind, dict[str, Chains]]:
    """IPv6 may be missing in the kernel where it is not needed."""
    try:
        return read_all(found)
    except CommandError:
        if family is Family.V4 or needed:
            raise
        return {kind: {} for kind in found}


def _routing(
    host: Host, settings: Interception, layers: Sequence[Layer], *, wanted: bool
) -> tuple[tuple[Routing, ...], tuple[Routing, ...]]:
    """(missing, stale). Stale is what the marks of loaded rules lead to, and when nothing is wanted what settings say too."""
    should = routing_of(settings) if wanted else ()
    maybe: list[Routing] = []
    for family in Family:
        marks = marks_in(
            own.chains
            for layer in layers
            if layer.backend.family is family
            for own in layer.own.values()
        )
        answer = _ask(host, Routing(family, "rule")) if marks else ""
        for mark in marks:
            for table in tables_of_mark(answer, mark):
                if table.isdecimal():
                    maybe += tproxy_routing(family, mark, int(table))
        if not wanted:
            maybe += tproxy_routing(family, settings.tproxy_mark, settings.tproxy_table)
    # The address is of use only to our IPv6 rules, so it goes with them.
    if settings.ipv6 or any(layer.residue for layer in layers if layer.backend.family is Family.V6):
        maybe.append(Routing(Family.V6, "addr"))
    there = {one: one.found_in(_ask(host, one)) for one in dict.fromkeys((*should, *maybe))}
    missing = tuple(one for one in should if not there[one])
    stale = tuple(one for one, is_there in there.items() if is_there and one not in should)
    # Rules before the routes that they lead to.
    return missing, tuple(reversed(stale))


def _ask(host: Host, one: Routing) -> str:
    try:
        return host.run(one.query)
    except CommandError:
        return ""
