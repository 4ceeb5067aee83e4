"""All seeds, in both protocols: figures, rows."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks.nacks.seeds import AMONG_MANY, crowd, seeds
from benchmarks.nacks.trial import LIMIT_S, Outcome, outcomes
from benchmarks.rows import Row

CROWD = 1000
SEEDS = 60
"""That real Envoys must refuse, in each protocol; those that cannot be built come on top."""


def measure() -> Mapping[str, Any]:
    load = os.getloadavg()[0]
    found: list[Outcome] = []
    many: list[Outcome] = []
    chosen = [seed for seed in seeds() if seed.name in AMONG_MANY]
    for sotw in (False, True):
        found += asyncio.run(outcomes(seeds(), sotw=sotw))
        many += asyncio.run(outcomes(chosen, sotw=sotw, beside=crowd(CROWD)))
    return figures_of(found, load) | among_many(many) | {"load_after": os.getloadavg()[0]}


def among_many(found: Sequence[Outcome]) -> dict[str, Any]:
    """Of the same among a thousand good services: each taken by itself."""
    return {
        "many_services": CROWD,
        "many_trials": len(found),
        "many_good": sum(item.good for item in found),
        "many_slowest_s": max(
            (round(item.seconds, 3) for item in found if item.seconds), default=None
        ),
        "many": [_plain(item) for item in found],
    }


def _plain(item: Outcome) -> dict[str, Any]:
    return asdict(item) | {"held_back": [list(behind) for behind in item.held_back]}


def figures_of(found: Sequence[Outcome], load: float) -> dict[str, Any]:
    times = sorted(item.seconds for item in found if item.attributed and item.seconds is not None)
    return {
        "trials": len(found),
        "refused_by_envoy": sum(item.by_envoy for item in found),
        "attributed": sum(item.attributed for item in found),
        "within_1s": sum(seconds <= LIMIT_S for seconds in times),
        "held_back": sum(len(item.held_back) for item in found),
        "not_mended": sum(not item.mended for item in found),
        "p50_s": round(median(times), 3) if times else None,
        "p99_s": round(times[-(-99 * len(times) // 100) - 1], 3) if times else None,
        "load_before": load,
        "missed": ", ".join(
            f"{item.seed} ({'state of the world' if item.sotw else 'delta'})"
            for item in found
            if not item.attributed
        ),
        "seeds": [_plain(item) for item in found],
    }


def rows(figures: Mapping[str, Any]) -> list[Row]:
    missed = int(figures["trials"]) - int(figures["within_1s"])
    return [
        Row(
            "bad resources not put down to object and field in 1 s",
            missed,
            0,
            str(figures["missed"])[:200],
        ),
        Row(
            "of 60 in each protocol, bad resources that real Envoys did not refuse",
            max(0, 2 * SEEDS - int(figures["refused_by_envoy"])),
            0,
        ),
        Row(
            f"among {figures['many_services']:,} good services: not put down, or something held back",
            int(figures["many_trials"]) - int(figures["many_good"]),
            0,
            f"of {figures['many_trials']}; the slowest took {figures['many_slowest_s']} s",
        ),
        Row("good resources held back by bad ones", int(figures["held_back"]), 0),
        Row("bad resources that were not in force once mended", int(figures["not_mended"]), 0),
        Row(
            "bad resource -> its object's status names the field, p99, s",
            figures["p99_s"],
            1,
        ),
    ]
