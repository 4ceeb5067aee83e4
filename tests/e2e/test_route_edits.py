"""Routes edited under load: a request never meets a route whose cluster is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.route_edits import EDITS, edit_under_load, write_topology
from tests.e2e.conftest import running

pytestmark = [pytest.mark.timeout(180)]


async def test_destinations_come_and_go_without_a_failed_request(folder: Path):
    async with running(folder / "run", write_topology(folder)) as shop:
        seen = await edit_under_load(shop.mesh, edits=2 * len(EDITS), rate=200)
    assert (seen["failed"], seen["failures"]) == (0, [])
    assert set(seen["answered_by"]) == {"v1", "v2", "other"}, "requests reached every destination"
    assert seen["requests"] > 500
