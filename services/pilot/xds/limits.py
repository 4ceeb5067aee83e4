"""What one Pilot takes on, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    streams: int = 10_000
    """Streams in all."""
    streams_per_identity: int = 5_000
    """Streams of one SPIFFE id; callers without one are bounded by ``streams`` alone."""
    first_request_s: float = 15.0
    """How long a stream may be open without a request."""
    ready_s: float = 10.0
    """How long a client waits for a Pilot that is still reading the store."""
    behind_s: float = 3.0
    """How long a client waits that has seen more of the store, at another Pilot, than this one has; then it is sent on."""
    first_syncs: int = 64
    """Clients that get everything for the first time at once; the others wait in order."""
    first_sync_s: float = 10.0
    """How long one of them may keep its place: who never ACKs holds up nobody."""
    longest_age_s: float = 3600.0
    """When a stream ends, so that clients spread over replicas again; 0: never."""
    age_jitter: float = 0.1
    """By which part of it that may come earlier or later, so that they do not all come at once."""
