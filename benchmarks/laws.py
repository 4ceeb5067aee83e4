"""``python -m benchmarks laws``: the laws of tests/laws over thousands of histories; a seed that fails is told."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.xds.run import show
from tests.laws.book import LAWS, STEPS, Law

AT_ONCE: Final = 50
"""Seeds that a law is given together: one that starts processes does so once for all of them."""


def run(name: str, examples: int, seed: int, json: Path | None = None) -> int:
    """0: every law held. With several laws their JSON stands in files named after them."""
    names = list(LAWS) if name == "all" else [name]
    if not LAWS.keys() >= set(names):
        sys.stderr.write(f"benchmarks: laws: {name!r} is none: {', '.join(LAWS)} or all\n")
        return 2
    broken = 0
    for item in names:
        found = try_law(item, LAWS[item], examples, seed)
        one = json if json is None or name != "all" else json.with_stem(f"{json.stem}-{item}")
        show(found, one)
        broken += found["broken"]
    return 1 if broken else 0


def try_law(name: str, law: Law, examples: int, seed: int) -> Mapping[str, Any]:
    """As many histories, their seeds counted from one on."""
    began = _cpu_s()
    failing = []
    for first in range(seed, seed + examples, AT_ONCE):
        seeds = range(first, min(first + AT_ONCE, seed + examples))
        if _fails(law, seeds):
            failing += [one for one in seeds if _fails(law, [one])]
    for one in failing[:5]:
        _tell(law, one)
    return {
        "law": name,
        "examples": examples,
        "steps": STEPS,
        "first_seed": seed,
        "broken": len(failing),
        "cpu_s": round(_cpu_s() - began, 1),
        "load": round(os.getloadavg()[0], 2),
    }


def _fails(law: Law, seeds: Sequence[int]) -> bool:
    try:
        law(seeds, STEPS)
    except Exception:
        return True
    return False


def _tell(law: Law, seed: int) -> None:
    """The shortest history of this seed, of those that halving finds, that breaks the law."""
    for steps in [*_lengths(), STEPS]:
        try:
            law([seed], steps)
        except Exception as error:
            print(f"seed {seed}, {steps} steps: {type(error).__name__}: {str(error)[:500]}")
            return


def _lengths() -> Iterator[int]:
    steps = 20
    while steps < STEPS:
        yield steps
        steps *= 2


def _cpu_s() -> float:
    """Of this process and of those that it has waited for."""
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
