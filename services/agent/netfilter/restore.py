"""Rules as the text that ``iptables-restore --noflush`` loads, one table after the other, each whole or not at all.

Chains are made with ``-N``: loading over rules that are there already is an error, never a second copy.
Source: istio tools/istio-iptables/pkg/builder/iptables_builder_impl.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from services.agent.netfilter.rules import Rule

BUILT_IN = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
"""The kernel's chains, which we share with everybody."""
VERDICTS = ("ACCEPT", "RETURN", "DROP")


def tables_of(rules: Iterable[Rule]) -> dict[str, tuple[str, ...]]:
    """Table -> its lines without ``*`` and ``COMMIT``, tables by name."""
    by_table: dict[str, list[Rule]] = {}
    for rule in rules:
        by_table.setdefault(rule.table, []).append(rule)
    return {table: _lines(by_table[table]) for table in sorted(by_table)}


def _lines(rules: Sequence[Rule]) -> tuple[str, ...]:
    chains = dict.fromkeys(rule.chain for rule in rules)
    # A chain without rules of its own must still exist for those who jump to it.
    chains.update(dict.fromkeys(filter(None, (jump(rule.spec) for rule in rules))))
    made = [f"-N {chain}" for chain in chains if chain not in BUILT_IN]
    return (*made, *(rule.line for rule in rules))


def jump(spec: str) -> str:
    """The chain that a rule ends by jumping to; empty when it ends otherwise."""
    words = spec.split()
    if len(words) >= 2 and words[-2] == "-j" and words[-1] not in VERDICTS:
        return words[-1]
    return ""


def transaction(table: str, lines: Iterable[str]) -> str:
    return "\n".join([f"* {table}", *lines, "COMMIT"]) + "\n"


def restore_text(rules: Iterable[Rule]) -> str:
    """The whole text; empty when there are no rules."""
    return "".join(transaction(table, lines) for table, lines in tables_of(rules).items())
