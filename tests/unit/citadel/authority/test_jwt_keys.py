"""The ring in the store: one for all replicas, sealed, followed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from services.citadel.authority import jwt_keys
from services.citadel.authority.jwt import JwtPolicy, bundle
from services.citadel.authority.jwt_keys import JWT_KEYS, JwtKeys
from services.citadel.authority.sealing import SealingError
from windward.identity.keys import key_pem
from windward.store.errors import Unavailable
from windward.store.memory import MemoryStore
from windward.store.protocol import Entry, Remove, Store, Transaction, Write

POLICY = JwtPolicy(default_ttl_s=300, max_ttl_s=3600, signs_for_s=86_400, announced_for_s=3600)
SECRET = b"k" * 32
WAIT_S = 20.0


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 5, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def replica(store: Store, clock: Clock, secret: bytes = SECRET) -> JwtKeys:
    return JwtKeys(store, secret, POLICY, clock)


async def test_replicas_that_race_share_one_ring(store: Store):
    clock = Clock()
    replicas = [replica(store, clock) for _ in range(4)]
    await asyncio.gather(*(each.refresh() for each in replicas))
    assert len({bundle(each.ring) for each in replicas}) == 1
    clock.now += timedelta(hours=23)
    await asyncio.gather(*(each.refresh() for each in replicas))
    assert len({bundle(each.ring) for each in replicas}) == 1
    assert [len(each.ring) for each in replicas] == [2] * 4
    assert [each.sequence for each in replicas] == [2] * 4


async def test_no_key_lies_open_in_the_store():
    store, clock = MemoryStore(), Clock()
    keys = replica(store, clock)
    await keys.refresh()
    entry = await store.get(JWT_KEYS)
    assert entry is not None
    der = key_pem(keys.ring[0].key).splitlines()[1]
    assert der not in entry.value
    with pytest.raises(SealingError, match="kek-file"):
        await replica(store, clock, b"x" * 32).refresh()


async def test_a_record_that_is_not_readable_is_an_error_and_stays():
    store = MemoryStore()
    await store.commit(Transaction((Write(JWT_KEYS, b"{}"),)))
    with pytest.raises(SealingError, match="jwt-keys in the store is not readable"):
        await replica(store, Clock()).refresh()
    entry = await store.get(JWT_KEYS)
    assert entry is not None
    assert entry.value == b"{}"


async def test_a_running_replica_rotates_in_time_and_another_follows():
    store, clock = MemoryStore(), Clock()
    first, second = replica(store, clock), replica(store, clock)
    await first.refresh()
    await second.refresh()
    following = asyncio.create_task(second._follow())
    clock.now += timedelta(hours=23)
    rotating = asyncio.create_task(first._rotate())
    try:
        async with asyncio.timeout(WAIT_S):
            await first.changed(1)
            await second.changed(1)
        assert bundle(first.ring) == bundle(second.ring)
        assert len(first.ring) == 2
    finally:
        following.cancel()
        rotating.cancel()
        await asyncio.gather(following, rotating, return_exceptions=True)


async def test_keys_that_were_deleted_are_never_used_again():
    store = MemoryStore()
    keys = replica(store, Clock())
    await keys.refresh()
    before = bundle(keys.ring)
    running = asyncio.create_task(keys.run())
    await store.commit(Transaction((Remove(JWT_KEYS),)))
    try:
        async with asyncio.timeout(WAIT_S):
            await keys.changed(1)
        assert bundle(keys.ring) != before
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class Broken(MemoryStore):
    down = False

    async def get(self, key: str, *, revision: int | None = None) -> Entry | None:
        if self.down:
            raise Unavailable("no store")
        return await super().get(key, revision=revision)


async def test_a_store_that_is_away_leaves_the_last_ring_in_force(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jwt_keys, "RETRY_S", 0.01)
    store, clock = Broken(), Clock()
    keys = replica(store, clock)
    await keys.refresh()
    before = keys.ring
    store.down = True
    clock.now += timedelta(hours=23)
    await keys._try()
    assert keys.ring is before
    store.down = False
    await keys._try()
    assert len(keys.ring) == 2
