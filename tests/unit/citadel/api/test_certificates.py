"""CreateCertificate: statuses and texts as Istio's agents know them, and what is counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import grpc
import pytest
from prometheus_client import generate_latest

from services.citadel import metrics
from services.citadel.api.certificates import CertificateService
from services.citadel.authn import tokens
from services.citadel.authority.root import load_or_create
from services.citadel.authority.signing import Policy
from tests.unit.citadel.callers import Caller, bearer
from windward.api.istio.v1.auth import ca_pb2
from windward.identity.certificate import check_svid, identity_of, load_chain
from windward.identity.csr import new_csr
from windward.identity.keys import key_pem, new_key
from windward.identity.spiffe_id import workload_id
from windward.rpc.errors import RefusedError
from windward.store.memory import MemoryStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALICE = workload_id("cluster.local", "shop", "alice")
BOB = workload_id("cluster.local", "shop", "bob")


class Service:
    """The service with a clock of its own, called as the transport would."""

    def __init__(self, store: MemoryStore, root: Any, *, strict: bool) -> None:
        self.store = store
        self.now = NOW
        policy = Policy(3600, 86_400, strict)
        self._served = CertificateService(store, root, policy, "cluster.local", lambda: self.now)

    async def create(self, caller: Caller, csr: str | bytes, ttl_s: int = 0) -> list[str]:
        text = csr.decode() if isinstance(csr, bytes) else csr
        request = ca_pb2.IstioCertificateRequest(csr=text, validity_duration=ttl_s)
        context = cast("grpc.aio.ServicerContext[Any, Any]", caller)
        return [*(await self._served.CreateCertificate(request, context)).cert_chain]

    async def refusal(self, caller: Caller, csr: str | bytes, ttl_s: int = 0) -> RefusedError:
        with pytest.raises(RefusedError) as caught:
            await self.create(caller, csr, ttl_s)
        return caught.value


@pytest.fixture
async def service() -> Service:
    store = MemoryStore()
    root = await load_or_create(store, b"k" * 32, "cluster.local", 864_000, lambda: NOW)
    return Service(store, root, strict=False)


@pytest.fixture
async def strict() -> Service:
    store = MemoryStore()
    root = await load_or_create(store, b"k" * 32, "cluster.local", 864_000, lambda: NOW)
    return Service(store, root, strict=True)


def counted() -> dict[str, float]:
    """Samples of Citadel's registry by name and labels."""
    lines = generate_latest(metrics.REGISTRY).decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("citadel_"))
    return {name: float(value) for name, value in pairs}


def risen(before: dict[str, float]) -> set[str]:
    now = counted()
    names = {name for name in now if now[name] > before.get(name, 0)}
    return {name for name in names if "_created" not in name}


async def test_a_token_gets_its_identity_certified_whatever_the_request_names(service: Service):
    key = new_key()
    token = await tokens.create(service.store, ALICE, 60, 1)
    chain = await service.create(Caller(metadata=bearer(token.secret)), new_csr(key, BOB))
    leaf = chain[0].encode()
    check_svid(leaf, key_pem(key), chain[-1].encode(), ALICE, NOW)
    again = await service.refusal(Caller(metadata=bearer(token.secret)), new_csr(key, ALICE))
    assert again.code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_certificate_renews_itself(service: Service):
    chain = await service.create(Caller(ALICE), new_csr(new_key(), ALICE), 60)
    leaf = load_chain(chain[0].encode())[0]
    assert identity_of(leaf) == ALICE
    assert leaf.not_valid_after_utc == NOW + timedelta(seconds=60)


@pytest.mark.parametrize(
    "csr", ["", "x", "\0", "-----BEGIN CERTIFICATE REQUEST-----", "é" * 40_000]
)
async def test_a_request_that_is_none(service: Service, csr: str):
    refused = await service.refusal(Caller(ALICE), csr)
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.message.startswith("CSR signing error (")


@pytest.mark.parametrize("ttl_s", [86_401, 2**62, 2**63 - 1])
async def test_a_lifetime_over_the_maximum(service: Service, ttl_s: int):
    refused = await service.refusal(Caller(ALICE), new_csr(new_key(), ALICE), ttl_s)
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.message.startswith("CSR signing error (")
    assert "86400 s" in refused.message


@pytest.mark.parametrize("ttl_s", [0, -1, -(2**63)])
async def test_no_lifetime_is_the_default(service: Service, ttl_s: int):
    chain = await service.create(Caller(ALICE), new_csr(new_key(), ALICE), ttl_s)
    leaf = load_chain(chain[0].encode())[0]
    assert leaf.not_valid_after_utc == NOW + timedelta(seconds=3600)


async def test_the_strict_mode(strict: Service):
    assert await strict.create(Caller(ALICE), new_csr(new_key(), ALICE))
    refused = await strict.refusal(Caller(ALICE), new_csr(new_key(), BOB))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_signer_that_expired_is_our_fault_not_the_callers(service: Service):
    service.now = NOW + timedelta(seconds=864_000)
    refused = await service.refusal(Caller(ALICE), new_csr(new_key(), ALICE))
    assert refused.code is grpc.StatusCode.INTERNAL
    assert refused.message.startswith("CSR signing error (")


async def test_who_is_nobody_learns_nothing_of_the_request(service: Service):
    """The caller comes first: a bad request of a stranger is answered as a good one is."""
    for csr in ("x", new_csr(new_key(), ALICE).decode()):
        refused = await service.refusal(Caller(), csr, 2**62)
        assert refused.code is grpc.StatusCode.UNAUTHENTICATED
        assert "CSR" not in refused.message


async def test_what_is_counted(service: Service):
    good = new_csr(new_key(), ALICE)
    csrs = "citadel_server_csr_count_total"
    before = counted()
    await service.create(Caller(ALICE), good)
    assert risen(before) == {csrs, "citadel_server_success_cert_issuance_count_total"}
    before = counted()
    await service.refusal(Caller(), good)
    assert risen(before) == {csrs, "citadel_server_authentication_failure_count_total"}
    before = counted()
    await service.refusal(Caller(ALICE), "x")
    assert risen(before) == {csrs, "citadel_server_csr_parsing_err_count_total"}
    before = counted()
    await service.refusal(Caller(ALICE), good, 2**62)
    assert risen(before) == {csrs, 'citadel_server_csr_sign_err_count_total{error="ttl_error"}'}
