"""Rotation of JWT keys: announced before they sign, kept until nothing they signed can be valid."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from services.citadel.authority.jwt import (
    JwtPolicy,
    JwtTtlError,
    Ring,
    advance,
    bundle,
    mint,
    next_change,
    signing_key,
)
from windward.identity.jwt_svid import JwtError, kid_of, load_jwks, verify
from windward.identity.keys import new_key
from windward.identity.spiffe_id import workload_id

ALICE = workload_id("cluster.local", "shop", "alice")
BEGIN = datetime(2026, 5, 1, 12, tzinfo=UTC)
POLICY = JwtPolicy(default_ttl_s=300, max_ttl_s=3600, signs_for_s=86_400, announced_for_s=3600)


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def name_of(key: ec.EllipticCurvePrivateKey) -> str:
    return kid_of(key.public_key())


def moved(ring: Ring, seconds: float) -> Ring:
    return advance(ring, POLICY, at(seconds), new_key)


def test_a_key_is_announced_then_signs_then_retires():
    first = moved((), 0)
    assert moved(first, 86_400 - 3601) is first
    both = moved(first, 86_400 - 3600)
    assert [item.signs_from for item in both] == [at(0), at(86_400)]
    assert set(load_jwks(bundle(both))) == {kid_of(item.key.public_key()) for item in both}
    assert signing_key(both, at(86_399)) is both[0].key
    assert signing_key(both, at(86_400)) is both[1].key
    assert moved(both, 86_400 + 3659) is both
    assert moved(both, 86_400 + 3660) == both[1:]


def test_a_late_successor_is_announced_as_long_as_any_other():
    late = moved(moved((), 0), 500_000)
    assert late[1].signs_from == at(503_600)
    assert signing_key(late, at(503_599)) is late[0].key


def test_a_clock_behind_signs_with_the_oldest_key():
    ring = moved((), 0)
    assert signing_key(ring, at(-100)) is ring[0].key


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=12), st.integers(1, 3600))
def test_whatever_is_minted_verifies_until_it_expires(steps: list[int], ttl_s: int):
    """And every key that signs was in the bundle for the time of announcing, unless it was the first."""
    ring, now = moved((), 0), 0
    announced = {name_of(ring[0].key): -3600}
    minted: list[tuple[str, datetime]] = []
    for step in steps:
        now += step
        ring = moved(ring, now)
        assert next_change(ring, POLICY) > at(now)
        assert len(ring) <= 3
        keys = load_jwks(bundle(ring))
        for kid in keys:
            announced.setdefault(kid, now)
        assert announced[name_of(signing_key(ring, at(now)))] <= now - 3600
        minted.append(mint(ring, POLICY, ALICE, ("bob",), ttl_s, at(now)))
        for token, expires_at in minted:
            if expires_at > at(now):
                assert verify(token, keys, "cluster.local", "bob", at(now)).identity == ALICE


@pytest.mark.parametrize(("asked", "granted"), [(0, 300), (1, 1), (3600, 3600), (90.9, 90)])
def test_lifetimes_that_are_granted(asked: float, granted: int):
    ring = moved((), 0)
    token, expires_at = mint(ring, POLICY, ALICE, ("bob",), asked, at(0.7))
    assert expires_at == at(granted)
    found = verify(token, load_jwks(bundle(ring)), "cluster.local", "bob", at(0.5))
    assert found.expires_at == at(granted)


@pytest.mark.parametrize("asked", [-1, 0.5, 3601, 2**62])
def test_lifetimes_that_are_not(asked: float):
    with pytest.raises(JwtTtlError, match=r"ttl: must be at (least 1 s|most 3600 s)"):
        mint(moved((), 0), POLICY, ALICE, ("bob",), asked, at(0))


def test_an_audience_is_required():
    with pytest.raises(JwtError, match="audience"):
        mint(moved((), 0), POLICY, ALICE, (), 0, at(0))
