"""Who may use Pilot's APIs: the identity that the transport proved decides."""

from __future__ import annotations

from typing import Any

import grpc

from windward.identity.names import ADMIN_ACCOUNT, CONTROL_PLANE_DNS, ROOT_NAMESPACE
from windward.identity.spiffe_id import SpiffeId, workload_id
from windward.rpc.errors import denied, unauthenticated
from windward.rpc.peer import peer_identity


class Everybody:
    """For a socket that only the other workers of this Pilot reach: they ask for those whom they have let in."""

    def reader(self, _: grpc.aio.ServicerContext[Any, Any]) -> None:
        return

    def administrator(self, _: grpc.aio.ServicerContext[Any, Any]) -> SpiffeId:
        raise denied("workers only read from one another")


class Access:
    def __init__(self, trust_domain: str) -> None:
        self._administrator = workload_id(trust_domain, ROOT_NAMESPACE, ADMIN_ACCOUNT)
        self._readers = {
            self._administrator,
            *(workload_id(trust_domain, ROOT_NAMESPACE, account) for account in CONTROL_PLANE_DNS),
        }

    def caller(self, context: grpc.aio.ServicerContext[Any, Any]) -> SpiffeId:
        identity = peer_identity(context)
        if identity is None:
            raise unauthenticated("a certificate of the mesh is required: use the mTLS port")
        return identity

    def administrator(self, context: grpc.aio.ServicerContext[Any, Any]) -> SpiffeId:
        """Only the administrator changes configuration."""
        identity = self.caller(context)
        if identity != self._administrator:
            raise denied(f"{identity} may not change configuration; only {self._administrator} may")
        return identity

    def reader(self, context: grpc.aio.ServicerContext[Any, Any]) -> SpiffeId:
        """The administrator and the control plane read configuration; workloads get theirs by xDS."""
        identity = self.caller(context)
        if not self.may_read(identity):
            raise denied(f"{identity} may not read configuration")
        return identity

    def may_read(self, identity: SpiffeId) -> bool:
        return identity in self._readers
