"""A certificate authority of a test's own, and a small echo service to call."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import grpc

from windward.identity.certificate import Issuer, Validity, build_leaf, build_root, pem
from windward.identity.keys import key_pem, new_key
from windward.identity.spiffe_id import SpiffeId, workload_id
from windward.rpc.credentials import TlsMaterial

DNS = "server.windward.internal"
SERVICE = "windward.test.Echo"
METHOD = f"/{SERVICE}/Call"
_serials = itertools.count(1)


class Authority:
    """Issues material that chains to a root of its own."""

    def __init__(self) -> None:
        now = datetime.now(UTC).replace(microsecond=0)
        self.validity = Validity(now - timedelta(minutes=1), now + timedelta(hours=1))
        key = new_key()
        root = build_root(
            key, SpiffeId.parse("spiffe://cluster.local"), self.validity, next(_serials)
        )
        self._issuer = Issuer(root, key)
        self.roots_pem = pem(root)

    def material(self, account: str, *dns_names: str, namespace: str = "default") -> TlsMaterial:
        key = new_key()
        leaf = build_leaf(
            self._issuer,
            key.public_key(),
            workload_id("cluster.local", namespace, account),
            self.validity,
            next(_serials),
            dns_names,
        )
        return TlsMaterial(pem(leaf), key_pem(key), self.roots_pem)


Handler = Callable[[bytes, "grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[bytes]]


def echo(answer: Handler) -> grpc.GenericRpcHandler:
    """One unary method over bytes."""
    return grpc.method_handlers_generic_handler(
        SERVICE, {"Call": grpc.unary_unary_rpc_method_handler(answer)}
    )
