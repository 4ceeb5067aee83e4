"""Interception set up, compared and taken away again on a real machine.

    read what is loaded -> differences? -> rights, tools, kernel -> guard -> table by table, each whole -> routing -> guard off
                                                                     any failure: every table back as it was

Applied twice it does nothing the second time. What is left over from other settings is replaced, while a guard drops
everything (fail closed); a guard that stayed because we were killed is found and removed by the next apply.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from services.agent.netfilter.errors import NetfilterError
from services.agent.netfilter.host import (
    Backend,
    CommandError,
    Host,
    Kind,
    require_ipv6,
    require_rights,
    require_tools,
)
from services.agent.netfilter.interception import Interception
from services.agent.netfilter.restore import transaction
from services.agent.netfilter.routing import routing_of
from services.agent.netfilter.rules import Family, Rule
from services.agent.netfilter.state import PROBE, Own
from services.agent.netfilter.survey import Layer, Survey, survey
from services.agent.netfilter.transition import (
    guard,
    needed,
    probes,
    removal,
    replacement,
    reversal,
)

NOTHING = Own({}, {})


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply did, a line each."""

    loaded: tuple[str, ...]
    """Nothing when all was as wanted already."""
    replaced: tuple[str, ...] = ()
    """What differed, where rules of ours were there before."""


def check(host: Host, wanted: Interception, forced: Kind | None = None) -> list[str]:
    """What differs, a line each; nothing when all is as wanted. Raises NetfilterError where it cannot be read."""
    require_rights()
    require_tools(routing=bool(routing_of(wanted)))
    return survey(host, wanted, wanted=True, forced=forced).lines()


def apply(
    host: Host,
    wanted: Interception,
    *,
    forced: Kind | None = None,
    reconcile: bool = True,
    force: bool = False,
) -> Applied:
    """Make it so. Raises NetfilterError, and then everything is as it was before."""
    require_rights()
    require_tools(routing=bool(routing_of(wanted)))
    with host.alone():
        found = survey(host, wanted, wanted=True, forced=forced)
        lines = found.lines()
        if not lines and not force:
            return Applied(())
        residue = any(layer.residue for layer in found.layers)
        if residue and not reconcile:
            raise NetfilterError(
                "other rules of ours are loaded and --reconcile=false was given; the first of "
                f"{len(lines)} differences: {lines[0] if lines else 'none'}"
            )
        if any(one.family is Family.V6 for one in found.missing):
            require_ipv6(host)
        for layer in found.layers:
            _probe(layer)
        _Change(host, found, force).carry_out(guarded=residue)
    put = tuple(
        f"{layer.backend.label}: {len(layer.rules)} rules" for layer in found.layers if layer.rules
    )
    return Applied(put, tuple(lines) if residue else ())


def clean(host: Host, settings: Interception) -> list[str]:
    """Take all of ours away, from both iptables, and nothing else; what there was, a line each.

    Settings matter only for rules that another tool loaded: which rules in the kernel's own chains it may have put there.
    """
    require_rights()
    with host.alone():
        found = survey(host, settings, wanted=False)
        lines = found.lines()
        if lines:
            _Change(host, found, force=False).carry_out(guarded=False)
    return [
        line.replace("unexpected chain", "chain").replace(": unexpected:", ":") for line in lines
    ]


def _probe(layer: Layer) -> None:
    """Ask the kernel for every extension that the rules need, in a chain nobody jumps to. Raises NetfilterError naming it."""
    for table in sorted(layer.wanted):
        tried = [rule for rule in probes(layer.rules) if rule.table == table]
        try:
            try_rules(layer.backend, table, tried)
        except CommandError as error:
            for rule in tried:
                _explain(layer.backend, rule)
            raise NetfilterError(
                f"{layer.backend.label}: the kernel does not take rules in table {table}: {error}"
            ) from error


def _explain(backend: Backend, rule: Rule) -> None:
    try:
        try_rules(backend, rule.table, [rule])
    except CommandError as error:
        modules = " ".join(needed(rule))
        raise NetfilterError(
            f"{backend.label}: the kernel refuses `{rule.spec}` in table {rule.table}; load its modules on "
            f"the machine: modprobe -a {modules} ({error})"
        ) from error


def try_rules(backend: Backend, table: str, rules: Sequence[Rule]) -> None:
    """Load rules where they do nothing, and take them away again. Raises CommandError when they cannot be loaded."""
    if not rules:
        return
    # A colon makes the chain or empties it: one may be left over.
    lines = [f":{PROBE} - [0:0]", *(f"-A {PROBE} {rule.spec}" for rule in rules)]
    backend.restore(transaction(table, lines))
    backend.restore(transaction(table, (f"-F {PROBE}", f"-X {PROBE}")))


@dataclass(slots=True)
class _Change:
    """One change under way: what was done, so that it can be undone."""

    host: Host
    found: Survey
    force: bool
    done_tables: list[tuple[Layer, str]] = field(default_factory=list)
    done_commands: list[tuple[str, ...]] = field(default_factory=list)
    """What undoes each command that was run."""

    def carry_out(self, *, guarded: bool) -> None:
        with ExitStack() as stack:
            if guarded:
                for layer in self.found.layers:
                    if layer.differing() or (self.force and layer.wanted):
                        stack.enter_context(_guarded(layer))
            try:
                for one in self.found.missing:
                    self._route(one.command("add"), one.command("del"))
                for layer in self.found.layers:
                    self._load(layer, guarded=guarded)
                for one in self.found.stale:
                    self._route(one.command("del"), one.command("add"))
            except CommandError as error:
                failed = self._undo()
                state = f"and not all could be put back: {failed}" if failed else "nothing changed"
                raise NetfilterError(f"{error} ({state})") from error
            except BaseException:
                # Interrupted: half of it would be worse than none.
                self._undo()
                raise

    def _load(self, layer: Layer, *, guarded: bool) -> None:
        tables = {*layer.differing(), *(layer.wanted if self.force else ())}
        if guarded:
            # A guard that was left over has been replaced by the one that now stands.
            tables.discard("filter")
        for table in sorted(tables):
            text = replacement(table, layer.own.get(table, NOTHING), layer.rules)
            # Noted first: undoing looks at what is there, so it does no harm if this fails.
            self.done_tables.append((layer, table))
            layer.backend.restore(text)

    def _route(self, command: tuple[str, ...], undo: tuple[str, ...]) -> None:
        self.host.run(command)
        self.done_commands.append(undo)

    def _undo(self) -> str:
        """Put back what was changed, last first; what failed, if anything."""
        failed = []
        for layer, table in reversed(self.done_tables):
            try:
                text = reversal(table, layer.own_now(table), layer.own.get(table, NOTHING))
                if text:
                    layer.backend.restore(text)
            except CommandError as error:
                failed.append(str(error))
        for command in reversed(self.done_commands):
            try:
                self.host.run(command)
            except CommandError as error:
                failed.append(str(error))
        return "; ".join(failed)


@contextmanager
def _guarded(layer: Layer) -> Iterator[None]:
    """Drop everything meanwhile. A guard that was left behind is replaced."""
    layer.backend.restore(replacement("filter", layer.own.get("filter", NOTHING), guard()))
    try:
        yield
    finally:
        try:
            layer.backend.restore(transaction("filter", removal(layer.own_now("filter"))))
        except CommandError as error:
            raise NetfilterError(
                f"all traffic is still dropped, because the guard could not be removed: run `clean`: {error}"
            ) from error
