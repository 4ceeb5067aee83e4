"""A sidecar of the standing mesh with other flags for a while."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from tests.e2e.shop import Shop, until
from windward.local.parts import STATUS_PORT
from windward.local.ready import http_get


@asynccontextmanager
async def with_flags(shop: Shop, name: str, *flags: str) -> AsyncIterator[None]:
    """A workload's agent started again with these, and as it was at the end."""
    child = shop.mesh.parts[name].child
    assert child is not None
    before = child.spec
    try:
        await _again(shop, name, (*before.command, *flags))
        yield
    finally:
        await _again(shop, name, before.command)


async def _again(shop: Shop, name: str, command: tuple[str, ...]) -> None:
    child = shop.mesh.parts[name].child
    assert child is not None
    address, restarts = shop.mesh.plan.place(name).address, child.restarts
    child.spec = replace(child.spec, command=command)
    child.kill()

    async def ready() -> bool:
        try:
            status, _ = await http_get(address, STATUS_PORT, "/healthz/ready", timeout_s=1)
        except (OSError, TimeoutError):
            return False
        return child.restarts > restarts and status == 200

    await until(ready, f"{name} to be ready with {command[-2:]}", deadline_s=60)
