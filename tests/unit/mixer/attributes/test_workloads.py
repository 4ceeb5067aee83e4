from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from services.mixer.attributes.workloads import Workloads
from windward import registration
from windward.registration import RegisteredWorkload
from windward.store.keys import endpoint_key
from windward.store.memory import MemoryStore
from windward.store.protocol import Remove, Transaction, Write


def a_workload(
    name: str = "catalog", address: str = "10.0.0.7", version: str = "v1"
) -> RegisteredWorkload:
    return RegisteredWorkload(
        namespace="harbour",
        name=name,
        address=address,
        workload_group=name,
        service_account=name,
        labels={"app": name, "version": version},
    )


def written(workload: RegisteredWorkload) -> Write:
    return Write(endpoint_key(workload.namespace, workload.name), registration.encode(workload))


@asynccontextmanager
async def following(store: MemoryStore) -> AsyncIterator[Workloads]:
    workloads = Workloads()
    task = asyncio.create_task(workloads.run(store))
    try:
        yield workloads
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0)


def test_a_workload_is_found_by_address_and_by_name():
    workloads = Workloads()
    workloads.put(a_workload())
    assert workloads.at("10.0.0.7") == a_workload()
    assert workloads.named("harbour", "catalog") == a_workload()


def test_a_stranger_is_nobody():
    workloads = Workloads()
    workloads.put(a_workload())
    assert workloads.at("10.0.0.8") is None
    assert workloads.at("") is None
    assert workloads.named("elsewhere", "catalog") is None


def test_a_later_record_replaces_an_earlier_one():
    workloads = Workloads()
    workloads.put(a_workload())
    workloads.put(a_workload(version="v2"))
    found = workloads.at("10.0.0.7")
    assert found is not None
    assert found.labels["version"] == "v2"
    assert workloads.named("harbour", "catalog") == found


def test_an_address_belongs_to_who_registered_it_last():
    workloads = Workloads()
    workloads.put(a_workload("catalog"))
    workloads.put(a_workload("reviews"))
    found = workloads.at("10.0.0.7")
    assert found is not None
    assert found.name == "reviews"


async def test_records_are_read_and_followed():
    store = MemoryStore()
    await store.commit(Transaction((written(a_workload()),)))
    async with following(store) as workloads:
        await until(lambda: workloads.at("10.0.0.7") is not None)
        await store.commit(Transaction((written(a_workload("reviews", "10.0.0.8")),)))
        await until(lambda: workloads.at("10.0.0.8") is not None)


async def test_a_vanished_workload_is_known_for_its_last_reports():
    store = MemoryStore()
    await store.commit(Transaction((written(a_workload()),)))
    async with following(store) as workloads:
        await until(lambda: workloads.at("10.0.0.7") is not None)
        await store.commit(
            Transaction(
                (
                    Remove(endpoint_key("harbour", "catalog")),
                    written(a_workload("reviews", "10.0.0.8")),
                )
            )
        )
        await until(lambda: workloads.at("10.0.0.8") is not None)
        assert workloads.named("harbour", "catalog") == a_workload()


async def test_an_unreadable_record_hurts_no_other():
    store = MemoryStore()
    for value in (b"", b"{", b'{"namespace": 1}', b"\xff"):
        await store.commit(Transaction((Write(endpoint_key("harbour", "broken"), value),)))
    await store.commit(Transaction((Write(endpoint_key("harbour", "a"), b"[]"),)))
    async with following(store) as workloads:
        await store.commit(Transaction((written(a_workload()),)))
        await until(lambda: workloads.at("10.0.0.7") is not None)
        await store.commit(Transaction((Write(endpoint_key("harbour", "a"), b"{}"),)))
        await store.commit(Transaction((written(a_workload("reviews", "10.0.0.8")),)))
        await until(lambda: workloads.at("10.0.0.8") is not None)
