"""Who a caller is: by certificate, by token, or not at all, and then with no reason given."""

from __future__ import annotations

from typing import Any, cast

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.citadel.authn import tokens
from services.citadel.authn.caller import OPAQUE, authenticate
from tests.unit.citadel.callers import Caller, bearer
from windward.identity.spiffe_id import SpiffeId, workload_id
from windward.rpc.errors import RefusedError
from windward.store.memory import MemoryStore

ALICE = workload_id("cluster.local", "shop", "alice")
BOB = workload_id("cluster.local", "shop", "bob")
FOREIGN = workload_id("other.example", "shop", "alice")


async def who(caller: Caller, store: MemoryStore | None = None) -> SpiffeId:
    context = cast("grpc.aio.ServicerContext[Any, Any]", caller)
    return await authenticate(context, store or MemoryStore(), "cluster.local")


async def test_by_certificate():
    assert await who(Caller(ALICE)) == ALICE


async def test_by_token():
    store = MemoryStore()
    token = await tokens.create(store, ALICE, 60, 3)
    for scheme in ("Bearer", "bearer", "BEARER"):
        metadata = (("authorization", f"{scheme} {token.secret}"),)
        assert await who(Caller(metadata=metadata), store) == ALICE


async def test_a_certificate_goes_before_a_token_and_spends_none():
    store = MemoryStore()
    token = await tokens.create(store, BOB, 60, 1)
    assert await who(Caller(ALICE, metadata=bearer(token.secret)), store) == ALICE
    assert await tokens.usable(store, token.secret)


async def test_a_certificate_of_another_trust_domain_is_not_mended_by_a_token():
    store = MemoryStore()
    token = await tokens.create(store, ALICE, 60, 1)
    with pytest.raises(RefusedError):
        await who(Caller(FOREIGN, metadata=bearer(token.secret)), store)
    assert await tokens.usable(store, token.secret)


NOBODIES = {
    "nothing": Caller(),
    "no metadata": Caller(metadata=None),
    "foreign": Caller(FOREIGN),
    "two names": Caller(ALICE, BOB),
    "no spiffe id": Caller(b"https://cluster.local/ns/shop/sa/alice"),
    "not text": Caller(b"\xff\xfe"),
    "empty name": Caller(b""),
    "two tokens": Caller(metadata=(*bearer("a"), *bearer("b"))),
    "no scheme": Caller(metadata=(("authorization", "wwjt_x"),)),
    "another scheme": Caller(metadata=(("authorization", "Basic wwjt_x"),)),
    "empty token": Caller(metadata=(("authorization", "Bearer "),)),
    "bytes": Caller(metadata=(("authorization", b"Bearer x"),)),
    "unknown token": Caller(metadata=bearer("wwjt_" + "x" * 43)),
    "no token at all": Caller(metadata=bearer("eyJhbGciOiJub25lIn0.e30.")),
    "long": Caller(metadata=bearer("wwjt_" + "x" * 10_000)),
}


@pytest.mark.parametrize("nobody", NOBODIES.values(), ids=NOBODIES)
async def test_every_failure_looks_the_same(nobody: Caller):
    with pytest.raises(RefusedError) as caught:
        await who(nobody)
    assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED
    assert caught.value.message.startswith(OPAQUE)
    said = caught.value.message.removeprefix(OPAQUE)
    for reason in ("token", "certificate", "trust", "expired", "unknown", "wwjt"):
        assert reason not in said


values = st.one_of(st.text(max_size=300), st.binary(max_size=300))
keys = st.one_of(st.just("authorization"), st.just("clusterid"), st.text(max_size=30))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(keys, values), max_size=4), st.lists(st.binary(max_size=80), max_size=3))
async def test_no_metadata_and_no_certificate_names_do_more_than_be_refused(metadata, names):
    with pytest.raises(RefusedError):
        await who(Caller(*names, metadata=metadata))


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=100))
async def test_no_bearer_text_does_more_than_be_refused(text: str):
    with pytest.raises(RefusedError):
        await who(Caller(metadata=bearer(tokens.PREFIX + text)))
