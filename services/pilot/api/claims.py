"""Registrations that were checked against the store a moment ago: renewing one of them again is renewing its lease.

An agent renews three times a TTL. Of these one looks at the store for what stands there and at the group's template; the
others need not, unless something that the agent says is different, or its lease has lapsed. Pure; time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass

from windward.api.registry.v1 import registry_pb2
from windward.identity.spiffe_id import SpiffeId

MOST = 50_000


@dataclass(frozen=True, slots=True)
class _Claim:
    caller: SpiffeId
    said: bytes
    answer: registry_pb2.RegisterResponse
    until_s: float


class Claims:
    """One owner. ``ttl_s``: for how long a check holds."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._claims: dict[tuple[str, str], _Claim] = {}
        """Oldest first."""

    def known(
        self, caller: SpiffeId, request: registry_pb2.RegisterRequest, now_s: float
    ) -> registry_pb2.RegisterResponse | None:
        """What the same request was answered a moment ago; None: look again."""
        claim = self._claims.get(_key(request.workload))
        if (
            claim is None
            or now_s >= claim.until_s
            or claim.answer.lease_id != request.lease_id
            or claim.caller != caller
            or claim.said != _said(request.workload)
        ):
            return None
        return claim.answer

    def checked(
        self,
        caller: SpiffeId,
        request: registry_pb2.RegisterRequest,
        answer: registry_pb2.RegisterResponse,
        now_s: float,
    ) -> None:
        key = _key(request.workload)
        self._claims.pop(key, None)
        while self._claims:
            oldest = next(iter(self._claims))
            if len(self._claims) < MOST and self._claims[oldest].until_s > now_s:
                break
            del self._claims[oldest]
        said = _said(request.workload)
        self._claims[key] = _Claim(caller, said, answer, now_s + self._ttl_s)

    def forget(self, namespace: str, name: str) -> None:
        self._claims.pop((namespace, name), None)


def _key(workload: registry_pb2.Workload) -> tuple[str, str]:
    return (workload.namespace, workload.name)


def _said(workload: registry_pb2.Workload) -> bytes:
    """Equal for equal workloads: map entries in order."""
    return bytes(workload.SerializeToString(deterministic=True))
