"""Results for people: one name and figure a line; of several runs the median, with the least and the most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

NEVER_MERGED = ("scenario", "services", "streams", "scopes", "ports", "changes")


def merged(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One flat object of several runs: the median of each number, beside ``..._all`` for the timed ones."""
    first = runs[0]
    result: dict[str, Any] = {}
    for name, value in first.items():
        values = [run.get(name) for run in runs]
        numbers = [
            item for item in values if isinstance(item, (int, float)) and not isinstance(item, bool)
        ]
        if name in NEVER_MERGED or len(numbers) < len(values):
            result[name] = next((item for item in values if item not in {None, ""}), value)
        elif name.startswith("faults"):
            result[name] = max(numbers)
        else:
            result[name] = round(median(numbers), 4)
    result["runs"] = len(runs)
    if len(runs) > 1:
        for name in ("p50_ms", "p99_ms", "last_ms", "server_cpu_s", "load_before"):
            result[f"{name}_all"] = " ".join(str(run.get(name)) for run in runs)
    return result


def lines(result: Mapping[str, Any]) -> list[str]:
    return [f"{name:<28} {_shown(value)}" for name, value in result.items()]


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
