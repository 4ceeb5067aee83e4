"""Filling a store quickly, as Pilot's own APIs would have written it, and making one change at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from benchmarks.xds.population import Population
from windward import registration
from windward.config.decode import decode_object
from windward.config.object import ConfigObject
from windward.config.stored import MOST_STEPS, Author, plan_changes, store_key
from windward.registration import RegisteredWorkload
from windward.store.keys import endpoint_key, endpoint_lease_key
from windward.store.protocol import Store, Transaction, Write

AUTHOR = "spiffe://cluster.local/ns/istio-system/sa/benchmark"
LEASE_S = 24 * 3600.0
AT_ONCE = 4
WORKLOADS_A_TRANSACTION = 60


def decoded(raw: Mapping[str, Any]) -> ConfigObject[Any]:
    made, findings = decode_object(raw)
    assert made is not None, f"{raw['kind']} {raw['metadata']['name']}: {findings[0]}"
    return made


async def load_objects(store: Store, objects: Iterable[Mapping[str, Any]]) -> int:
    """Write objects that do not exist yet, 60 a transaction; how many."""
    author = Author(AUTHOR, datetime.now(UTC), "benchmark")
    rest, written, gate = iter(objects), 0, asyncio.Semaphore(AT_ONCE)

    async def commit(transaction: Transaction) -> None:
        async with gate:
            await store.commit(transaction)

    async with asyncio.TaskGroup() as group:
        while batch := [decoded(raw) for raw in islice(rest, MOST_STEPS)]:
            plan = plan_changes({}, batch, [], author)
            assert plan.transaction is not None
            group.create_task(commit(plan.transaction))
            written += len(batch)
            await asyncio.sleep(0)
    return written


async def load_workloads(store: Store, population: Population) -> None:
    """Register one workload a service, all on one long lease."""
    lease = (await store.grant(LEASE_S)).id
    for at in range(0, population.services, WORKLOADS_A_TRANSACTION):
        some = range(at, min(at + WORKLOADS_A_TRANSACTION, population.services))
        writes = [
            write for item in map(population.workload, some) for write in registered(item, lease)
        ]
        await store.commit(Transaction(tuple(writes)))


def registered(item: RegisteredWorkload, lease: int) -> tuple[Write, Write]:
    """As RegistryService writes it for an agent: the record, and beside it what lives and dies with the lease."""
    return (
        Write(endpoint_key(item.namespace, item.name), registration.encode(item)),
        Write(endpoint_lease_key(item.namespace, item.name), b"", lease),
    )


async def move_workload(store: Store, population: Population, service: int, change: int) -> None:
    """The service's registered workload gets another address."""
    await move_workloads(store, population, [(service, change)])


async def move_workloads(
    store: Store, population: Population, changes: Iterable[tuple[int, int]]
) -> None:
    """Several of them, (service, change), in one transaction."""
    items = [population.workload(service, change) for service, change in changes]
    writes = [Write(endpoint_key(i.namespace, i.name), registration.encode(i)) for i in items]
    await store.commit(Transaction(tuple(writes)))


async def apply_objects(store: Store, objects: Sequence[Mapping[str, Any]]) -> None:
    """Change or make objects, with their history, in one transaction."""
    wanted = [decoded(raw) for raw in objects]
    present = {item.key: await store.get(store_key(item.key)) for item in wanted}
    plan = plan_changes(present, wanted, [], Author(AUTHOR, datetime.now(UTC), "benchmark"))
    if plan.transaction is not None:
        await store.commit(plan.transaction)
