"""All seeds, in both protocols: figures, rows."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks.nacks.seeds import seeds
from benchmarks.nacks.trial import LIMIT_S, Outcome, outcomes
from benchmarks.rows import Row


def measure() -> Mapping[str, Any]:
    load = os.getloadavg()[0]
    found: list[Outcome] = []
    for sotw in (False, True):
        found += asyncio.run(outcomes(seeds(), sotw=sotw))
    times = sorted(item.seconds for item in found if item.attributed and item.seconds is not None)
    return {
        "trials": len(found),
        "attributed": sum(item.attributed for item in found),
        "within_1s": sum(seconds <= LIMIT_S for seconds in times),
        "held_back": sum(len(item.held_back) for item in found),
        "not_mended": sum(not item.mended for item in found),
        "p50_s": round(median(times), 3),
        "p99_s": round(times[max(0, -(-99 * len(times) // 100) - 1)], 3),
        "load_before": load,
        "load_after": os.getloadavg()[0],
        "missed": ", ".join(
            f"{item.seed} ({'state of the world' if item.sotw else 'delta'})"
            for item in found
            if not item.attributed
        ),
        "seeds": [
            asdict(item) | {"held_back": [list(b) for b in item.held_back]} for item in found
        ],
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
        Row("good resources held back by bad ones", int(figures["held_back"]), 0),
        Row(
            "bad resource -> its object's status names the field, p99, s",
            float(figures["p99_s"]),
            1,
        ),
    ]
