"""TrustService: tokens for the administrator alone, the bundle for everyone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import grpc
import pytest

from services.citadel.api.trust import LONGEST_TTL_S, MOST_USES, TrustService
from services.citadel.authn import tokens
from services.citadel.authority.jwt import JwtPolicy
from services.citadel.authority.jwt_keys import JwtKeys
from services.citadel.authority.root import Root, load_or_create
from tests.unit.citadel.callers import Caller
from windward.api.trust.v1 import trust_pb2
from windward.identity.jwt_svid import load_jwks, verify
from windward.identity.names import ADMIN_ACCOUNT, PILOT_ACCOUNT, ROOT_NAMESPACE
from windward.identity.spiffe_id import SpiffeId, workload_id
from windward.rpc.errors import RefusedError
from windward.store.memory import MemoryStore

ADMINISTRATOR = workload_id("cluster.local", ROOT_NAMESPACE, ADMIN_ACCOUNT)
ALICE = workload_id("cluster.local", "shop", "alice")


POLICY = JwtPolicy(default_ttl_s=300, max_ttl_s=3600, signs_for_s=86_400, announced_for_s=3600)


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


class Trust:
    clock: Clock

    def __init__(self, store: MemoryStore, root: Root, jwt_keys: JwtKeys) -> None:
        self.store = store
        self.jwt_keys = jwt_keys
        self.root = root
        self.stopping = asyncio.Event()
        self._served = TrustService(store, root, jwt_keys, "cluster.local", self.stopping)

    async def token(
        self, caller: Caller, identity: str = str(ALICE), ttl_s: int = 0, uses: int = 0
    ) -> trust_pb2.CreateJoinTokenResponse:
        request = trust_pb2.CreateJoinTokenRequest(identity=identity, max_uses=uses)
        if ttl_s:
            request.ttl.seconds = ttl_s
        context = cast("grpc.aio.ServicerContext[Any, Any]", caller)
        return await self._served.CreateJoinToken(request, context)

    async def refusal(self, caller: Caller, *arguments: Any) -> RefusedError:
        with pytest.raises(RefusedError) as caught:
            await self.token(caller, *arguments)
        assert (await self.store.list(tokens.TOKENS)).entries == ()
        return caught.value

    def bundles(self) -> Any:
        context = cast("grpc.aio.ServicerContext[Any, Any]", Caller())
        return self._served.WatchTrustBundle(trust_pb2.WatchTrustBundleRequest(), context)


@pytest.fixture
async def trust() -> Trust:
    store = MemoryStore()
    clock = Clock()
    jwt_keys = JwtKeys(store, b"k" * 32, POLICY, clock)
    await jwt_keys.refresh()
    root = await load_or_create(store, b"k" * 32, "cluster.local", 86_400, clock)
    trust = Trust(store, root, jwt_keys)
    trust.clock = clock
    return trust


async def test_a_token_becomes_what_it_was_made_for_once(trust: Trust):
    made = await trust.token(Caller(ADMINISTRATOR))
    assert await tokens.redeem(trust.store, made.token) == ALICE
    assert await tokens.redeem(trust.store, made.token) is None


async def test_as_often_as_asked(trust: Trust):
    made = await trust.token(Caller(ADMINISTRATOR), str(ALICE), 60, 3)
    found = [await tokens.redeem(trust.store, made.token) for _ in range(4)]
    assert found == [ALICE] * 3 + [None]


@pytest.mark.parametrize(("asked", "expected"), [(0, 600), (1, 1), (LONGEST_TTL_S, LONGEST_TTL_S)])
async def test_it_says_when_it_ends(trust: Trust, asked: int, expected: int):
    before = datetime.now(UTC)
    made = await trust.token(Caller(ADMINISTRATOR), str(ALICE), asked)
    ends = made.expires_at.ToDatetime(UTC)
    after = datetime.now(UTC)
    assert before.timestamp() + expected - 0.001 <= ends.timestamp() <= after.timestamp() + expected


@pytest.mark.parametrize(
    "identity",
    [
        ALICE,
        workload_id("cluster.local", ROOT_NAMESPACE, PILOT_ACCOUNT),
        workload_id("cluster.local", "shop", ADMIN_ACCOUNT),
        workload_id("other.example", ROOT_NAMESPACE, ADMIN_ACCOUNT),
        SpiffeId.parse(f"{ADMINISTRATOR}/more"),
    ],
)
async def test_others_than_the_administrator_are_denied(trust: Trust, identity: SpiffeId):
    refused = await trust.refusal(Caller(identity))
    assert refused.code is grpc.StatusCode.PERMISSION_DENIED
    assert str(ADMINISTRATOR) in refused.message


async def test_a_caller_without_a_certificate_is_nobody(trust: Trust):
    for caller in (Caller(), Caller(ADMINISTRATOR, ALICE), Caller(b"\xff")):
        assert (await trust.refusal(caller)).code is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    "identity",
    [
        "",
        "alice",
        "spiffe://cluster.local",
        "spiffe://cluster.local/alice",
        "spiffe://cluster.local/ns/shop/sa/alice/more",
        "spiffe://cluster.local/ns/shop/sa/alice,evil",
        "spiffe://cluster.local/ns/shop/sa/",
        "spiffe://other.example/ns/shop/sa/alice",
        "spiffe://cluster.local/ns/shop/sa/alice\0",
    ],
)
async def test_identities_that_no_workload_has(trust: Trust, identity: str):
    refused = await trust.refusal(Caller(ADMINISTRATOR), identity)
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.message.startswith("identity: ")


@pytest.mark.parametrize(
    ("ttl_s", "uses", "named"),
    [
        (-1, 1, "ttl"),
        (LONGEST_TTL_S + 1, 1, "ttl"),
        (2**40, 1, "ttl"),
        (60, MOST_USES + 1, "max_uses"),
        (60, 2**32 - 1, "max_uses"),
    ],
)
async def test_bounds(trust: Trust, ttl_s: int, uses: int, named: str):
    refused = await trust.refusal(Caller(ADMINISTRATOR), str(ALICE), ttl_s, uses)
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.message.startswith(f"{named}: ")


async def test_the_bundle_comes_at_once_and_the_stream_ends_with_the_server(trust: Trust):
    stream = trust.bundles()
    bundle = await anext(stream)
    assert bundle.trust_domain == "cluster.local"
    assert bundle.roots_pem.encode() == trust.root.pem
    assert bundle.sequence > 0
    waiting = asyncio.ensure_future(anext(stream, None))
    await asyncio.sleep(0)
    assert not waiting.done()
    trust.stopping.set()
    assert await waiting is None


async def minted(
    trust: Trust, caller: Caller, audience: tuple[str, ...] = ("bob",), ttl_s: int = 0
) -> trust_pb2.MintJwtSvidResponse:
    request = trust_pb2.MintJwtSvidRequest(audience=audience)
    request.ttl.seconds = ttl_s
    context = cast("grpc.aio.ServicerContext[Any, Any]", caller)
    return await trust._served.MintJwtSvid(request, context)


def jwt_bundles(trust: Trust) -> Any:
    context = cast("grpc.aio.ServicerContext[Any, Any]", Caller())
    return trust._served.WatchJwtBundle(trust_pb2.WatchJwtBundleRequest(), context)


async def test_a_jwt_svid_is_the_callers_own_and_verifies_by_the_bundle(trust: Trust):
    made = await minted(trust, Caller(ALICE), ("bob", "carol"), 60)
    bundle = await anext(jwt_bundles(trust))
    assert bundle.trust_domain == "cluster.local"
    now = datetime.now(UTC)
    found = verify(made.svid, load_jwks(bundle.jwks), "cluster.local", "carol", now)
    assert found.identity == ALICE
    assert found.expires_at == made.expires_at.ToDatetime(UTC)
    assert timedelta(seconds=58) < found.expires_at - now <= timedelta(seconds=60)


@pytest.mark.parametrize(
    "caller",
    [
        Caller(),
        Caller(metadata=(("authorization", "Bearer wwjt_x"),)),
        Caller(SpiffeId.parse("spiffe://other/ns/shop/sa/alice")),
        Caller(b"not an id"),
        Caller(ALICE, ADMINISTRATOR),
    ],
    ids=["nobody", "a token", "another trust domain", "no id", "two ids"],
)
async def test_who_proves_no_identity_of_the_trust_domain_gets_no_jwt_svid(
    trust: Trust, caller: Caller
):
    with pytest.raises(RefusedError) as caught:
        await minted(trust, caller)
    assert caught.value.code == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("audience", "ttl_s", "reason"),
    [
        ((), 0, "audience: at least one"),
        (("a",) * 17, 0, "audience: at most 16"),
        (("a",), 3601, "ttl: must be at most 3600 s"),
        (("a",), -1, "ttl: must be at least 1 s"),
    ],
)
async def test_a_jwt_svid_that_is_not_granted(
    trust: Trust, audience: tuple[str, ...], ttl_s: int, reason: str
):
    with pytest.raises(RefusedError, match=reason) as caught:
        await minted(trust, Caller(ALICE), audience, ttl_s)
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT


async def test_the_jwt_bundle_is_told_again_when_a_key_is_announced(trust: Trust):
    bundles = jwt_bundles(trust)
    first = load_jwks((await anext(bundles)).jwks)
    trust.clock.now += timedelta(hours=23)
    await trust.jwt_keys.refresh()
    second = load_jwks((await anext(bundles)).jwks)
    assert len(second) == 2
    assert set(first) < set(second)
    trust.stopping.set()
    with pytest.raises(StopAsyncIteration):
        await anext(bundles)
