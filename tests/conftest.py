"""Fixtures that many tests share, and the rule about root: asked for in CI, left out of a run without it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from windward.local.etcd import EtcdProcess
from windward.store.memory import MemoryStore
from windward.store.open import open_store
from windward.store.protocol import Store


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without root, tests that need it are not collected; CI has it."""
    if os.geteuid() == 0:
        return
    if os.environ.get("CI") == "true":
        raise pytest.UsageError("CI must run as root: network namespaces and iptables are tested")
    needing = [item for item in items if item.get_closest_marker("root")]
    config.hook.pytest_deselected(items=needing)
    items[:] = [item for item in items if item not in needing]


@pytest.fixture
async def etcd() -> AsyncIterator[EtcdProcess]:
    """A real etcd of the test's own, which it may kill, stop and resume."""
    folder = Path(tempfile.mkdtemp(prefix="ww-etcd-"))
    process = EtcdProcess(folder / "data")
    await process.start()
    yield process
    await process.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["memory", "etcd"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Each store there is: what holds for one holds for the other."""
    if request.param == "memory":
        yield MemoryStore()
        return
    process = EtcdProcess(tmp_path / "etcd")
    await process.start()
    made = open_store(process.url)
    yield made
    await made.close()
    await process.stop()
