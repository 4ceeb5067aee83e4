"""Calls to etcd whose answers are lost, refused or late: what is retried, and what the caller is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.store.etcd.scripted import header, serving
from windward.api.store.v1 import etcd_pb2 as wire
from windward.store.errors import Compacted, Conflict, Denied, LeaseLost, TooLarge, Uncertain
from windward.store.etcd.store import EtcdStore, compare_of, operation_of, range_end
from windward.store.protocol import Exists, Remove, Transaction, Unchanged, Write

RANGE, TXN = "/etcdserverpb.KV/Range", "/etcdserverpb.KV/Txn"
GUARDED = Transaction((Write("/k", b"mine"),), (Unchanged("/k", 0),))


class OneKey:
    """Holds /k. ``lose``: how many transactions are answered by a broken connection, after or before they apply."""

    def __init__(self, *, lose: int = 0, applies: bool = True, other: bytes | None = None) -> None:
        self.lose, self.applies, self.other = lose, applies, other
        self.value: bytes | None = None
        self.revision = 1
        self.writes = 0

    def _write(self, value: bytes) -> None:
        self.value, self.revision = value, self.revision + 1
        self.writes += 1

    async def txn(self, request: wire.TxnRequest, context: Any) -> wire.TxnResponse:
        losing, self.lose = self.lose > 0, self.lose - 1
        holds = not request.compare or self.value is None
        if holds and (self.applies or not losing):
            self._write(request.success[0].request_put.value)
        if losing:
            if self.other is not None:
                self._write(self.other)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        return wire.TxnResponse(header=header(self.revision), succeeded=holds)

    async def range(self, _: wire.RangeRequest, __: Any) -> wire.RangeResponse:
        if self.value is None:
            return wire.RangeResponse(header=header(self.revision))
        kv = wire.KeyValue(key=b"/k", value=self.value, mod_revision=self.revision, version=1)
        return wire.RangeResponse(header=header(self.revision), kvs=[kv], count=1)


async def commit(server: OneKey, transaction: Transaction) -> int:
    async with serving({TXN: server.txn, RANGE: server.range}) as address, asyncio.timeout(20):
        store = EtcdStore([address])
        try:
            return await store.commit(transaction)
        finally:
            await store.close()


async def test_a_guarded_write_whose_answer_was_lost_is_known_to_be_ours():
    server = OneKey(lose=1)
    assert await commit(server, GUARDED) == 2
    assert server.writes == 1


async def test_a_guarded_write_that_never_arrived_is_written_once():
    server = OneKey(lose=2, applies=False)
    assert await commit(server, GUARDED) == 2
    assert server.writes == 1


async def test_a_guarded_write_that_somebody_else_was_faster_with_is_a_conflict():
    server = OneKey(lose=1, applies=False, other=b"theirs")
    with pytest.raises(Conflict, match="/k"):
        await commit(server, GUARDED)
    assert server.value == b"theirs"


async def test_an_unconditional_write_whose_answer_was_lost_is_not_repeated():
    server = OneKey(lose=1)
    with pytest.raises(Uncertain):
        await commit(server, Transaction((Write("/k", b"mine"),)))
    assert server.writes == 1


async def test_a_read_turns_to_the_next_endpoint():
    async def broken(_: Any, context: Any) -> None:
        asked.append("broken")
        await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    asked: list[str] = []
    healthy = OneKey()
    async with (
        serving({RANGE: broken}) as first,
        serving({RANGE: healthy.range}) as second,
        asyncio.timeout(20),
    ):
        store = EtcdStore([first, second])
        assert await store.get("/k") is None
        assert await store.get("/k") is None
        await store.close()
    assert asked == ["broken"]


async def test_a_list_comes_in_pages_all_at_the_first_ones_revision():
    async def pages(request: wire.RangeRequest, _: Any) -> wire.RangeResponse:
        asked.append((request.key, request.range_end, request.revision))
        first = request.revision == 0
        keys = [b"/p/a", b"/p/b"] if first else [b"/p/c"]
        kvs = [wire.KeyValue(key=key, mod_revision=2, version=1) for key in keys]
        return wire.RangeResponse(header=header(40 if first else 99), kvs=kvs, more=first)

    asked: list[tuple[bytes, bytes, int]] = []
    async with serving({RANGE: pages}) as address, asyncio.timeout(20):
        store = EtcdStore([address])
        listing = await store.list("/p/")
        await store.close()
    assert [entry.key for entry in listing.entries] == ["/p/a", "/p/b", "/p/c"]
    assert listing.revision == 40
    assert asked == [(b"/p/", b"/p0", 0), (b"/p/b\0", b"/p0", 40)]


@pytest.mark.parametrize(
    ("code", "details", "error"),
    [
        ("OUT_OF_RANGE", "etcdserver: mvcc: required revision has been compacted", Compacted),
        ("NOT_FOUND", "etcdserver: requested lease not found", LeaseLost),
        ("INVALID_ARGUMENT", "etcdserver: request is too large", TooLarge),
        ("INVALID_ARGUMENT", "etcdserver: too many operations in txn request", TooLarge),
        ("PERMISSION_DENIED", "etcdserver: permission denied", Denied),
        ("UNAUTHENTICATED", "etcdserver: invalid auth token", Denied),
        ("INVALID_ARGUMENT", "etcdserver: user name is empty", Denied),
    ],
)
async def test_a_status_becomes_what_the_caller_can_act_on(
    code: str, details: str, error: type[Exception]
):
    async def refuse(_: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode[code], details)

    async with serving({RANGE: refuse}) as address, asyncio.timeout(20):
        store = EtcdStore([address])
        with pytest.raises(error):
            await store.get("/k")
        await store.close()


async def test_a_stale_token_is_replaced_and_a_read_repeated():
    async def authenticate(request: wire.AuthenticateRequest, _: Any) -> wire.AuthenticateResponse:
        logins.append((request.name, request.password))
        return wire.AuthenticateResponse(token=f"token-{len(logins)}")

    async def read(request: wire.RangeRequest, context: Any) -> wire.RangeResponse:
        if dict(context.invocation_metadata())["token"] == "token-1":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token")
        return wire.RangeResponse(header=header(3))

    logins: list[tuple[str, str]] = []
    unary: dict[str, Any] = {"/etcdserverpb.Auth/Authenticate": authenticate, RANGE: read}
    async with serving(unary) as address, asyncio.timeout(20):
        store = EtcdStore([address], user="pilot", password="secret")
        assert await store.get("/k") is None
        assert await store.get("/k") is None
        await store.close()
    assert logins == [("pilot", "secret")] * 2


@pytest.mark.parametrize(("asked", "sent"), [(0.2, 1), (1, 1), (1.5, 2), (30, 30)])
async def test_a_ttl_is_rounded_up_to_whole_seconds(asked: float, sent: int):
    async def grant(request: wire.LeaseGrantRequest, _: Any) -> wire.LeaseGrantResponse:
        return wire.LeaseGrantResponse(header=header(3), ID=77, TTL=request.TTL)

    async with serving({"/etcdserverpb.Lease/LeaseGrant": grant}) as address:
        store = EtcdStore([address])
        lease = await store.grant(asked)
        await store.close()
    assert (lease.id, lease.ttl_s) == (77, sent)


async def test_a_renewal_survives_a_broken_stream_and_tells_a_lost_lease():
    async def renew(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        request = await anext(requests)
        asked.append(request.ID)
        if len(asked) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        ttl = 30 if request.ID == 7 else 0
        yield wire.LeaseKeepAliveResponse(header=header(3), ID=request.ID, TTL=ttl)

    asked: list[int] = []
    streams = {"/etcdserverpb.Lease/LeaseKeepAlive": renew}
    async with serving(streams=streams) as address, asyncio.timeout(20):
        store = EtcdStore([address])
        assert await store.keep_alive(7) == 30
        with pytest.raises(LeaseLost, match="8"):
            await store.keep_alive(8)
        await store.close()
    assert asked == [7, 7, 8]


@given(st.binary(max_size=4), st.binary(max_size=6))
def test_a_range_ends_behind_every_key_with_the_prefix(prefix: bytes, key: bytes):
    end = range_end(prefix)
    inside = key >= prefix and (end == b"\0" or key < end)
    assert inside == key.startswith(prefix)


def test_conditions_and_operations_on_the_wire():
    unchanged = compare_of(Unchanged("/k", 9))
    assert (unchanged.target, unchanged.result) == (wire.Compare.MOD, wire.Compare.EQUAL)
    assert (unchanged.key, unchanged.mod_revision) == (b"/k", 9)
    exists = compare_of(Exists("/k"))
    assert (exists.target, exists.result) == (wire.Compare.VERSION, wire.Compare.GREATER)
    assert exists.version == 0
    put = operation_of(Write("/k", b"v", 5)).request_put
    assert (put.key, put.value, put.lease) == (b"/k", b"v", 5)
    removal = operation_of(Remove("/k")).request_delete_range
    assert (removal.key, removal.range_end) == (b"/k", b"")
