"""Parts killed at random under load: only what was under way on a killed Envoy is lost, and everything comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.chaos.blame import Part
from benchmarks.chaos.run import chaos
from benchmarks.chaos.scene import Strike, schedule, write_topology
from tests.e2e.conftest import running

pytestmark = [pytest.mark.timeout(240)]
SEED, SECONDS = 4, 57.0
FIRST = (Strike(1.0, Part.PILOT, "pilot"), Strike(2.0, Part.ENVOY, "solo"))
"""Whatever the seed brings after it: one part of each side. A minute in all."""


async def test_every_failed_request_was_due_to_a_kill_and_everything_comes_back(folder: Path):
    async with running(folder / "run", write_topology(folder)) as shop:
        seen = await chaos(shop.mesh, (*FIRST, *schedule(SEED, SECONDS)), rate=30)
    assert seen["unexplained"] == []
    assert seen["failed_unexplained"] == 0
    assert seen["not_back"] == 0
    assert seen["in_sync_at_the_end"]
    assert sum(seen["kills"].values()) >= len(FIRST) + SECONDS / 5
    assert seen["requests"] > 30 * SECONDS
