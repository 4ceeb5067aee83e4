"""Real meshes for the end-to-end tests: etcd, the four services, real Envoys, the Bookshop."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.shop import BOOKSHOP, Shop
from windward.local.addresses import Mode
from windward.local.mesh import Mesh
from windward.local.parts import Options


@asynccontextmanager
async def running(
    directory: Path,
    topology: Path = BOOKSHOP,
    mode: Mode | None = None,
    options: Options | None = None,
) -> AsyncIterator[Shop]:
    mesh = Mesh(directory, topology, mode=mode, options=options, gateway_port=0)
    await mesh.up()
    try:
        yield Shop(mesh)
    finally:
        await mesh.down()


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="ww-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def session_folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="ww-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def standing_shop(session_folder: Path) -> AsyncIterator[Shop]:
    """One mesh for all tests that only change configuration; in namespaces when root."""
    async with running(session_folder / "mesh", options=Options(endpoint_ttl_s=15.0)) as shop:
        yield shop


@pytest_asyncio.fixture(loop_scope="session")
async def shop(standing_shop: Shop) -> AsyncIterator[Shop]:
    """The standing mesh, its configuration put back after the test."""
    yield standing_shop
    await standing_shop.restore()
