"""One run: corpus, mutation, execution, what was found. Deterministic by seed, but for times."""

from __future__ import annotations

import os
import pickle
import traceback
from base64 import b64decode, b64encode
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import process_time
from typing import Any, Final

from benchmarks.fuzz.coverage import EVERY, Coverage
from benchmarks.fuzz.target import Input, Target

MOST_KEPT: Final = 4000
"""Inputs of the corpus; beyond, a new one replaces one at random that is no seed."""
ROOT: Final = Path(__file__).parents[2]


@dataclass(slots=True)
class Failure:
    """Failures with the same error at the same place are one."""

    where: str
    text: str
    given: Input
    times: int = 1


@dataclass(slots=True)
class Outcome:
    executions: int = 0
    inputs: int = 0
    cpu_s: float = 0.0
    slowest_ms: float = 0.0
    """CPU of the longest of them that was not traced."""
    corpus: int = 0
    outcomes: int = 0
    lines: int = 0
    lines_in_all: int = 0
    pairs: int = 0
    failures: dict[str, Failure] = field(default_factory=dict)


def fuzz(target: Target, executions: int, seed: int) -> Outcome:
    """At least so many executions."""
    random = Random(seed)
    corpus = list(target.seeds())
    seeds = len(corpus)
    coverage, seen, made = Coverage(target.modules), set[Hashable](), Outcome()
    began = process_time()
    while made.executions < executions:
        if made.inputs < seeds:
            given = corpus[made.inputs]
        else:
            given = target.mutate(random, random.choice(corpus), random.choice(corpus))
        traced = made.inputs < seeds or made.inputs % EVERY == 0
        made.inputs += 1
        made.executions += target.executions(given)
        start = process_time()
        try:
            if traced:
                outcome, fresh = coverage.traced(lambda given=given: target.execute(given))  # type: ignore[misc]
            else:
                outcome, fresh = target.execute(given), False
                made.slowest_ms = max(made.slowest_ms, (process_time() - start) * 1000)
        except Exception as error:
            _note(made, error, given)
            continue
        if (fresh or outcome not in seen) and made.inputs > seeds and target.fertile(outcome):
            if len(corpus) < MOST_KEPT:
                corpus.append(given)
            else:
                corpus[random.randrange(seeds, MOST_KEPT)] = given
        if len(seen) < MOST_KEPT * 10:
            seen.add(outcome)
    made.cpu_s = process_time() - began
    made.corpus, made.outcomes = len(corpus), len(seen)
    made.lines, made.pairs = coverage.lines, len(coverage.pairs)
    made.lines_in_all = coverage.total
    return made


def _note(made: Outcome, error: Exception, given: Input) -> None:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if _is_ours(Path(frame.filename))]
    place = ours[-1]
    where = f"{type(error).__name__} at {Path(place.filename).relative_to(ROOT)}:{place.lineno}"
    known = made.failures.get(where)
    if known is None:
        text = "".join(traceback.format_exception(error))
        made.failures[where] = Failure(where, text, given)
        return
    known.times += 1
    if len(repr(given)) < len(repr(known.given)):
        known.given = given


def _is_ours(file: Path) -> bool:
    """A file of the project, not of what it is built on."""
    return file.is_relative_to(ROOT) and "site-packages" not in file.parts


def write_failures(name: str, found: Outcome, folder: Path) -> list[Path]:
    """Each failure's first traceback, and its smallest input, for people and for ``--replay``."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, failure in enumerate(found.failures.values(), 1):
        path = folder / f"{name}-{number}.txt"
        shown = f"{failure.text}\n{failure.given!r}"
        lines = [
            f"# {line}" for line in shown.encode(errors="backslashreplace").decode().splitlines()
        ]
        path.write_text("\n".join([*lines, b64encode(pickle.dumps(failure.given)).decode(), ""]))
        paths.append(path)
    return paths


def replay(target: Target, path: Path) -> Hashable:
    """Execute an input that was written by ``write_failures`` again."""
    return target.execute(pickle.loads(b64decode(path.read_text().splitlines()[-1])))


def figures(name: str, seed: int, found: Outcome) -> Mapping[str, Any]:
    """As the other scenarios' JSON: flat."""
    return {
        "target": name,
        "seed": seed,
        "executions": found.executions,
        "inputs": found.inputs,
        "failures": len(found.failures),
        "cpu_s": round(found.cpu_s, 1),
        "cpu_us_an_execution": round(found.cpu_s / max(found.executions, 1) * 1e6, 1),
        "slowest_ms": round(found.slowest_ms, 1),
        "corpus": found.corpus,
        "outcomes": found.outcomes,
        "lines": found.lines,
        "lines_in_all": found.lines_in_all,
        "line_pairs": found.pairs,
        "load": round(os.getloadavg()[0], 2),
    }
