"""The whole control plane dead: traffic goes on, agents and Envoys may restart, and its return moves differences only."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
from aiohttp import ClientError

from benchmarks.catalogs import TO_CATALOG, write_topology
from services.agent.xds_proxy.disk import LastGood
from services.agent.xds_proxy.last_good import Owner
from tests.e2e.conftest import running
from tests.e2e.shop import Shop, until
from windward.local.child import Child
from windward.local.parts import STATUS_PORT, Options, identity
from windward.local.ready import http_get

pytestmark = [pytest.mark.timeout(240)]

CONTROL_PLANE = ("etcd", "citadel", "pilot", "mixer")
PROXIES = {"gateway": "router", "catalog-a": "sidecar"}
AFTER = "  http:\n  - {match: [{uri: {exact: /after}}], directResponse: {status: 204}}\n"
CHANGED = TO_CATALOG.replace("  http:\n", AFTER)
Versions = Mapping[tuple[str, str], str]


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="ww-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def child_of(shop: Shop, name: str) -> Child:
    child = shop.mesh.parts[name].child
    assert child is not None
    return child


def on_disk(shop: Shop, name: str) -> Versions:
    """(type, name) -> version of what an agent has kept; empty while it has kept nothing."""
    place = shop.mesh.plan.place(name)
    account = {"gateway": "gateway", "catalog-a": "catalog"}[name]
    node = f"{PROXIES[name]}~{place.address}~{name}.bookshop~bookshop.svc.cluster.local"
    state_dir = shop.mesh.directory / "state" / name
    state = LastGood(state_dir, Owner(identity(account, "bookshop"), node)).load()
    return {
        (url, resource): held.version
        for url, known in (state.types if state else {}).items()
        for resource, held in known.resources.items()
    }


async def metric(shop: Shop, name: str, metric_name: str) -> float:
    address = shop.mesh.plan.place(name).address
    _, body = await http_get(address, STATUS_PORT, "/metrics", timeout_s=5)
    found = re.search(rf"^{metric_name} (\S+)$", body.decode(), re.MULTILINE)
    assert found is not None, metric_name
    return float(found[1])


async def serving(shop: Shop) -> bool:
    """Asked with little patience: what was sent into a dying Envoy is not answered."""
    try:
        async with asyncio.timeout(2):
            return (await shop.get("/books/1")).status == 200
    except (ClientError, OSError, TimeoutError):
        return False


async def restarted(shop: Shop, name: str) -> None:
    """Kill an agent, which takes its Envoy along, and wait until another one is there."""
    child = child_of(shop, name)
    before = child.restarts
    child.kill()

    async def back() -> bool:
        return child.restarts > before and child.pid is not None

    await until(back, f"{name}'s agent to be started again")


def envoy_of(shop: Shop, name: str) -> int:
    agent = child_of(shop, name).pid
    (envoy,) = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    return int(envoy)


async def envoy_restarted(shop: Shop, name: str) -> None:
    killed = envoy_of(shop, name)
    os.kill(killed, signal.SIGKILL)

    async def back() -> bool:
        try:
            return envoy_of(shop, name) != killed
        except ValueError:
            return False

    await until(back, f"{name}'s Envoy to be started again")


async def in_sync(shop: Shop) -> None:
    async def synced() -> bool:
        proxies = await shop.mesh.administrator.proxies()
        return len(proxies) == len(PROXIES) and all(
            kind.state == "SYNCED" for proxy in proxies for kind in proxy.types.values()
        )

    await until(synced, "every proxy to be in sync", deadline_s=60)


async def a_state_that_was_changed_is_not_served(shop: Shop) -> None:
    """It is told of, and no reason not to start."""
    kept_at = shop.mesh.directory / "state" / "gateway" / "last-good" / "state"
    content = bytearray(kept_at.read_bytes())
    content[len(content) // 2] ^= 1
    kept_at.write_bytes(content)
    await restarted(shop, "gateway")
    await until(lambda: serving(shop), "the gateway to serve what Pilot says", deadline_s=60)
    assert await metric(shop, "gateway", "windward_agent_last_good_failures_total") == 1
    assert "the digest differs" in child_of(shop, "gateway").spec.log.read_text()


async def is_ready(address: str) -> bool:
    return (await http_get(address, STATUS_PORT, "/healthz/ready"))[0] == 200


async def test_everything_may_restart_while_the_control_plane_is_dead(folder: Path):
    options = Options(endpoint_ttl_s=60.0)
    async with running(folder / "run", write_topology(folder), options=options) as shop, shop:
        await shop.mesh.administrator.apply_text(TO_CATALOG)
        await until(lambda: serving(shop), "the catalog to be served", deadline_s=60)
        await in_sync(shop)

        async def kept() -> bool:
            """Both have written what they have now."""
            pending = [await metric(shop, n, "windward_agent_last_good_pending") for n in PROXIES]
            return not any(pending) and all(on_disk(shop, name) for name in PROXIES)

        await until(kept, "the last good states to be on disk")
        stop = asyncio.Event()
        loading = asyncio.create_task(shop.load("/books/1", 50, stop))
        for name in CONTROL_PLANE:
            child_of(shop, name).kill(keep_down=True)

        async def alone() -> bool:
            return not any(
                [await metric(shop, n, "windward_agent_pilot_connected") for n in PROXIES]
            )

        await until(alone, "agents to be without a Pilot")
        stop.set()
        assert (await loading).failed == 0

        await restarted(shop, "gateway")
        await until(lambda: serving(shop), "the gateway to serve from its disk", deadline_s=60)
        await restarted(shop, "catalog-a")
        await until(lambda: serving(shop), "the catalog to serve from its disk", deadline_s=60)
        await envoy_restarted(shop, "catalog-a")
        await until(lambda: serving(shop), "the catalog's new Envoy to serve", deadline_s=60)
        await asyncio.gather(restarted(shop, "gateway"), restarted(shop, "catalog-a"))
        await until(lambda: serving(shop), "both to serve from their disks", deadline_s=60)
        for name in PROXIES:
            assert await metric(shop, name, r'windward_agent_config_source\{source="disk"\}') == 1
            assert await metric(shop, name, "windward_agent_config_age_seconds") > 0
            assert await metric(shop, name, "windward_agent_certificate_condition") == 0
            address = shop.mesh.plan.place(name).address
            await until(partial(is_ready, address), f"{name} to have tried every Pilot in vain")

        stop = asyncio.Event()
        loading = asyncio.create_task(shop.load("/books/1", 50, stop))
        before = {name: on_disk(shop, name) for name in PROXIES}
        for name in CONTROL_PLANE:
            child_of(shop, name).revive()
        await in_sync(shop)
        response = await shop.apply_until_stored(CHANGED)

        async def changed() -> bool:
            return on_disk(shop, "gateway") != before["gateway"]

        await until(changed, "the change after the outage to arrive")
        await in_sync(shop)
        assert response.revision
        stop.set()
        assert (await loading).failed == 0
        for name in PROXIES:
            after = on_disk(shop, name)
            differing = {
                key
                for key in before[name].keys() | after.keys()
                if before[name].get(key) != after.get(key)
            }
            moved = await metric(shop, name, "windward_agent_xds_resources_total")
            assert moved == len(differing), (name, differing)
        await a_state_that_was_changed_is_not_served(shop)
