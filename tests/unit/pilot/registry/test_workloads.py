"""Registrations in the store: what a batch says, and records that leave when nobody claims them."""

from __future__ import annotations

import asyncio

from services.pilot.registry.liveness import WorkloadBatch
from services.pilot.registry.workloads import FORGET_AT_ONCE, follow_workloads, forget, read_batch
from tests.unit.pilot.mesh import workload
from windward import registration
from windward.store.errors import Unavailable
from windward.store.keys import REGISTRATIONS_MARK, endpoint_key, endpoint_lease_key
from windward.store.memory import MemoryStore
from windward.store.protocol import Batch, Deleted, Entry, Put, Transaction, Write

ONE, OTHER = ("shop", "one"), ("shop", "other")
RECORD = workload("one", "10.0.0.1", namespace="shop")


def entry(key: str, value: bytes = b"", revision: int = 1) -> Put:
    return Put(Entry(key, value, revision, revision, 1))


async def put_record(store: MemoryStore, *, leased: bool) -> None:
    writes = [Write(endpoint_key(*ONE), registration.encode(RECORD))]
    if leased:
        lease = await store.grant(60)
        writes.append(Write(endpoint_lease_key(*ONE), b"", lease.id))
    await store.commit(Transaction(tuple(writes)))


def test_the_last_word_of_each_key_counts():
    changes = (
        entry(endpoint_key(*ONE), registration.encode(RECORD)),
        entry(endpoint_lease_key(*ONE)),
        Deleted(endpoint_lease_key(*ONE), 2),
        Deleted(endpoint_key(*OTHER), 2),
        Deleted(endpoint_lease_key(*OTHER), 3),
        entry(endpoint_lease_key(*OTHER), b"", 4),
    )
    made = read_batch(Batch(changes, 4))
    assert made.put == {ONE: RECORD}
    assert made.removed == {OTHER}
    assert made.lapsed == {ONE}
    assert made.leased == {OTHER}


def test_a_record_that_cannot_be_read_is_left_out():
    changes = (
        entry(endpoint_key(*OTHER), b"{"),
        entry(endpoint_key(*ONE), registration.encode(RECORD)),
    )
    assert read_batch(Batch(changes, 1)).put == {ONE: RECORD}


def test_a_mark_is_no_workload():
    batch = read_batch(Batch((entry(REGISTRATIONS_MARK), Deleted(REGISTRATIONS_MARK, 8)), 9))
    assert batch == WorkloadBatch(revision=9)


async def test_record_and_lease_of_one_transaction_come_in_one_batch():
    store = MemoryStore()
    batches = follow_workloads(store)
    first = await anext(batches)
    assert first == WorkloadBatch(revision=1)
    waiting = asyncio.create_task(anext(batches))
    await asyncio.sleep(0)
    await put_record(store, leased=True)
    batch = await waiting
    await batches.aclose()
    assert batch.put.keys() == batch.leased == {ONE}


async def test_a_record_that_nobody_claims_leaves_the_store():
    store = MemoryStore()
    await put_record(store, leased=False)
    forgotten = {ONE, OTHER}
    await forget(store, forgotten)
    assert await store.get(endpoint_key(*ONE)) is None
    assert not forgotten


async def test_a_record_that_was_claimed_meanwhile_stays():
    store = MemoryStore()
    await put_record(store, leased=True)
    forgotten = {ONE}
    await forget(store, forgotten)
    assert await store.get(endpoint_key(*ONE)) is not None
    assert not forgotten


async def test_what_cannot_be_removed_now_is_removed_next_time():
    class Away(MemoryStore):
        away = True

        async def commit(self, transaction: Transaction) -> int:
            if self.away and transaction.conditions:
                raise Unavailable("not now")
            return await super().commit(transaction)

    store = Away()
    await put_record(store, leased=False)
    forgotten = {ONE}
    await forget(store, forgotten)
    assert forgotten == {ONE}
    store.away = False
    await forget(store, forgotten)
    assert await store.get(endpoint_key(*ONE)) is None


async def test_many_leave_in_portions():
    store = MemoryStore()
    forgotten = {("shop", f"w{number}") for number in range(FORGET_AT_ONCE + 7)}
    await forget(store, forgotten)
    assert len(forgotten) == 7
