"""Many renewals are few streams, and each asker has the answer to its own question."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from tests.unit.store.etcd.scripted import header, serving
from windward.api.store.v1 import etcd_pb2 as wire
from windward.store.errors import LeaseLost
from windward.store.etcd import renewals as module
from windward.store.etcd.store import EtcdStore


class Leases:
    """Answers that a lease lives as many seconds as its id says."""

    def __init__(self) -> None:
        self.streams: list[int] = []
        self.broken = 0

    async def renew(self, requests: Any, context: Any) -> Any:
        mine = len(self.streams)
        self.streams.append(0)
        async for request in requests:
            if self.broken:
                self.broken -= 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "no leader")
            self.streams[mine] += 1
            yield wire.LeaseKeepAliveResponse(header=header(1), ID=request.ID, TTL=request.ID)


@pytest.fixture
async def leases():
    script = Leases()
    async with serving(streams={module.METHOD: script.renew}) as address:
        store = EtcdStore([address])
        yield script, store
        await store.close()


async def test_who_comes_while_a_round_is_under_way_shares_the_next(leases):
    script, store = leases
    ids = range(1, 101)
    assert await asyncio.gather(*(store.keep_alive(number) for number in ids)) == list(ids)
    assert sum(script.streams) == 100
    assert len(script.streams) <= 2 * module.MOST_ROUNDS


async def test_the_same_lease_asked_for_twice_is_answered_twice(leases):
    _, store = leases
    assert await asyncio.gather(*(store.keep_alive(7) for _ in range(3))) == [7, 7, 7]


async def test_a_lapsed_lease_among_others_is_the_only_one_lost(leases):
    _, store = leases
    found = await asyncio.gather(
        *(store.keep_alive(number) for number in (5, 0, 6)), return_exceptions=True
    )
    assert (found[0], found[2]) == (5, 6)
    assert isinstance(found[1], LeaseLost)


async def test_a_round_that_breaks_is_run_again(leases):
    script, store = leases
    script.broken = 2
    assert await asyncio.gather(*(store.keep_alive(number) for number in (5, 6))) == [5, 6]


async def test_a_large_round_is_several(leases, monkeypatch):
    script, store = leases
    monkeypatch.setattr(module, "MOST_A_ROUND", 10)
    await asyncio.gather(*(store.keep_alive(number) for number in range(1, 36)))
    assert max(script.streams) == 10
    assert sum(script.streams) == 35


async def test_who_gives_up_takes_nobody_along(leases):
    _, store = leases
    asking = [asyncio.create_task(store.keep_alive(number)) for number in range(1, 5)]
    await asyncio.sleep(0)
    asking[0].cancel()
    assert await asyncio.gather(*asking[1:]) == [2, 3, 4]


async def test_a_store_that_is_closed_leaves_nobody_waiting():
    async def silent(requests: Any, _: Any) -> Any:
        async for _request in requests:
            await asyncio.sleep(3600)
            yield wire.LeaseKeepAliveResponse()

    async with serving(streams={module.METHOD: silent}) as address:
        store = EtcdStore([address])
        asking = asyncio.create_task(store.keep_alive(7))
        await asyncio.sleep(0.05)
        await store.close()
        async with asyncio.timeout(10):
            await asyncio.wait({asking})
        assert asking.cancelled()
