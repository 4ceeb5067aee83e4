"""Three etcds, one of them stopped or killed: the store goes on with the others, loses nothing and repeats nothing."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fault.test_store_etcd import Watcher, create
from windward.local.etcd import EtcdCluster, EtcdProcess
from windward.store.errors import Conflict, StoreError
from windward.store.open import open_store
from windward.store.protocol import Store

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def cluster() -> AsyncIterator[EtcdCluster]:
    folder = Path(tempfile.mkdtemp(prefix="ww-etcds-"))
    made = EtcdCluster(folder)
    await made.start()
    yield made
    await made.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def store(cluster: EtcdCluster) -> AsyncIterator[Store]:
    made = open_store(cluster.url)
    yield made
    await made.close()


def in_use(cluster: EtcdCluster, store: Store) -> EtcdProcess:
    """The member that the client talks to."""
    endpoint = store._connection.endpoint  # type: ignore[attr-defined]
    return next(member for member in cluster.members if member.endpoint == endpoint)


async def created(store: Store, name: str) -> None:
    """Again until it is there: an election may take longer than one call may."""
    async with asyncio.timeout(60):
        while True:
            try:
                await create(store, name)
            except Conflict:
                return  # an earlier attempt was carried out after all
            except StoreError:
                continue
            else:
                return


async def test_a_hung_member_is_left_for_the_others(cluster: EtcdCluster, store: Store):
    """Whichever it is, the leader sooner or later among them."""
    watcher = Watcher(store, 1)
    lease = (await store.grant(60)).id
    for turn in range(3):
        hung = cluster.members[turn]
        await created(store, f"before-{turn}")
        hung.pause()
        for number in range(30):
            await created(store, f"during-{turn}-{number}")
        assert in_use(cluster, store) is not hung
        assert await store.keep_alive(lease) == 60
        hung.resume()
        await created(store, f"after-{turn}")
    await watcher.until(3 * 32)
    seen = await watcher.stop()
    assert len(seen) == len(set(seen)) == 3 * 32


async def test_a_killed_member_comes_back_and_has_missed_nothing(
    cluster: EtcdCluster, store: Store
):
    watcher = Watcher(store, 1)
    for number in range(50):
        await created(store, f"a{number}")
    killed = in_use(cluster, store)
    await killed.kill()
    for number in range(50):
        await created(store, f"b{number}")
    await killed.start()
    alone = open_store(killed.url)
    try:
        assert len((await alone.list("/w/")).entries) == 100
    finally:
        await alone.close()
    await watcher.until(100)
    seen = await watcher.stop()
    assert len(seen) == len(set(seen)) == 100
