"""Issuing: whose identity is signed, for how long, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from services.citadel.authn import tokens
from services.citadel.authority.root import load_or_create
from services.citadel.authority.sealing import SealingError
from services.citadel.authority.signing import Policy, TtlError, granted_lifetime_s, issue
from windward.identity.certificate import CertificateError, check_svid, identity_of
from windward.identity.csr import CsrError, load_csr, new_csr
from windward.identity.keys import key_pem, new_key
from windward.identity.spiffe_id import workload_id
from windward.store.memory import MemoryStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEK = b"k" * 32
POLICY = Policy(3600, 86_400, strict=False)
ALICE = workload_id("cluster.local", "shop", "alice")
BOB = workload_id("cluster.local", "shop", "bob")


@pytest.fixture
async def root():
    return await load_or_create(MemoryStore(), KEK, "cluster.local", 10 * 365 * 86_400, lambda: NOW)


async def test_the_callers_identity_is_signed_whatever_the_request_says(root):
    issued = issue(root, POLICY, ALICE, new_csr(new_key(), BOB), 0, NOW)
    assert identity_of(issued.certificate) == ALICE
    names = issued.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert len(list(names.value)) == 1


async def test_only_control_plane_accounts_of_the_root_namespace_get_a_dns_name(root):
    for namespace, expected in (("istio-system", ["pilot.windward.internal"]), ("shop", [])):
        identity = workload_id("cluster.local", namespace, "windward-pilot")
        issued = issue(root, POLICY, identity, new_csr(new_key(), identity), 0, NOW)
        names = issued.certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
        assert names.get_values_for_type(x509.DNSName) == expected


async def test_a_chain_is_checked_whole(root):
    key = new_key()
    issued = issue(root, POLICY, ALICE, new_csr(key, ALICE), 60, NOW)
    chain = issued.chain[0].encode()
    check_svid(chain, key_pem(key), root.pem, ALICE, NOW)
    other = await load_or_create(MemoryStore(), KEK, "cluster.local", 86_400, lambda: NOW)
    for change in (
        (chain, key_pem(key), root.pem, BOB, NOW),
        (chain, key_pem(new_key()), root.pem, ALICE, NOW),
        (chain, key_pem(key), other.pem, ALICE, NOW),
        (chain, key_pem(key), root.pem, ALICE, NOW + timedelta(seconds=61)),
    ):
        with pytest.raises(CertificateError):
            check_svid(*change)


@pytest.mark.parametrize("asked", [0, -1, -(2**63)])
def test_nothing_asked_is_the_default(asked: int):
    assert granted_lifetime_s(POLICY, asked) == 3600


@pytest.mark.parametrize("asked", [86_401, 2**62, 2**63 - 1])
def test_too_long_is_refused_and_never_wraps(asked: int):
    with pytest.raises(TtlError):
        granted_lifetime_s(POLICY, asked)


async def test_no_certificate_outlives_its_root():
    root = await load_or_create(MemoryStore(), KEK, "cluster.local", 1800, lambda: NOW)
    issued = issue(root, POLICY, ALICE, new_csr(new_key(), ALICE), 3600, NOW)
    assert issued.certificate.not_valid_after_utc == root.issuer.certificate.not_valid_after_utc


def request_with(key) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP192R1())],
    ids=["rsa1024", "p192"],
)
def test_weak_keys_are_refused(key):
    with pytest.raises(CsrError):
        load_csr(request_with(key))


def test_trailing_data_is_refused():
    good = new_csr(new_key(), ALICE)
    with pytest.raises(CsrError):
        load_csr(good + good)
    with pytest.raises(CsrError):
        load_csr(b"x" + good)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_make_parsing_raise_anything_else(body: bytes):
    for pem in (
        body,
        b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"\n-----END CERTIFICATE REQUEST-----",
    ):
        with pytest.raises(CsrError):
            load_csr(pem)


async def test_replicas_that_race_make_one_root():
    import asyncio

    store = MemoryStore()
    roots = await asyncio.gather(
        *(load_or_create(store, KEK, "cluster.local", 86_400, lambda: NOW) for _ in range(5))
    )
    assert len({root.pem for root in roots}) == 1


async def test_a_wrong_key_encryption_key_and_a_foreign_root_are_refused():
    store = MemoryStore()
    await load_or_create(store, KEK, "cluster.local", 86_400, lambda: NOW)
    with pytest.raises(SealingError):
        await load_or_create(store, b"x" * 32, "cluster.local", 86_400, lambda: NOW)
    with pytest.raises(CertificateError):
        await load_or_create(store, KEK, "other.example", 86_400, lambda: NOW)


async def test_a_token_for_one_use_is_used_once_however_many_race():
    import asyncio

    store = MemoryStore()
    token = await tokens.create(store, ALICE, 60, 1)
    results = await asyncio.gather(*(tokens.redeem(store, token.secret) for _ in range(10)))
    assert [result for result in results if result] == [ALICE]
    assert token.secret.encode() not in b"".join(
        e.value + e.key.encode() for e in (await store.list("/")).entries
    )


async def test_a_token_expires():
    now = [0.0]
    store = MemoryStore(clock=lambda: now[0])
    token = await tokens.create(store, ALICE, 60, 5)
    assert await tokens.redeem(store, token.secret) == ALICE
    now[0] = 61.0
    assert await tokens.redeem(store, token.secret) is None


@given(st.text(max_size=200))
@settings(max_examples=50, deadline=None)
def test_no_text_is_a_token(text: str):
    import asyncio

    assert asyncio.run(tokens.redeem(MemoryStore(), text)) is None
