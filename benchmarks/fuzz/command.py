"""``python -m benchmarks fuzz``: one target or all of them, what was found, and where its inputs are."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.fuzz.run import figures, fuzz, replay, write_failures
from benchmarks.fuzz.targets import TARGETS, target_of
from benchmarks.xds.run import show

FOLDER = Path("build/fuzz")


def run(
    name: str, executions: int, seed: int, replayed: Path | None = None, json: Path | None = None
) -> int:
    """0: nothing was found. With several targets their JSON stands in files named after them."""
    logging.disable(logging.CRITICAL)
    names = list(TARGETS) if name == "all" else [name]
    if not TARGETS.keys() >= set(names):
        sys.stderr.write(f"benchmarks: fuzz: {name!r} is no target: {', '.join(TARGETS)} or all\n")
        return 2
    if replayed is not None:
        print(replay(target_of(names[0]), replayed))
        return 0
    found = [_one(item, executions, seed, _file(json, names, item)) for item in names]
    return 1 if any(found) else 0


def _file(json: Path | None, names: Iterable[str], name: str) -> Path | None:
    return json if json is None or list(names) == [name] else json.with_stem(f"{json.stem}-{name}")


def _one(name: str, executions: int, seed: int, json: Path | None) -> int:
    outcome = fuzz(target_of(name), executions, seed)
    show(figures(name, seed, outcome), json)
    paths = write_failures(name, outcome, FOLDER) if outcome.failures else []
    for failure, path in zip(outcome.failures.values(), paths, strict=True):
        print(f"{failure.where}, {failure.times} times: {path}")
    return len(paths)
