"""The Workload API's own rules: header, statuses, what is told when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import grpc
import pytest

from services.agent.workload_api import service
from services.agent.workload_api.jwt import JwtKeySet, JwtSvids, Token
from services.agent.workload_api.service import Held, NobodysApi, WorkloadApi
from services.citadel.authority.root import Root, load_or_create
from services.citadel.authority.signing import Policy, issue
from windward.api.spiffe.workload import workload_pb2 as api
from windward.client.certificates import Condition
from windward.identity.csr import new_csr
from windward.identity.jwt_svid import jwks_of, mint
from windward.identity.keys import key_pem, new_key
from windward.identity.spiffe_id import workload_id
from windward.rpc import server as servers
from windward.rpc.credentials import TlsMaterial, TlsSource
from windward.rpc.errors import ErrorInterceptor
from windward.store.memory import MemoryStore

ALICE = workload_id("cluster.local", "shop", "alice")
HEADER = (("workload.spiffe.io", "true"),)
WAIT_S = 20.0
KEY = new_key()
METHODS = {
    "FetchX509SVID": api.X509SVIDRequest(),
    "FetchX509Bundles": api.X509BundlesRequest(),
    "FetchJWTSVID": api.JWTSVIDRequest(audience=["bob"]),
    "FetchJWTBundles": api.JWTBundlesRequest(),
    "ValidateJWTSVID": api.ValidateJWTSVIDRequest(audience="bob", svid="x"),
}
ANSWERS: dict[str, Any] = {
    "FetchX509SVID": api.X509SVIDResponse,
    "FetchX509Bundles": api.X509BundlesResponse,
    "FetchJWTSVID": api.JWTSVIDResponse,
    "FetchJWTBundles": api.JWTBundlesResponse,
    "ValidateJWTSVID": api.ValidateJWTSVIDResponse,
}


async def new_material(root: Root | None = None) -> TlsMaterial:
    now = datetime.now(UTC)
    root = root or await load_or_create(
        MemoryStore(), b"k" * 32, "cluster.local", 10**6, lambda: now
    )
    key = new_key()
    issued = issue(root, Policy(3600, 3600, strict=True), ALICE, new_csr(key, ALICE), 0, now)
    return TlsMaterial(issued.chain[0].encode(), key_pem(key), root.pem)


async def minted(audiences: Any) -> Token:
    now = datetime.now(UTC)
    ends = now + timedelta(minutes=5)
    return Token(mint(KEY, ALICE, audiences, now, ends), ends)


async def away(_: Any) -> Token:
    nothing: Any = grpc.aio.Metadata()
    raise grpc.aio.AioRpcError(grpc.StatusCode.UNAUTHENTICATED, nothing, nothing, "no")


@dataclass(frozen=True, slots=True)
class Calling:
    channel: grpc.aio.Channel

    def stream(self, method: str, request: Any, metadata: Any = HEADER) -> Any:
        made: Any = self.channel.unary_stream(
            f"/SpiffeWorkloadAPI/{method}",
            type(request).SerializeToString,
            ANSWERS[method].FromString,
        )
        return made(request, metadata=metadata, timeout=WAIT_S)

    async def first(self, method: str, request: Any = None, metadata: Any = HEADER) -> Any:
        """A unary answer is the only one of a stream."""
        call = self.stream(method, METHODS[method] if request is None else request, metadata)
        found = await anext(aiter(call))
        call.cancel()
        return found

    async def refused(self, method: str, request: Any = None, metadata: Any = HEADER) -> str:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.first(method, request, metadata)
        return f"{caught.value.code().name}: {caught.value.details()}"


@asynccontextmanager
async def served(handlers: grpc.GenericRpcHandler) -> AsyncIterator[Calling]:
    server = servers.new_server(interceptors=[ErrorInterceptor()])
    server.add_generic_rpc_handlers((handlers,))
    port = servers.listen_plaintext(server, "127.0.0.1:0", setting="test")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Calling(channel)
    await server.stop(0)


@pytest.fixture
async def held() -> Held:
    keys = JwtKeySet()
    keys.put(jwks_of([KEY.public_key()]))
    source = TlsSource(await new_material())
    return Held(ALICE, source, lambda: Condition.GOOD, str, JwtSvids(minted), keys, "internal")


@pytest.fixture
async def calling(held: Held) -> AsyncIterator[Calling]:
    async with served(WorkloadApi(held).handlers()) as made:
        yield made


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "metadata",
    [(), (("workload.spiffe.io", "True"),), (("workload.spiffe.io", "true"),) * 2],
    ids=["none", "another", "twice"],
)
async def test_without_the_header_nothing_is_answered(calling: Calling, method: str, metadata: Any):
    assert await calling.refused(method, metadata=metadata) == (
        "INVALID_ARGUMENT: security header missing: metadata workload.spiffe.io: true"
    )


@pytest.mark.parametrize("method", METHODS)
async def test_nobody_is_refused_everything(method: str):
    async with served(NobodysApi()) as calling:
        assert (await calling.refused(method)).startswith("PERMISSION_DENIED: no identity")
        assert (await calling.refused(method, metadata=())).startswith("INVALID_ARGUMENT")


async def test_a_certificate_is_one_of_its_owner_and_der(calling: Calling, held: Held):
    answer = await calling.first("FetchX509SVID")
    (svid,) = answer.svids
    assert svid.spiffe_id == str(ALICE)
    assert svid.hint == "internal"
    material = held.source.current
    assert svid.x509_svid == service.der(material.chain_pem)
    assert svid.x509_svid_key == service.key_der(material.key_pem)
    assert svid.bundle == service.der(material.roots_pem)
    assert dict(answer.federated_bundles) == {}
    assert list(answer.crl) == []


async def test_a_new_certificate_is_pushed_and_the_same_roots_are_not(calling: Calling, held: Held):
    svids = aiter(calling.stream("FetchX509SVID", METHODS["FetchX509SVID"]))
    bundles = aiter(calling.stream("FetchX509Bundles", METHODS["FetchX509Bundles"]))
    await anext(svids)
    first = (await anext(bundles)).bundles["spiffe://cluster.local"]
    renewed = replace(await new_material(), roots_pem=held.source.current.roots_pem)
    held.source.replace(renewed)
    pushed = (await anext(svids)).svids[0]
    assert pushed.x509_svid == service.der(renewed.chain_pem)
    other = await new_material()
    held.source.replace(other)
    second = (await anext(bundles)).bundles["spiffe://cluster.local"]
    assert second == service.der(other.roots_pem) != first


@pytest.mark.parametrize("method", ["FetchX509SVID", "FetchX509Bundles", "FetchJWTSVID"])
async def test_an_expired_certificate_is_given_to_nobody(held: Held, method: str):
    expired = replace(held, condition=lambda: Condition.EXPIRED, problem=lambda: "it has expired")
    async with served(WorkloadApi(expired).handlers()) as calling:
        assert await calling.refused(method) == "UNAVAILABLE: it has expired"


async def test_a_token_is_the_callers_own(calling: Calling):
    request = api.JWTSVIDRequest(audience=["bob"], spiffe_id=str(ALICE))
    (svid,) = (await calling.first("FetchJWTSVID", request)).svids
    assert (svid.spiffe_id, svid.hint) == (str(ALICE), "internal")
    check = api.ValidateJWTSVIDRequest(audience="bob", svid=svid.svid)
    found = await calling.first("ValidateJWTSVID", check)
    assert found.spiffe_id == str(ALICE)
    assert list(found.claims["aud"]) == ["bob"]
    assert found.claims["exp"] - found.claims["iat"] == 300


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (api.JWTSVIDRequest(), "INVALID_ARGUMENT: audience: at least one"),
        (api.JWTSVIDRequest(audience=["a"] * 17), "INVALID_ARGUMENT: audience: at most 16"),
        (api.JWTSVIDRequest(audience=[""]), "INVALID_ARGUMENT: audience: each must be"),
        (api.JWTSVIDRequest(audience=["a"], spiffe_id="spiffe://cluster.local/ns/shop/sa/bob"), "PERMISSION_DENIED: spiffe_id"),
        (api.JWTSVIDRequest(audience=["a"], spiffe_id="alice"), "PERMISSION_DENIED: spiffe_id"),
    ],
)  # fmt: skip
async def test_tokens_that_are_not_given(calling: Calling, request_: Any, said: str):
    assert (await calling.refused("FetchJWTSVID", request_)).startswith(said)


async def test_citadel_away_is_told_and_not_why(held: Held):
    alone = replace(held, tokens=JwtSvids(away))
    async with served(WorkloadApi(alone).handlers()) as calling:
        said = await calling.refused("FetchJWTSVID")
    assert said == "UNAVAILABLE: Citadel gives no JWT-SVID now: UNAUTHENTICATED"


@pytest.mark.parametrize(
    ("audience", "svid", "said"),
    [
        ("", "x", "both are needed"),
        ("bob", "", "both are needed"),
        ("bob", "x.y", "header.payload.signature"),
        ("bob", "x" * 40_000, "at most 16384 bytes"),
    ],
)
async def test_tokens_that_do_not_hold(calling: Calling, audience: str, svid: str, said: str):
    request = api.ValidateJWTSVIDRequest(audience=audience, svid=svid)
    answer = await calling.refused("ValidateJWTSVID", request)
    assert answer.startswith("INVALID_ARGUMENT")
    assert said in answer


async def test_key_sets_are_pushed(calling: Calling, held: Held):
    bundles = aiter(calling.stream("FetchJWTBundles", METHODS["FetchJWTBundles"]))
    assert (await anext(bundles)).bundles["spiffe://cluster.local"] == held.keys.jwks
    both = jwks_of([KEY.public_key(), new_key().public_key()])
    held.keys.put(both)
    assert (await anext(bundles)).bundles["spiffe://cluster.local"] == both


async def test_before_the_first_key_set_nothing_is_validated(
    held: Held, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(service, "KEYS_WAIT_S", 0.01)
    early = replace(held, keys=JwtKeySet())
    async with served(WorkloadApi(early).handlers()) as calling:
        assert (await calling.refused("ValidateJWTSVID")).startswith("UNAVAILABLE")


async def test_the_very_first_key_set_is_waited_for(held: Held):
    early = replace(held, keys=JwtKeySet())
    token = (await minted(["bob"])).svid
    request = api.ValidateJWTSVIDRequest(audience="bob", svid=token)
    served_api = WorkloadApi(early)
    context = cast("Any", Context())
    checking = asyncio.create_task(served_api.validate_jwt_svid(request, context))
    await asyncio.sleep(0)
    early.keys.put(held.keys.jwks)
    assert (await checking).spiffe_id == str(ALICE)


class Context:
    def invocation_metadata(self) -> Any:
        return HEADER
