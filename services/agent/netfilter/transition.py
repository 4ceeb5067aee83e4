"""From what is loaded to what is wanted: the lines of one table's transaction. Pure.

The kernel takes a table's transaction whole or not at all, so there is no moment without rules within a table. Between
tables there is one; a guard, which drops everything, stands in the filter table meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.agent.netfilter.restore import jump, tables_of, transaction
from services.agent.netfilter.rules import Rule
from services.agent.netfilter.state import GUARD, PROBE, Own


def removal(own: Own) -> list[str]:
    """First what leads to our chains, then what is in them, then themselves."""
    lines = [f"-D {chain} {spec}" for chain, rules in own.shared.items() for _, spec in rules]
    lines += [f"-F {chain}" for chain in own.chains]
    return lines + [f"-X {chain}" for chain in own.chains]


def replacement(table: str, own: Own, rules: Sequence[Rule]) -> str:
    """Take away what of ours is there, and put the table's rules there. Empty when there is nothing to do."""
    lines = removal(own)
    lines += tables_of(rule for rule in rules if rule.table == table).get(table, ())
    return transaction(table, lines) if lines else ""


def reversal(table: str, own: Own, before: Own) -> str:
    """Put back what of ours was there before, each rule at its old place among the rules of others."""
    lines = removal(own)
    lines += [f"-N {chain}" for chain in before.chains]
    lines += [f"-A {chain} {spec}" for chain, specs in before.chains.items() for spec in specs]
    for chain, rules in before.shared.items():
        lines += [f"-I {chain} {place} {spec}" for place, spec in rules]
    return transaction(table, lines) if lines else ""


def guard() -> tuple[Rule, ...]:
    """Fail closed while rules are replaced: nothing may pass that Envoy has not seen."""
    return (
        Rule("filter", GUARD, "-p tcp -j DROP"),
        Rule("filter", GUARD, "-p udp -j DROP"),
        *(Rule("filter", chain, f"-j {GUARD}", 1) for chain in ("INPUT", "FORWARD", "OUTPUT")),
    )


def probes(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """One rule for each combination of extensions that the rules need, in a chain that nobody jumps to."""
    found: dict[tuple[str, tuple[str, ...]], Rule] = {}
    for rule in rules:
        extensions = needed(rule)
        if extensions:
            spec = rule.spec
            if jump(spec):
                spec = spec.rpartition(" ")[0] + " RETURN"
            found.setdefault((rule.table, extensions), Rule(rule.table, PROBE, spec))
    return tuple(found.values())


def needed(rule: Rule) -> tuple[str, ...]:
    """The kernel's extensions that a rule uses: ``xt_owner``, ``xt_REDIRECT``."""
    words = rule.spec.split()
    named = [words[at + 1] for at, word in enumerate(words[:-1]) if word in {"-m", "-j"}]
    own = ("ACCEPT", "DROP", "RETURN")
    return tuple(sorted({f"xt_{name}" for name in named if name not in own and "_" not in name}))
