"""Signing: lifetimes at their bounds, what is issued of whose, and what a signer at its end does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.verification import PolicyBuilder, Store
from hypothesis import given
from hypothesis import strategies as st

from services.citadel.authority.root import BACKDATED, Root, load_or_create
from services.citadel.authority.signing import (
    ExpiredAuthorityError,
    Policy,
    TtlError,
    dns_names,
    granted_lifetime_s,
    issue,
)
from windward.identity.certificate import identity_of, load_chain
from windward.identity.csr import CsrError, new_csr
from windward.identity.keys import new_key
from windward.identity.names import CONTROL_PLANE_DNS, ROOT_NAMESPACE
from windward.identity.spiffe_id import SpiffeId, workload_id
from windward.store.memory import MemoryStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = Policy(3600, 86_400, strict=False)
STRICT = Policy(3600, 86_400, strict=True)
ALICE = workload_id("cluster.local", "shop", "alice")
BOB = workload_id("cluster.local", "shop", "bob")


@pytest.fixture
async def root() -> Root:
    return await load_or_create(MemoryStore(), b"k" * 32, "cluster.local", 864_000, lambda: NOW)


async def test_the_strict_mode_signs_the_callers_own_name_only(root: Root):
    issued = issue(root, STRICT, ALICE, new_csr(new_key(), ALICE), 0, NOW)
    assert identity_of(load_chain(issued.chain[0].encode())[0]) == ALICE
    with pytest.raises(CsrError, match="another identity"):
        issue(root, STRICT, ALICE, new_csr(new_key(), BOB), 0, NOW)


async def test_the_chain_is_leaf_first_root_last_one_certificate_an_element(root: Root):
    issued = issue(root, POLICY, ALICE, new_csr(new_key(), ALICE), 0, NOW)
    assert all(part.endswith("-----END CERTIFICATE-----\n") for part in issued.chain)
    leaf, last = (load_chain(part.encode()) for part in issued.chain)
    assert leaf == [issued.certificate]
    assert last == [root.issuer.certificate]


async def test_the_requests_key_is_certified_also_an_rsa_key(root: Root):
    key = rsa.generate_private_key(65537, 2048)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    pem = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    issued = issue(root, POLICY, ALICE, pem, 0, NOW)
    assert issued.certificate.public_key() == key.public_key()
    policy = PolicyBuilder().store(Store([root.issuer.certificate])).time(NOW)
    assert policy.build_client_verifier().verify(issued.certificate, []).subjects


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_lifetime_is_the_one_asked_or_the_default_or_refused(asked: int):
    try:
        granted = granted_lifetime_s(POLICY, asked)
    except TtlError:
        assert asked > POLICY.max_ttl_s
        return
    assert granted == (asked if asked > 0 else POLICY.default_ttl_s)
    assert 0 < granted <= POLICY.max_ttl_s


@pytest.mark.parametrize("asked", [1, 60, 86_399, 86_400])
async def test_a_certificate_lives_as_long_as_asked(root: Root, asked: int):
    leaf = issue(root, POLICY, ALICE, new_csr(new_key(), ALICE), asked, NOW).certificate
    assert leaf.not_valid_after_utc == NOW + timedelta(seconds=asked)
    assert leaf.not_valid_before_utc == NOW - BACKDATED


async def test_a_signer_at_its_end(root: Root):
    ends = root.issuer.certificate.not_valid_after_utc
    request = new_csr(new_key(), ALICE)
    late = issue(root, POLICY, ALICE, request, 0, ends - timedelta(seconds=10)).certificate
    assert late.not_valid_after_utc == ends
    for now in (ends, ends + timedelta(days=1)):
        with pytest.raises(ExpiredAuthorityError):
            issue(root, POLICY, ALICE, request, 0, now)


async def test_a_request_issued_twice_has_two_serial_numbers(root: Root):
    request = new_csr(new_key(), ALICE)
    made = [issue(root, POLICY, ALICE, request, 0, NOW).certificate for _ in range(5)]
    assert len({certificate.serial_number for certificate in made}) == 5


@pytest.mark.parametrize(
    "text",
    [
        "spiffe://cluster.local/ns/shop/sa/windward-pilot",
        "spiffe://cluster.local/ns/istio-system/sa/windward-admin",
        "spiffe://cluster.local/ns/istio-system/sa/pilot",
        "spiffe://cluster.local/ns/istio-system/sa/WINDWARD-PILOT",
        "spiffe://cluster.local/ns/istio-system/sa/windward-pilot/more",
        "spiffe://cluster.local/ns/istio-system/windward-pilot",
        "spiffe://cluster.local/sa/windward-pilot/ns/istio-system",
        "spiffe://cluster.local",
    ],
)
def test_who_gets_no_dns_name(text: str):
    assert dns_names(SpiffeId.parse(text)) == ()


@pytest.mark.parametrize("account", sorted(CONTROL_PLANE_DNS))
async def test_who_gets_one(root: Root, account: str):
    identity = workload_id("cluster.local", ROOT_NAMESPACE, account)
    issued = issue(root, STRICT, identity, new_csr(new_key(), identity), 0, NOW)
    names = issued.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == [CONTROL_PLANE_DNS[account]]
    assert identity_of(issued.certificate) == identity
