"""Registered workloads as they lie in the store: a record without a lease, and beside it a key on the agent's lease.

    store -> follow -> WorkloadBatch(records put and removed, leases held and lapsed)

Both are below one prefix, so that one watch brings what one transaction wrote together.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec

from services.pilot.registry.liveness import WorkloadBatch, WorkloadKey
from windward import registration
from windward.registration import RegisteredWorkload
from windward.store.errors import Conflict, StoreError
from windward.store.follow import follow
from windward.store.keys import (
    ENDPOINT_LEASES,
    ENDPOINTS,
    REGISTRATIONS,
    endpoint_key,
    endpoint_lease_key,
)
from windward.store.protocol import Batch, Put, Remove, Store, Transaction, Unchanged
from windward.telemetry.logging import get_logger

log = get_logger()
FORGET_AT_ONCE = 100


async def follow_workloads(store: Store) -> AsyncGenerator[WorkloadBatch, None]:
    """The first batch holds every registration, also when there is none; later ones only differences."""
    async for batch in follow(store, REGISTRATIONS):
        yield read_batch(batch)


def read_batch(batch: Batch) -> WorkloadBatch:
    """Of several changes of one key the last counts. A record that cannot be read is reported and left out."""
    records: dict[WorkloadKey, RegisteredWorkload | None] = {}
    leases: dict[WorkloadKey, bool] = {}
    for change in batch.changes:
        path = change.entry.key if isinstance(change, Put) else change.key
        if path.startswith(ENDPOINT_LEASES):
            leases[_workload(path, ENDPOINT_LEASES)] = isinstance(change, Put)
        elif not path.startswith(ENDPOINTS):
            continue  # a mark
        elif not isinstance(change, Put):
            records[_workload(path, ENDPOINTS)] = None
        else:
            try:
                records[_workload(path, ENDPOINTS)] = registration.decode(change.entry.value)
            except msgspec.MsgspecError as error:
                log.warning("workload.unreadable", key=path, reason=str(error))
    return WorkloadBatch(
        put={key: found for key, found in records.items() if found is not None},
        removed=frozenset(key for key, found in records.items() if found is None),
        leased=frozenset(key for key, held in leases.items() if held),
        lapsed=frozenset(key for key, held in leases.items() if not held),
        revision=batch.revision,
    )


def _workload(path: str, prefix: str) -> WorkloadKey:
    namespace, _, name = path.removeprefix(prefix).partition("/")
    return (namespace, name)


async def forget(store: Store, forgotten: set[WorkloadKey]) -> None:
    """Remove the records of workloads that stayed away, unless they came back meanwhile.

    Any Pilot may do so, and several at once: the conditions let one of them through. What fails is tried next time.
    """
    for key in sorted(forgotten)[:FORGET_AT_ONCE]:
        record, lease = endpoint_key(*key), endpoint_lease_key(*key)
        try:
            entry = await store.get(record)
            if entry is not None:
                conditions = (Unchanged(record, entry.mod_revision), Unchanged(lease, 0))
                await store.commit(Transaction((Remove(record),), conditions))
        except Conflict:
            log.info("workload.came_back", workload="/".join(key))
        except StoreError as error:
            log.warning("workload.not_forgotten", workload="/".join(key), reason=str(error))
            return
        forgotten.discard(key)
