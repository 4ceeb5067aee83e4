"""From a call to the identity that made it. Every failure looks the same to the caller; the log knows the reason."""

from __future__ import annotations

import secrets
from typing import Any

import grpc

from services.citadel.authn import tokens
from windward.identity.spiffe_id import SpiffeId
from windward.rpc.errors import RefusedError, unauthenticated
from windward.rpc.peer import bearer_token, peer_identity
from windward.store.protocol import Store
from windward.telemetry.logging import get_logger

log = get_logger()
OPAQUE = "request authenticate failure"


async def authenticate(
    context: grpc.aio.ServicerContext[Any, Any], store: Store, trust_domain: str
) -> SpiffeId:
    """The caller: by its certificate on the mTLS port, by its join token elsewhere. Raises RefusedError."""
    identity = peer_identity(context)
    if identity is not None:
        if identity.trust_domain == trust_domain:
            return identity
        raise refuse("certificate of another trust domain")
    token = bearer_token(context)
    if token is None:
        raise refuse("neither certificate nor token")
    found = await tokens.redeem(store, token)
    if found is None:
        raise refuse("token unknown, used up or expired")
    return found


def refuse(reason: str) -> RefusedError:
    request_id = secrets.token_hex(8)
    log.warning("citadel.unauthenticated", reason=reason, request_id=request_id)
    return unauthenticated(f"{OPAQUE} (request id {request_id})")
