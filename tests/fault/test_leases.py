"""Agents that live all the time lose no endpoint: with etcd stopped, with every Pilot dead, with one of two killed."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks import leases
from benchmarks.lease_mesh import LeaseMesh, lost

pytestmark = pytest.mark.timeout(150)
AGENTS = 40
TTL_S = 2.0


async def test_etcd_stopped_for_longer_than_a_ttl():
    seen = await leases.etcd_stopped(AGENTS, TTL_S, 4.0)
    assert seen["lost"] == 0


async def test_all_pilots_dead_for_three_ttls():
    seen = await leases.pilots_dead(AGENTS, TTL_S)
    assert seen["leases_left"] == 0, "every lease lapsed"
    assert seen["lost"] == 0


async def test_a_killed_pilots_agents_keep_their_leases_at_another_one():
    seen = await leases.pilot_killed(AGENTS, TTL_S)
    assert seen == {"lost": 0, "leases_kept": AGENTS, "fewest_leases": AGENTS}


async def test_a_restarted_store_that_has_lost_nothing_pushes_nothing():
    async with LeaseMesh(agents=5, ttl_s=30.0) as mesh:
        await mesh.bench.etcd.kill()
        await mesh.bench.etcd.start()
        before = await mesh.until_leased()
        # What is written now comes after whatever the restart could have brought.
        (name, agent), *_ = zip(sorted(before), mesh.agents, strict=True)
        await agent.end()
        await mesh.watcher.until(lambda: mesh.watcher.healthy == len(before) - 1)
        assert mesh.watcher.responses == 1, name
        assert lost(mesh, len(before)) == 1


async def test_an_agent_that_dies_is_unhealthy_soon_and_then_gone():
    async with LeaseMesh(agents=3, ttl_s=TTL_S) as mesh:
        await mesh.stop_agent(0)
        await mesh.watcher.until(lambda: mesh.watcher.healthy == 2)
        async with asyncio.timeout(60):
            while mesh.watcher.listed == 3:
                await mesh.watcher.next()
        assert (mesh.watcher.listed, mesh.watcher.healthy) == (2, 2)
