"""Signing keys of JWT-SVIDs, and what is signed with them. Pure: time and new keys are arguments.

    made, announced: in the bundle ── announce ──> signs ── until its successor does ──> retired: out of the bundle
                                                                  once no token of it can be valid any more

Everything follows from ``signs_from`` of each key and the clock, so replicas that hold the same ring agree without
asking one another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from cryptography.hazmat.primitives.asymmetric import ec

from windward.identity import jwt_svid
from windward.identity.spiffe_id import SpiffeId


class JwtTtlError(ValueError):
    """A lifetime that is not granted."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    key: ec.EllipticCurvePrivateKey
    signs_from: datetime


Ring = tuple[SigningKey, ...]
"""Keys in the order in which they sign; never empty once it was loaded."""


@dataclass(frozen=True, slots=True)
class JwtPolicy:
    default_ttl_s: float
    max_ttl_s: float
    signs_for_s: float
    """How long a key signs."""
    announced_for_s: float
    """How long a key is in the bundle before it signs."""

    @property
    def kept_for_s(self) -> float:
        """How long a key is in the bundle after its successor began to sign; clocks may differ."""
        return self.max_ttl_s + jwt_svid.SKEW.total_seconds()


def advance(
    ring: Ring, policy: JwtPolicy, now: datetime, new_key: Callable[[], ec.EllipticCurvePrivateKey]
) -> Ring:
    """The ring as it should be now; the same object when nothing is to be done.

    A successor that comes late (nobody ran meanwhile) is announced as long as any other: the old key signs on until
    then.
    """
    if not ring:
        return (SigningKey(new_key(), now),)
    kept = tuple(key for key, ends in zip(ring, _ends(ring, policy), strict=True) if ends > now)
    last = kept[-1]
    due = last.signs_from + timedelta(seconds=policy.signs_for_s)
    notice = timedelta(seconds=policy.announced_for_s)
    if due - notice <= now:
        kept += (SigningKey(new_key(), max(due, now + notice)),)
    return ring if kept == ring else kept


def next_change(ring: Ring, policy: JwtPolicy) -> datetime:
    """When ``advance`` will next have something to do."""
    successor = ring[-1].signs_from + timedelta(seconds=policy.signs_for_s - policy.announced_for_s)
    return min(successor, *_ends(ring, policy))


def _ends(ring: Ring, policy: JwtPolicy) -> list[datetime]:
    """When each key leaves the bundle; the last one stays until it has a successor."""
    kept = timedelta(seconds=policy.kept_for_s)
    last = datetime.max.replace(tzinfo=ring[-1].signs_from.tzinfo)
    return [*(after.signs_from + kept for _, after in pairwise(ring)), last]


def signing_key(ring: Ring, now: datetime) -> ec.EllipticCurvePrivateKey:
    """The newest key whose time has come; the oldest there is, should this clock be behind."""
    begun = [item for item in ring if item.signs_from <= now]
    return (begun[-1] if begun else ring[0]).key


def bundle(ring: Ring) -> bytes:
    """The key set that verifies everything which may be valid now or soon."""
    return jwt_svid.jwks_of(item.key.public_key() for item in ring)


def mint(
    ring: Ring,
    policy: JwtPolicy,
    identity: SpiffeId,
    audiences: Sequence[str],
    asked_s: float,
    now: datetime,
) -> tuple[str, datetime]:
    """(token, when it expires). ``asked_s`` 0 is the default lifetime. Raises JwtTtlError, or JwtError for audiences."""
    if asked_s < 0 or (asked_s and asked_s < 1):
        raise JwtTtlError(f"ttl: must be at least 1 s, is {asked_s:g} s")
    if asked_s > policy.max_ttl_s:
        raise JwtTtlError(f"ttl: must be at most {policy.max_ttl_s:.0f} s, is {asked_s:g} s")
    issued_at = now.replace(microsecond=0)
    expires_at = issued_at + timedelta(seconds=int(asked_s or policy.default_ttl_s))
    key = signing_key(ring, now)
    return jwt_svid.mint(key, identity, audiences, issued_at, expires_at), expires_at
