"""Who is behind an address: the registered workloads, followed in the store."""

from __future__ import annotations

import msgspec

from windward import registration
from windward.registration import RegisteredWorkload
from windward.store.follow import follow
from windward.store.keys import ENDPOINTS
from windward.store.protocol import Put, Store
from windward.telemetry.logging import get_logger

log = get_logger()


class Workloads:
    """Joins addresses and names with registration records. A record that vanishes is still known: its last requests
    may be reported after it.
    """

    def __init__(self) -> None:
        self._by_address: dict[str, RegisteredWorkload] = {}
        self._by_name: dict[tuple[str, str], RegisteredWorkload] = {}
        self.version = 0
        """Another one whenever an answer may be another one."""

    def at(self, address: str) -> RegisteredWorkload | None:
        return self._by_address.get(address)

    def named(self, namespace: str, name: str) -> RegisteredWorkload | None:
        return self._by_name.get((namespace, name))

    def put(self, workload: RegisteredWorkload) -> None:
        self.version += 1
        self._by_address[workload.address] = workload
        self._by_name[workload.namespace, workload.name] = workload

    async def run(self, store: Store) -> None:
        async for batch in follow(store, ENDPOINTS):
            for change in batch.changes:
                if isinstance(change, Put):
                    try:
                        self.put(registration.decode(change.entry.value))
                    except msgspec.MsgspecError as error:
                        log.warning("workload.unreadable", key=change.entry.key, reason=str(error))
