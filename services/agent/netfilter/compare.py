"""What differs between the rules that are loaded and those that are wanted: a line a difference, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from services.agent.netfilter.canonical import canonical
from services.agent.netfilter.restore import BUILT_IN
from services.agent.netfilter.state import GUARD, PROBE, Chains, Own


def differences(table: str, own: Own, wanted: Chains) -> list[str]:
    """Of one table; order counts within each chain."""
    found = []
    for chain in sorted({*own.chains, *(name for name in wanted if name not in BUILT_IN)}):
        if chain in {GUARD, PROBE}:
            found.append(f"{table} {chain}: left over from an apply that was interrupted")
        elif chain not in wanted:
            found.append(f"{table} {chain}: unexpected chain of {len(own.chains[chain])} rules")
        elif chain not in own.chains:
            found.append(f"{table} {chain}: missing chain of {len(wanted[chain])} rules")
        else:
            found += _compared(table, chain, own.chains[chain], wanted[chain])
    for chain in BUILT_IN:
        ours = [spec for _, spec in own.shared.get(chain, ())]
        found += _compared(table, chain, ours, wanted.get(chain, ()))
    return found


def _compared(
    table: str, chain: str, present: Sequence[str], wanted: Sequence[str]
) -> Iterator[str]:
    were, should = [canonical(spec) for spec in present], [canonical(spec) for spec in wanted]
    if were == should:
        return
    if sorted(were) == sorted(should):
        yield f"{table} {chain}: the rules are there, but not in this order: {'; '.join(wanted)}"
        return
    matcher = SequenceMatcher(None, were, should, autojunk=False)
    for kind, begin, end, from_wanted, to_wanted in matcher.get_opcodes():
        if kind != "equal":
            yield from (f"{table} {chain}: unexpected: {spec}" for spec in present[begin:end])
            yield from (
                f"{table} {chain}: missing: {spec}" for spec in wanted[from_wanted:to_wanted]
            )
