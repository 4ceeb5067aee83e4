"""Kills under load: the data plane outlives the control plane, and a dead workload is left alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.catalogs import TO_CATALOG, TWO, write_topology
from tests.e2e.conftest import running
from tests.e2e.shop import until
from windward.local.parts import Options

pytestmark = [pytest.mark.timeout(240)]

# What the killed proxy had in hand is a reset, and what a proxy without its application answers is a 503.
RETRIED = (
    TO_CATALOG + "    retries: {attempts: 5, retryOn: 'connect-failure,refused-stream,reset,503'}\n"
)


KILLED = ("pilot", "mixer", "citadel", "etcd")
RATE = 200.0
OPEN_RULE = """
apiVersion: config.istio.io/v1alpha2
kind: handler
metadata: {name: open, namespace: bookshop}
spec: {compiledAdapter: denier}
---
apiVersion: config.istio.io/v1alpha2
kind: instance
metadata: {name: open, namespace: bookshop}
spec: {compiledTemplate: checknothing}
---
apiVersion: config.istio.io/v1alpha2
kind: rule
metadata:
  name: open
  namespace: bookshop
  annotations: {windward.io/fail-policy: open}
spec:
  match: request.path == "/books/7"
  actions: [{handler: open, instances: [open]}]
"""


@pytest.fixture
def twins(folder: Path) -> Path:
    """Two catalogs behind a gateway, and the Bookshop's configuration."""
    return write_topology(folder, TWO)


async def test_killing_each_part_of_the_control_plane_fails_no_request(folder: Path, twins: Path):
    async with running(folder / "run", twins) as shop, shop:
        await shop.apply(TO_CATALOG)
        await shop.apply(OPEN_RULE)
        stop = asyncio.Event()
        began = asyncio.get_running_loop().time()
        loading = asyncio.create_task(shop.load("/books/1", RATE, stop))
        for name in KILLED:
            child = shop.mesh.parts[name].child
            assert child is not None
            restarts = child.restarts
            child.kill()

            async def back(child=child, restarts=restarts) -> bool:
                return child.restarts > restarts and child.pid is not None

            await until(back, f"{name} to be started again")
            response = await shop.apply_until_stored(
                TO_CATALOG + f"  - {{name: after-{name}, directResponse: {{status: 204}}}}\n"
            )
            await shop.in_force(response.revision)
        counts = {name: part.child.restarts for name, part in shop.mesh.parts.items() if part.child}
        stop.set()
        load = await loading
        took_s = asyncio.get_running_loop().time() - began
    assert load.failed == 0, (load.statuses, load.errors)
    assert load.statuses[200] >= 0.9 * RATE * took_s, "the load was what it says"
    assert counts == {name: int(name in KILLED) for name in counts}, "nothing else restarted"


async def test_a_killed_workload_receives_no_request_and_no_request_fails(
    folder: Path, twins: Path
):
    async with running(folder / "run", twins, options=Options(endpoint_ttl_s=3.0)) as shop, shop:
        await shop.apply(RETRIED)
        stop = asyncio.Event()
        loading = asyncio.create_task(shop.load("/books/1", 100, stop))

        async def both() -> bool:
            seen = {answer.json["version"] for answer in await shop.get_many(20, "/books/1")}
            return seen == {"a", "b"}

        await until(both, "both catalogs to answer")
        for name in ("catalog-b/app", "catalog-b"):
            child = shop.mesh.parts[name].child
            assert child is not None
            child.kill(keep_down=True)

        async def unhealthy() -> bool:
            endpoints = await shop.endpoint_health("gateway", "catalog")
            return endpoints.get(shop.mesh.plan.place("catalog-b").address) == "UNHEALTHY"

        await until(unhealthy, "the dead catalog's lease to expire everywhere")
        before = await shop.attempts("gateway", "catalog-b")
        answers = await shop.get_many(60, "/books/1")
        assert {answer.json["version"] for answer in answers} == {"a"}
        assert await shop.attempts("gateway", "catalog-b") == before
        stop.set()
        load = await loading
    assert load.failed == 0, (load.statuses, load.errors)


async def test_short_lived_certificates_rotate_three_times_without_a_failed_request(
    folder: Path, twins: Path
):
    async with running(folder / "run", twins, options=Options(certificate_ttl_s=60)) as shop, shop:
        await shop.apply(TO_CATALOG)
        stop = asyncio.Event()
        loading = asyncio.create_task(shop.load("/books/1", 50, stop))
        serials: set[str] = set()

        async def rotated() -> bool:
            serials.add(await shop.certificate_serial("catalog-a"))
            return len(serials) >= 4

        await until(rotated, "three rotations", deadline_s=180)
        stop.set()
        load = await loading
    assert load.failed == 0, (load.statuses, load.errors)
