"""The store protocol on etcd: reads, transactions and leases (watches: watch.py)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence

from windward.api.store.v1 import etcd_pb2 as wire
from windward.store.errors import Conflict, LeaseLost, Uncertain
from windward.store.etcd.connection import Connection, Interrupted, Tls
from windward.store.etcd.renewals import Renewals
from windward.store.etcd.watch import watch_prefix
from windward.store.memory import check_size
from windward.store.protocol import (
    Batch,
    Condition,
    Entry,
    Lease,
    Listing,
    Transaction,
    Unchanged,
    Write,
)

PAGE = 1000
ATTEMPTS = 6


class EtcdStore:
    """See windward.store.protocol.Store. Connects when first used; survives what etcd and the network do."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        tls: Tls | None = None,
        user: str = "",
        password: str = "",
    ) -> None:
        self._connection = Connection(endpoints, tls=tls, user=user, password=password)
        self._renewals = Renewals(self._connection)

    async def get(self, key: str, *, revision: int | None = None) -> Entry | None:
        request = wire.RangeRequest(key=key.encode(), revision=revision or 0)
        answer = await self._connection.idempotent(
            "/etcdserverpb.KV/Range", request, wire.RangeResponse
        )
        return entry_of(answer.kvs[0]) if answer.kvs else None

    async def list(
        self, prefix: str, *, revision: int | None = None, keys_only: bool = False
    ) -> Listing:
        """In pages, all at the first page's revision."""
        start, end = prefix.encode(), range_end(prefix.encode())
        pinned, entries = revision or 0, []
        while True:
            request = wire.RangeRequest(
                key=start, range_end=end, limit=PAGE, revision=pinned, keys_only=keys_only
            )
            answer = await self._connection.idempotent(
                "/etcdserverpb.KV/Range", request, wire.RangeResponse
            )
            pinned = pinned or answer.header.revision
            entries += [entry_of(kv) for kv in answer.kvs]
            if not answer.more:
                return Listing(tuple(entries), pinned)
            start = answer.kvs[-1].key + b"\0"

    async def commit(self, transaction: Transaction) -> int:
        check_size(transaction)
        request = wire.TxnRequest(
            compare=[compare_of(condition) for condition in transaction.conditions],
            success=[operation_of(operation) for operation in transaction.operations],
        )
        pause_s = 0.05
        for attempt in range(ATTEMPTS):
            try:
                answer = await self._connection.once(
                    "/etcdserverpb.KV/Txn", request, wire.TxnResponse
                )
            except Interrupted as error:
                if not _guards_itself(transaction):
                    raise Uncertain(
                        "the connection to etcd broke while a write was under way that cannot be repeated safely"
                    ) from error
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311  jitter, not a secret
                pause_s = min(pause_s * 2, 1.0)
                continue
            if answer.succeeded:
                return int(answer.header.revision)
            return await self._explain_failure(transaction, retried=attempt > 0)
        raise Uncertain("etcd does not answer; whether the write was applied is not known")

    async def _explain_failure(self, transaction: Transaction, *, retried: bool) -> int:
        """A condition failed. After a broken attempt, our own success may be why: then what we wrote is there."""
        if retried:
            applied = await self._applied_at(transaction)
            if applied:
                return applied
        names = ", ".join(condition.key for condition in transaction.conditions[:3])
        raise Conflict(f"changed by somebody else: {names}")

    async def _applied_at(self, transaction: Transaction) -> int:
        """The revision at which every operation of the transaction stands, all the same one; 0 when it does not."""
        revisions = set()
        for operation in transaction.operations:
            entry = await self.get(operation.key)
            if isinstance(operation, Write):
                if (
                    entry is None
                    or entry.value != operation.value
                    or entry.lease != operation.lease
                ):
                    return 0
                revisions.add(entry.mod_revision)
            elif entry is not None:
                return 0
        if not revisions:
            listing = await self.list(transaction.operations[0].key)
            return listing.revision
        return revisions.pop() if len(revisions) == 1 else 0

    def watch(self, prefix: str, *, from_revision: int) -> AsyncGenerator[Batch, None]:
        return watch_prefix(self._connection, prefix, from_revision, entry_of)

    async def grant(self, ttl_s: float) -> Lease:
        """Etcd counts whole seconds: a TTL is rounded up."""
        ttl = max(1, -int(-ttl_s // 1))
        request = wire.LeaseGrantRequest(TTL=ttl)
        answer = await self._connection.idempotent(
            "/etcdserverpb.Lease/LeaseGrant", request, wire.LeaseGrantResponse
        )
        return Lease(answer.ID, float(answer.TTL))

    async def keep_alive(self, lease: int) -> float:
        """Renewed together with whatever else is to be renewed at this moment."""
        for _ in range(ATTEMPTS):
            endpoint = self._connection.endpoint
            try:
                ttl_s = await self._renewals.renew(lease)
            except Interrupted:
                self._connection.rotate(endpoint)
                await asyncio.sleep(0.1)
                continue
            if ttl_s <= 0:
                raise LeaseLost(f"lease {lease:x} has expired")
            return float(ttl_s)
        raise Uncertain("etcd does not answer; whether the lease lives is not known")

    async def revoke(self, lease: int) -> None:
        try:
            await self._connection.idempotent(
                "/etcdserverpb.Lease/LeaseRevoke",
                wire.LeaseRevokeRequest(ID=lease),
                wire.LeaseRevokeResponse,
            )
        except LeaseLost:
            return

    async def compact(self, revision: int) -> None:
        """Forget history before a revision. For operators and tests; Windward itself never compacts."""
        request = wire.CompactionRequest(revision=revision, physical=True)
        await self._connection.idempotent(
            "/etcdserverpb.KV/Compact", request, wire.CompactionResponse
        )

    async def close(self) -> None:
        await self._renewals.close()
        await self._connection.close()


def _guards_itself(transaction: Transaction) -> bool:
    """Whether the transaction, once applied, fails its own condition: only then may it be sent again."""
    written = {operation.key for operation in transaction.operations}
    return any(isinstance(c, Unchanged) and c.key in written for c in transaction.conditions)


def range_end(prefix: bytes) -> bytes:
    """The first key after every key with this prefix: its last byte below 0xff, raised by one."""
    for position in range(len(prefix) - 1, -1, -1):
        if prefix[position] < 0xFF:
            return prefix[:position] + bytes([prefix[position] + 1])
    return b"\0"


def entry_of(kv: wire.KeyValue) -> Entry:
    return Entry(
        kv.key.decode(), kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease
    )


def compare_of(condition: Condition) -> wire.Compare:
    key = condition.key.encode()
    if isinstance(condition, Unchanged):
        return wire.Compare(
            key=key,
            target=wire.Compare.MOD,
            result=wire.Compare.EQUAL,
            mod_revision=condition.mod_revision,
        )
    return wire.Compare(
        key=key, target=wire.Compare.VERSION, result=wire.Compare.GREATER, version=0
    )


def operation_of(operation: object) -> wire.RequestOp:
    if isinstance(operation, Write):
        put = wire.PutRequest(
            key=operation.key.encode(), value=operation.value, lease=operation.lease
        )
        return wire.RequestOp(request_put=put)
    key = operation.key.encode()  # type: ignore[attr-defined]
    return wire.RequestOp(request_delete_range=wire.DeleteRangeRequest(key=key))
