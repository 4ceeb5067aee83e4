"""JWT-SVIDs: what is minted verifies, here and by another library; everything a forger may try does not."""

from __future__ import annotations

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import KeySet

from windward.identity.jwt_svid import (
    AUDIENCES_LIMIT_BYTES,
    JWKS_LIMIT_BYTES,
    MOST_AUDIENCES,
    MOST_KEYS,
    TOKEN_LIMIT_BYTES,
    JwtError,
    check_audiences,
    jwks_of,
    kid_of,
    load_jwks,
    mint,
    verify,
)
from windward.identity.keys import new_key
from windward.identity.spiffe_id import workload_id

ALICE = workload_id("cluster.local", "shop", "alice")
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
END = NOW + timedelta(minutes=5)
KEY = new_key()
KEYS = {kid_of(KEY.public_key()): KEY.public_key()}
HEADER = {"alg": "ES256", "kid": kid_of(KEY.public_key()), "typ": "JWT"}
CLAIMS = {
    "sub": str(ALICE),
    "aud": ["bob"],
    "iat": int(NOW.timestamp()),
    "exp": int(END.timestamp()),
}


def encoded(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(header: Any, claims: Any, key: ec.EllipticCurvePrivateKey = KEY) -> str:
    """Signed by a key of the trust domain, with whatever header and claims."""
    signed = f"{encoded(header)}.{encoded(claims)}"
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def checked(token: str, audience: str = "bob", now: datetime = NOW) -> Any:
    return verify(token, KEYS, "cluster.local", audience, now)


def refusal(token: str, audience: str = "bob", now: datetime = NOW) -> str:
    with pytest.raises(JwtError) as caught:
        checked(token, audience, now)
    return str(caught.value)


def test_what_is_minted_verifies():
    token = mint(KEY, ALICE, ("bob", "carol"), NOW, END)
    for audience in ("bob", "carol"):
        found = checked(token, audience)
        assert (found.identity, found.audience, found.expires_at) == (ALICE, ("bob", "carol"), END)
    assert checked(forged(HEADER, CLAIMS)).claims == CLAIMS


def test_another_library_verifies_it_with_the_key_set():
    token = mint(KEY, ALICE, ("bob",), NOW, END)
    keys = KeySet.import_key_set(json.loads(jwks_of([new_key().public_key(), KEY.public_key()])))
    found = jwt.decode(token, keys, algorithms=["ES256"])
    assert found.claims == CLAIMS
    assert found.header == HEADER


def test_what_another_library_minted_verifies():
    numbers = json.loads(jwks_of([KEY.public_key()]))["keys"][0]
    secret = KEY.private_numbers().private_value.to_bytes(32, "big")
    private = KeySet.import_key_set({"keys": [{**numbers, "d": encoded(secret)}]}).keys[0]
    assert checked(jwt.encode(HEADER, CLAIMS, private)).identity == ALICE


def without(mapping: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key != name}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({**HEADER, "alg": "none"}, "algorithm must be ES256"),
        ({**HEADER, "alg": "HS256"}, "algorithm must be ES256"),
        ({**HEADER, "alg": "es256"}, "algorithm must be ES256"),
        ({**HEADER, "alg": ["ES256"]}, "no JSON object with alg and kid"),
        (without(HEADER, "alg"), "no JSON object with alg and kid"),
        (without(HEADER, "kid"), "no JSON object with alg and kid"),
        ({**HEADER, "kid": "another"}, "names no key"),
        ({**HEADER, "typ": "at+jwt"}, "typ must be JWT or JOSE"),
        ({**HEADER, "crit": ["exp"]}, "critical headers"),
        ({**HEADER, "pad": "x" * 1024}, "header.payload.signature"),
        (b"[" * 700, "no JSON object with alg and kid"),
        (b"\xff\xff", "no JSON object with alg and kid"),
    ],
)
def test_a_header_has_no_choice(header: Any, reason: str):
    assert reason in refusal(forged(header, CLAIMS))


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        (without(CLAIMS, "exp"), "has no exp"),
        ({**CLAIMS, "exp": "1893456000"}, "exp is not a number"),
        ({**CLAIMS, "exp": True}, "exp is not a number"),
        ({**CLAIMS, "exp": 1e300}, "exp is no time"),
        ({**CLAIMS, "exp": int(NOW.timestamp())}, "expired"),
        ({**CLAIMS, "iat": int(NOW.timestamp()) + 61}, "iat lies in the future"),
        ({**CLAIMS, "nbf": int(NOW.timestamp()) + 61}, "nbf lies in the future"),
        (without(CLAIMS, "aud"), "aud must be"),
        ({**CLAIMS, "aud": []}, "another audience"),
        ({**CLAIMS, "aud": [["bob"]]}, "aud must be"),
        ({**CLAIMS, "aud": "bob "}, "another audience"),
        (without(CLAIMS, "sub"), "sub: "),
        ({**CLAIMS, "sub": "alice"}, "sub: "),
        ({**CLAIMS, "sub": "spiffe://evil.example/ns/shop/sa/alice"}, "not of trust domain"),
        (["sub"], "not a JSON object"),
        (b"[" * 9000, "not a JSON object"),
    ],
)
def test_claims_that_are_signed_and_wrong(claims: Any, reason: str):
    assert reason in refusal(forged(HEADER, claims))


def test_one_audience_may_stand_alone():
    assert checked(forged(HEADER, {**CLAIMS, "aud": "bob"})).audience == ("bob",)
    assert "another audience" in refusal(forged(HEADER, {**CLAIMS, "aud": [""]}), "")


def test_a_signature_of_another_key_or_algorithm():
    assert "does not verify" in refusal(forged(HEADER, CLAIMS, new_key()))
    signed = f"{encoded(HEADER)}.{encoded(CLAIMS)}"
    public = jwks_of([KEY.public_key()])
    by_hmac = hmac.new(public, signed.encode(), "sha256").digest()
    assert "not one of ES256" in refusal(f"{signed}.{encoded(by_hmac)}")
    assert "does not verify" in refusal(f"{signed}.{encoded(bytes(64))}")
    assert "not base64url" in refusal(f"{signed}.")


def test_a_token_has_one_form():
    token = mint(KEY, ALICE, ("bob",), NOW, END)
    assert "not base64url" in refusal(token + "=")
    assert "header.payload.signature" in refusal(token + ".x")
    # The last character of 64 bytes carries four bits that mean nothing.
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = last[last.index(token[-1]) ^ 1]
    assert "canonical" in refusal(token[:-1] + other)


def test_a_large_token_is_refused_before_it_is_looked_at():
    token = mint(KEY, ALICE, ("bob",), NOW, END)
    assert str(TOKEN_LIMIT_BYTES) in refusal(token + "A" * 1_000_000)
    assert str(TOKEN_LIMIT_BYTES) in refusal("é.é.é")


@given(st.text(max_size=200) | st.binary(max_size=200).map(encoded).map("a.{0}.{0}".format))
def test_whatever_text_is_refused_in_words(text: str):
    assert refusal(text)


@given(st.data())
def test_no_changed_token_verifies(data: st.DataObject):
    token = mint(KEY, ALICE, ("bob",), NOW, END)
    at = data.draw(st.integers(0, len(token) - 1))
    new = data.draw(st.characters(codec="ascii"))
    changed = token[:at] + new + token[at + 1 :]
    if changed != token:
        assert refusal(changed)


def audiences_refused(audiences: list[str]) -> str:
    with pytest.raises(JwtError) as caught:
        check_audiences(audiences)
    with pytest.raises(JwtError):
        mint(KEY, ALICE, audiences, NOW, END)
    return str(caught.value)


def test_audiences_are_bounded():
    check_audiences(["a"] * MOST_AUDIENCES)
    check_audiences(["a" * AUDIENCES_LIMIT_BYTES])
    assert "at least one" in audiences_refused([])
    assert "at most 16" in audiences_refused(["a"] * (MOST_AUDIENCES + 1))
    assert "2048 bytes" in audiences_refused(["é" * (AUDIENCES_LIMIT_BYTES // 2), "a"])
    assert "printable" in audiences_refused([""])
    assert "printable" in audiences_refused(["a\nb"])


@given(st.lists(st.text(min_size=1, max_size=100), min_size=1, max_size=MOST_AUDIENCES))
def test_every_audience_that_is_allowed_makes_a_token_that_is_short_enough(audiences: list[str]):
    try:
        check_audiences(audiences)
    except JwtError:
        return
    token = mint(KEY, ALICE, audiences, NOW, END)
    assert checked(token, audiences[-1]).audience == tuple(audiences)


def test_a_key_set_comes_back_as_it_was():
    keys = [new_key().public_key() for _ in range(3)]
    assert load_jwks(jwks_of(keys)) == {kid_of(key): key for key in keys}
    assert load_jwks(b'{"keys": []}') == {}


JWK = json.loads(jwks_of([KEY.public_key()]))["keys"][0]


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ("x", "a list of at most"),
        ([JWK] * (MOST_KEYS + 1), "a list of at most"),
        ([JWK, JWK], "one kid"),
        ([1], "not an object"),
        ([{"kty": "oct", "k": "AAAA", "kid": "a"}], "not an elliptic-curve key"),
        ([{**JWK, "crv": "P-384"}], "not an elliptic-curve key"),
        ([{**JWK, "alg": "ES384"}], "another algorithm"),
        ([{**JWK, "d": "AAAA"}], "private key"),
        ([without(JWK, "kid")], "lacks kid, x or y"),
        ([{**JWK, "x": 1}], "lacks kid, x or y"),
        ([{**JWK, "x": "AAAA"}], "wrong length"),
        ([{**JWK, "x": JWK["y"]}], "not a point"),
    ],
)
def test_a_key_set_that_is_not_only_public_keys_of_ours_is_refused(keys: Any, reason: str):
    with pytest.raises(JwtError, match=reason):
        load_jwks(json.dumps({"keys": keys}).encode())


def test_a_key_set_is_bounded_and_json():
    with pytest.raises(JwtError, match="not JSON"):
        load_jwks(b"[]")
    with pytest.raises(JwtError, match=str(JWKS_LIMIT_BYTES)):
        load_jwks(b" " * (JWKS_LIMIT_BYTES + 1))
