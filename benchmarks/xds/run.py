"""Running a scenario: several times, against another checkout in turn, into one JSON object and a table."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.fleet.build import CannotBuild, fleet_binary
from benchmarks.fleet.process import FleetError
from benchmarks.xds import changes, churn, cold, envoys
from benchmarks.xds.scene import Figures, Wish, flat
from benchmarks.xds.table import lines, merged
from windward.local.errors import LocalMeshError

Scenario = Callable[[Wish], Awaitable[Figures]]
SCENARIOS: Mapping[str, Scenario] = {
    "xds-endpoint": changes.endpoint,
    "xds-route": changes.route,
    "xds-churn": churn.churn,
    "xds-cold": cold.cold,
    "xds-memory": churn.memory,
    "xds-storm": cold.storm,
    "xds-store": cold.store,
    "xds-envoy": envoys.envoys,
}
RUN_TIMEOUT_S = 900.0


class Failed(Exception):
    """One line: why there is no result."""


def once(name: str, wish: Wish) -> dict[str, Any]:
    """One run. Raises Failed."""
    try:
        fleet_binary(tls=not wish.plaintext)
        figures = asyncio.run(_bounded(SCENARIOS[name], wish))
    except (CannotBuild, LocalMeshError, FleetError) as error:
        raise Failed(f"{name}: {error}") from error
    except TimeoutError as error:
        raise Failed(f"{name}: not done after {RUN_TIMEOUT_S:.0f} s") from error
    return flat(name, wish, figures) | {"revision": revision(wish.checkout)}


def revision(checkout: Path) -> str:
    """The checkout's commit, ``+`` behind it where files differ from it; empty where there is no git."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


async def _bounded(scenario: Scenario, wish: Wish) -> Figures:
    async with asyncio.timeout(RUN_TIMEOUT_S):
        return await scenario(wish)


def several(name: str, wish: Wish, runs: int, against: Path | None) -> dict[str, Any]:
    """Runs of this checkout; with another one in turn (A B A B ...) its figures stand beside as ``against_...``."""
    ours, theirs = [], []
    for number in range(runs):
        ours.append(once(name, wish))
        _say(name, "ours", number, ours[-1])
        if against is not None:
            theirs.append(once(name, replace(wish, checkout=against.resolve())))
            _say(name, "theirs", number, theirs[-1])
    result = merged(ours)
    if theirs:
        result |= {f"against_{key}": value for key, value in merged(theirs).items()}
    return result


def _say(name: str, whose: str, number: int, result: Mapping[str, Any]) -> None:
    sys.stderr.write(
        f"{name} {whose} {number + 1}: p50 {result.get('p50_ms')} ms, p99 {result.get('p99_ms')} ms, "
        f"CPU {result.get('server_cpu_s')} s, load {result.get('load_before')}\n"
    )


def show(result: Mapping[str, Any], file: Path | None) -> None:
    for line in lines(result):
        print(line)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result, indent=1) + "\n")
