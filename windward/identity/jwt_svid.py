"""JWT-SVIDs: minted with one algorithm, and verified by rules that leave a forger nothing to choose.

    key, claims -> mint -> header.payload.signature -> verify(keys of the trust domain, audience, now) -> JwtSvid

The algorithm is ES256 and nothing else: it is never taken from the token, so neither ``none`` nor a public key used as an
HMAC secret means anything here. Sizes are bounded before anything is decoded, and claims are read only after the
signature holds. Source: JWT-SVID standard, sections 2-4; RFC 7515 (JWS), 7517 (JWK), 7518 section 3.4 (ES256),
7519 section 4.1 (claims), 7638 (thumbprints).
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from windward.identity.spiffe_id import SpiffeId, SpiffeIdError

ALGORITHM: Final = "ES256"
TOKEN_LIMIT_BYTES: Final = 16 * 1024
HEADER_LIMIT_BYTES: Final = 1024
JWKS_LIMIT_BYTES: Final = 64 * 1024
MOST_KEYS: Final = 64
MOST_AUDIENCES: Final = 16
AUDIENCES_LIMIT_BYTES: Final = 2048
"""Of all audiences of a token together."""
SKEW: Final = timedelta(seconds=60)
"""How far the minter's clock may be ahead. The end of a token is not stretched by it."""
COORDINATE_BYTES: Final = 32
_SIGNATURE: Final = ec.ECDSA(hashes.SHA256())
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""All that decoding bad JSON raises."""
_TEXT: Final = re.compile(r"[A-Za-z0-9_-]+")


class JwtError(ValueError):
    """A token, key set or audience that is not usable; says why, and never repeats a token."""


@dataclass(frozen=True, slots=True)
class JwtSvid:
    """What a verified token says."""

    identity: SpiffeId
    audience: tuple[str, ...]
    expires_at: datetime
    claims: Mapping[str, Any]


class _Header(msgspec.Struct, frozen=True):
    alg: str
    kid: str
    typ: str = "JWT"
    crit: Any = None


def kid_of(key: ec.EllipticCurvePublicKey) -> str:
    """The key's name: its thumbprint (RFC 7638)."""
    jwk = _jwk(key)
    return _encoded(sha256(msgspec.json.encode(jwk, order="sorted")).digest())


def jwks_of(keys: Iterable[ec.EllipticCurvePublicKey]) -> bytes:
    """A key set (RFC 7517) in the order given. ``use`` is left out: JWT libraries refuse SPIFFE's value of it."""
    made = [{**_jwk(key), "kid": kid_of(key), "alg": ALGORITHM} for key in keys]
    return msgspec.json.encode({"keys": made})


def load_jwks(text: bytes) -> dict[str, ec.EllipticCurvePublicKey]:
    """Names (``kid``) and their keys. Raises JwtError unless every key is a public one for ES256 with a name of its own."""
    if len(text) > JWKS_LIMIT_BYTES:
        raise JwtError(f"a key set has at most {JWKS_LIMIT_BYTES} bytes")
    try:
        found = msgspec.json.decode(text, type=dict[str, Any]).get("keys")
    except _UNREADABLE as error:
        raise JwtError("the key set is not JSON") from error
    if not isinstance(found, list) or len(found) > MOST_KEYS:
        raise JwtError(f"a key set has a list of at most {MOST_KEYS} keys")
    keys: dict[str, ec.EllipticCurvePublicKey] = {}
    for item in found:
        kid, key = _load_jwk(item)
        if kid in keys:
            raise JwtError("two keys of the set have one kid")
        keys[kid] = key
    return keys


def check_audiences(audiences: Sequence[str]) -> None:
    """Raises JwtError for none, too many, too long ones, or one that is no printable text."""
    if not audiences:
        raise JwtError("audience: at least one is needed")
    if len(audiences) > MOST_AUDIENCES:
        raise JwtError(
            f"audience: at most {MOST_AUDIENCES} are allowed, there are {len(audiences)}"
        )
    if not all(item and item.isprintable() for item in audiences):
        raise JwtError("audience: each must be printable text, and not empty")
    if sum(len(item.encode()) for item in audiences) > AUDIENCES_LIMIT_BYTES:
        raise JwtError(f"audience: all of them together have at most {AUDIENCES_LIMIT_BYTES} bytes")


def mint(
    key: ec.EllipticCurvePrivateKey,
    identity: SpiffeId,
    audiences: Sequence[str],
    issued_at: datetime,
    expires_at: datetime,
) -> str:
    """A signed token (whole seconds). Raises JwtError for audiences that ``check_audiences`` refuses."""
    check_audiences(audiences)
    header = {"alg": ALGORITHM, "kid": kid_of(key.public_key()), "typ": "JWT"}
    claims = {
        "sub": str(identity),
        "aud": list(audiences),
        "iat": int(issued_at.timestamp()),
        "exp": int(expires_at.timestamp()),
    }
    signed = f"{_encoded(msgspec.json.encode(header))}.{_encoded(msgspec.json.encode(claims))}"
    r, s = decode_dss_signature(key.sign(signed.encode(), _SIGNATURE))
    raw = r.to_bytes(COORDINATE_BYTES, "big") + s.to_bytes(COORDINATE_BYTES, "big")
    return f"{signed}.{_encoded(raw)}"


def verify(
    token: str,
    keys: Mapping[str, ec.EllipticCurvePublicKey],
    trust_domain: str,
    audience: str,
    now: datetime,
) -> JwtSvid:
    """What the token says, if it was signed by one of the trust domain's keys, for this audience, and holds now.

    Raises JwtError.
    """
    if len(token) > TOKEN_LIMIT_BYTES or not token.isascii():
        raise JwtError(f"a token has at most {TOKEN_LIMIT_BYTES} bytes, all of them ASCII")
    parts = token.split(".")
    if len(parts) != 3 or len(parts[0]) > HEADER_LIMIT_BYTES:
        raise JwtError("a token is header.payload.signature")
    key = keys.get(_header(parts[0]).kid)
    if key is None:
        raise JwtError("the token's kid names no key of the trust domain")
    raw = _decoded(parts[2])
    if len(raw) != 2 * COORDINATE_BYTES:
        raise JwtError("the token's signature is not one of ES256")
    r, s = (int.from_bytes(raw[at : at + COORDINATE_BYTES], "big") for at in (0, COORDINATE_BYTES))
    try:
        key.verify(encode_dss_signature(r, s), f"{parts[0]}.{parts[1]}".encode(), _SIGNATURE)
    except InvalidSignature as error:
        raise JwtError("the token's signature does not verify") from error
    try:
        claims = msgspec.json.decode(_decoded(parts[1]), type=dict[str, Any])
    except _UNREADABLE as error:
        raise JwtError("the token's claims are not a JSON object") from error
    return _checked(claims, trust_domain, audience, now)


def _header(text: str) -> _Header:
    try:
        header = msgspec.json.decode(_decoded(text), type=_Header)
    except _UNREADABLE as error:
        raise JwtError("the token's header is no JSON object with alg and kid") from error
    if header.alg != ALGORITHM:
        raise JwtError(f"the token's algorithm must be {ALGORITHM}")
    if header.typ not in {"JWT", "JOSE"}:
        raise JwtError("the token's typ must be JWT or JOSE")
    if header.crit is not None:
        raise JwtError("the token has critical headers, none of which is known")
    return header


def _checked(claims: Mapping[str, Any], trust_domain: str, audience: str, now: datetime) -> JwtSvid:
    subject, audiences = claims.get("sub"), claims.get("aud")
    try:
        identity = SpiffeId.parse(subject if isinstance(subject, str) else "")
    except SpiffeIdError as error:
        raise JwtError(f"the token's sub: {error}") from error
    if identity.trust_domain != trust_domain:
        raise JwtError(f"the token's sub is not of trust domain {trust_domain}")
    expires_at = _time(claims, "exp")
    if expires_at is None:
        raise JwtError("the token has no exp: one that never ends is not accepted")
    if expires_at <= now:
        raise JwtError(f"the token expired at {expires_at}")
    for name in ("iat", "nbf"):
        begins = _time(claims, name)
        if begins is not None and begins > now + SKEW:
            raise JwtError(f"the token's {name} lies in the future: {begins}")
    listed = [audiences] if isinstance(audiences, str) else audiences
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise JwtError("the token's aud must be a text or a list of texts")
    if not audience or audience not in listed:
        raise JwtError("the token is for another audience")
    return JwtSvid(identity, tuple(listed), expires_at, claims)


def _time(claims: Mapping[str, Any], name: str) -> datetime | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise JwtError(f"the token's {name} is not a number")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, OSError, ValueError) as error:
        raise JwtError(f"the token's {name} is no time") from error


def _jwk(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """The members that make the thumbprint."""
    numbers = key.public_numbers()
    x, y = (_encoded(value.to_bytes(COORDINATE_BYTES, "big")) for value in (numbers.x, numbers.y))
    return {"crv": "P-256", "kty": "EC", "x": x, "y": y}


def _load_jwk(item: Any) -> tuple[str, ec.EllipticCurvePublicKey]:
    if not isinstance(item, dict):
        raise JwtError("a key of the set is not an object")
    if item.get("kty") != "EC" or item.get("crv") != "P-256":
        raise JwtError("a key of the set is not an elliptic-curve key on P-256")
    if item.get("alg", ALGORITHM) != ALGORITHM:
        raise JwtError(f"a key of the set is for another algorithm than {ALGORITHM}")
    if "d" in item:
        raise JwtError("a key of the set is a private key: replace it, it is known now")
    kid, x, y = (item.get(name) for name in ("kid", "x", "y"))
    if not (isinstance(kid, str) and kid and isinstance(x, str) and isinstance(y, str)):
        raise JwtError("a key of the set lacks kid, x or y")
    raw_x, raw_y = _decoded(x), _decoded(y)
    if len(raw_x) != COORDINATE_BYTES or len(raw_y) != COORDINATE_BYTES:
        raise JwtError("a key of the set has coordinates of a wrong length")
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(raw_x, "big"), int.from_bytes(raw_y, "big"), ec.SECP256R1()
    )
    try:
        return kid, numbers.public_key()
    except ValueError as error:
        raise JwtError("a key of the set is not a point of the curve") from error


def _encoded(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    """Base64url without padding, in its one canonical form. Raises JwtError."""
    if not _TEXT.fullmatch(text) or len(text) % 4 == 1:
        raise JwtError("a part of the token or key is not base64url")
    raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _encoded(raw) != text:
        raise JwtError("a part of the token or key is not canonical base64url")
    return raw
