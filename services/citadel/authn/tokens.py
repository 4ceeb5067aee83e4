"""Join tokens: a secret with which one identity may obtain its first certificate, a few times, for a while.

The store keeps only a hash, on a lease as long as the token lives; each use is a compare-and-write, so that a token
for one use is used once however many callers race.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from windward.identity.spiffe_id import SpiffeId
from windward.store.errors import Conflict
from windward.store.keys import CA
from windward.store.protocol import Remove, Store, Transaction, Unchanged, Write

PREFIX = "wwjt_"
TOKENS = CA + "tokens/"
LIMIT_BYTES = 128
ATTEMPTS = 8


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """As it lies in the store, under the token's hash."""

    identity: str
    uses_left: int
    schema: int = 1


@dataclass(frozen=True, slots=True)
class JoinToken:
    secret: str
    ttl_s: float


def key_of(secret: str) -> str:
    """Where a token's record lies. A token has 256 random bits, so a plain hash hides it."""
    return TOKENS + sha256(secret.encode()).hexdigest()


async def create(store: Store, identity: SpiffeId, ttl_s: float, uses: int) -> JoinToken:
    secret = PREFIX + secrets.token_urlsafe(32)
    lease = await store.grant(ttl_s)
    record = TokenRecord(identity=str(identity), uses_left=uses)
    key = key_of(secret)
    write = Write(key, msgspec.json.encode(record), lease.id)
    await store.commit(Transaction((write,), (Unchanged(key, 0),)))
    return JoinToken(secret, lease.ttl_s)


async def redeem(store: Store, secret: str) -> SpiffeId | None:
    """The identity of a token, one use of it taken; None for a token that is unknown, used up or expired."""
    if not secret.startswith(PREFIX) or len(secret) > LIMIT_BYTES:
        return None
    key = key_of(secret)
    for _ in range(ATTEMPTS):
        entry = await store.get(key)
        if entry is None:
            return None
        record = msgspec.json.decode(entry.value, type=TokenRecord)
        left = record.uses_left - 1
        operation: Write | Remove = Remove(key)
        if left > 0:
            value = msgspec.json.encode(TokenRecord(identity=record.identity, uses_left=left))
            operation = Write(key, value, entry.lease)
        try:
            await store.commit(Transaction((operation,), (Unchanged(key, entry.mod_revision),)))
        except Conflict:
            continue
        return SpiffeId.parse(record.identity)
    return None


async def usable(store: Store, secret: str) -> bool:
    """Whether a token could be redeemed now; takes no use of it."""
    return await store.get(key_of(secret)) is not None
