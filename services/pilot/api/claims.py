"""Registrations that were checked against the store before: renewing one of them again is renewing its lease.

An agent renews three times a TTL. Of these one looks at the store for what stands there and at the group's template; the
others need not, unless something that the agent says is different. A lease that has lapsed can be replaced without looking,
on the condition that the record is still that of the last check. Pure; time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass

from windward.api.registry.v1 import registry_pb2
from windward.identity.spiffe_id import SpiffeId

MOST = 50_000
KEPT_S = 600.0
"""After an outage of this length everybody may be looked at again."""


@dataclass(frozen=True, slots=True)
class Claim:
    caller: SpiffeId
    said: bytes
    answer: registry_pb2.RegisterResponse
    """Its revision is the record's."""
    until_s: float
    """Until when nothing needs to be looked at."""


class Claims:
    """One owner."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._claims: dict[tuple[str, str], Claim] = {}
        """Oldest first."""

    def last(self, caller: SpiffeId, request: registry_pb2.RegisterRequest) -> Claim | None:
        """What the same request, with the same lease, was answered last."""
        claim = self._claims.get(_key(request.workload))
        if (
            claim is None
            or claim.answer.lease_id != request.lease_id
            or claim.caller != caller
            or claim.said != _said(request.workload)
        ):
            return None
        return claim

    def checked(
        self,
        caller: SpiffeId,
        request: registry_pb2.RegisterRequest,
        answer: registry_pb2.RegisterResponse,
        now_s: float,
        holds_s: float | None = None,
    ) -> None:
        """``holds_s``: a TTL unless said otherwise."""
        key = _key(request.workload)
        self._claims.pop(key, None)
        while self._claims:
            oldest = next(iter(self._claims))
            if len(self._claims) < MOST and self._claims[oldest].until_s > now_s - KEPT_S:
                break
            del self._claims[oldest]
        said = _said(request.workload)
        until_s = now_s + (self._ttl_s if holds_s is None else holds_s)
        self._claims[key] = Claim(caller, said, answer, until_s)

    def forget(self, namespace: str, name: str) -> None:
        self._claims.pop((namespace, name), None)


def _key(workload: registry_pb2.Workload) -> tuple[str, str]:
    return (workload.namespace, workload.name)


def _said(workload: registry_pb2.Workload) -> bytes:
    """Equal for equal workloads: map entries in order."""
    return bytes(workload.SerializeToString(deterministic=True))
