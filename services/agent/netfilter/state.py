"""What is loaded: ``iptables-save`` text -> tables, and which part of them is ours.

Ours are the chains of rules.CHAINS, what jumps to them, and what the record says. The record is needed because some rules
in the kernel's own chains name nothing of ours (``-i eth1 -j RETURN``) and anybody may have the same: whatever we put
there is written down as a chain that nobody jumps to, ``WINDWARD_PREROUTING`` or ``WINDWARD_OUTPUT``, in the same table.
It lives and dies with the rules, which a file would not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from services.agent.netfilter.canonical import Canonical, canonical
from services.agent.netfilter.restore import BUILT_IN, jump, tables_of
from services.agent.netfilter.rules import CHAINS, Rule

Chains = Mapping[str, tuple[str, ...]]
"""Chain -> its rules in order, without ``-A CHAIN``."""

GUARD = "WINDWARD_GUARD"
PROBE = "WINDWARD_PROBE"
RECORD = "WINDWARD_"
RECORDS = tuple(RECORD + chain for chain in ("PREROUTING", "OUTPUT"))
OWN_CHAINS = frozenset((*CHAINS, *RECORDS, GUARD, PROBE))


@dataclass(frozen=True, slots=True)
class Own:
    """Our part of one table."""

    chains: Chains
    shared: Mapping[str, tuple[tuple[int, str], ...]]
    """Built-in chain -> our rules in it, each with its place among all of that chain's, from 1."""

    def __bool__(self) -> bool:
        return bool(self.chains) or any(self.shared.values())


def parse_save(text: str) -> dict[str, Chains]:
    """Table -> its chains, from ``iptables-save``."""
    tables: dict[str, dict[str, list[str]]] = {}
    table: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("*"):
            table = tables.setdefault(line[1:].strip(), {})
        elif line.startswith(":"):
            table.setdefault(line[1:].split()[0], [])
        elif line.startswith("-A "):
            _, chain, spec = [*line.split(" ", 2), ""][:3]
            table.setdefault(chain, []).append(spec)
    return {
        name: {chain: tuple(specs) for chain, specs in chains.items()}
        for name, chains in tables.items()
    }


def records(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The record of those rules in the kernel's own chains that name nothing of ours."""
    return tuple(
        Rule(rule.table, RECORD + rule.chain, rule.spec)
        for rule in rules
        if rule.chain in BUILT_IN and jump(rule.spec) not in CHAINS
    )


def loaded(rules: Iterable[Rule]) -> dict[str, Chains]:
    """What an empty kernel would have after loading the rules."""
    tables: dict[str, Chains] = {}
    listed = tuple(rules)
    for table, lines in tables_of(listed).items():
        made = {line.split()[1]: list[str]() for line in lines if line.startswith("-N ")}
        for rule in listed:
            if rule.table == table:
                chain = made.setdefault(rule.chain, [])
                chain.insert(rule.position - 1 if rule.position else len(chain), rule.spec)
        tables[table] = {chain: tuple(specs) for chain, specs in made.items()}
    return tables


def own_part(present: Chains, likely: Chains) -> Own:
    """What of a table is ours. Where our chains have no record, because another tool loaded them, rules in shared chains
    that equal ``likely`` ones are taken for ours.
    """
    chains = {chain: specs for chain, specs in present.items() if chain in OWN_CHAINS}
    recorded = {chain: specs for chain, specs in present.items() if chain in RECORDS}
    if not recorded and chains:
        recorded = {RECORD + chain: specs for chain, specs in likely.items()}
    shared = {
        chain: _own_shared(present[chain], recorded.get(RECORD + chain, ()))
        for chain in BUILT_IN
        if chain in present
    }
    return Own(chains, shared)


def _own_shared(specs: Sequence[str], recorded: Sequence[str]) -> tuple[tuple[int, str], ...]:
    unnamed = Counter(canonical(spec) for spec in recorded if jump(spec) not in OWN_CHAINS)
    found = []
    for place, spec in enumerate(specs, start=1):
        if jump(spec) in OWN_CHAINS:
            found.append((place, spec))
            continue
        form = _form(spec)
        if form is not None and unnamed[form] > 0:
            unnamed[form] -= 1
            found.append((place, spec))
    return tuple(found)


def _form(spec: str) -> Canonical | None:
    """None for what others may have and we cannot read: it is not ours."""
    try:
        return canonical(spec)
    except ValueError:
        return None
