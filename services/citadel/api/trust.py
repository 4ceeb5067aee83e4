"""windward.trust.v1.TrustService: join tokens for administrators, JWT-SVIDs for workloads, bundles for everyone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from services.citadel import metrics
from services.citadel.authn import tokens
from services.citadel.authn.caller import refuse
from services.citadel.authority.jwt import JwtTtlError, bundle, mint
from services.citadel.authority.jwt_keys import JwtKeys
from services.citadel.authority.root import Root
from windward.api.trust.v1 import trust_pb2, trust_pb2_grpc
from windward.identity.jwt_svid import JwtError
from windward.identity.names import ADMIN_ACCOUNT, ROOT_NAMESPACE
from windward.identity.spiffe_id import SpiffeId, SpiffeIdError, workload_id
from windward.rpc.errors import denied, invalid
from windward.rpc.peer import peer_identity
from windward.store.protocol import Store
from windward.telemetry.logging import get_logger

log = get_logger()
DEFAULT_TTL_S = 600
LONGEST_TTL_S = 86_400
MOST_USES = 10_000
BUNDLE_SEQUENCE = 1


class TrustService(trust_pb2_grpc.TrustServiceServicer):
    def __init__(
        self,
        store: Store,
        root: Root,
        jwt_keys: JwtKeys,
        trust_domain: str,
        stopping: asyncio.Event,
    ) -> None:
        self._store = store
        self._jwt_keys = jwt_keys
        self._root = root
        self._trust_domain = trust_domain
        self._stopping = stopping
        self._administrator = workload_id(trust_domain, ROOT_NAMESPACE, ADMIN_ACCOUNT)

    async def CreateJoinToken(  # noqa: N802  the wire's name
        self, request: trust_pb2.CreateJoinTokenRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> trust_pb2.CreateJoinTokenResponse:
        caller = peer_identity(context)
        if caller is None:
            raise refuse("join tokens are made over mTLS")
        if caller != self._administrator:
            raise denied(f"{caller} may not create join tokens; only {self._administrator} may")
        identity = self._identity(request.identity)
        ttl_s = request.ttl.seconds or DEFAULT_TTL_S
        if not 0 < ttl_s <= LONGEST_TTL_S:
            raise invalid(f"ttl: must be between 1 s and {LONGEST_TTL_S} s, is {ttl_s} s")
        uses = request.max_uses or 1
        if uses > MOST_USES:
            raise invalid(f"max_uses: must be at most {MOST_USES}, is {uses}")
        token = await tokens.create(self._store, identity, ttl_s, uses)
        expires = Timestamp()
        expires.FromDatetime(datetime.now(UTC) + timedelta(seconds=token.ttl_s))
        log.info("citadel.token_created", identity=str(identity), uses=uses, ttl_s=ttl_s)
        return trust_pb2.CreateJoinTokenResponse(token=token.secret, expires_at=expires)

    def _identity(self, text: str) -> SpiffeId:
        try:
            identity = SpiffeId.parse(text)
        except SpiffeIdError as error:
            raise invalid(f"identity: {error}") from error
        if identity.trust_domain != self._trust_domain or identity.workload is None:
            raise invalid(
                f"identity: must be spiffe://{self._trust_domain}/ns/NAMESPACE/sa/ACCOUNT, is {text}"
            )
        return identity

    async def WatchTrustBundle(  # noqa: N802  the wire's name
        self, _: trust_pb2.WatchTrustBundleRequest, __: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[trust_pb2.TrustBundle]:
        """The one root there is, then silence until the bundle changes or the server stops."""
        yield trust_pb2.TrustBundle(
            trust_domain=self._trust_domain,
            roots_pem=self._root.pem.decode(),
            sequence=BUNDLE_SEQUENCE,
        )
        await self._stopping.wait()

    async def MintJwtSvid(  # noqa: N802  the wire's name
        self, request: trust_pb2.MintJwtSvidRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> trust_pb2.MintJwtSvidResponse:
        """For the caller that its certificate proves; what it says of itself is not asked."""
        caller = peer_identity(context)
        if caller is None or caller.trust_domain != self._trust_domain:
            metrics.AUTHENTICATION_FAILURES.inc()
            raise refuse("JWT-SVIDs are minted for certificates of the trust domain, over mTLS")
        asked_s = request.ttl.seconds + request.ttl.nanos / 1e9
        keys, now = self._jwt_keys, datetime.now(UTC)
        try:
            token, expires_at = mint(keys.ring, keys.policy, caller, request.audience, asked_s, now)
        except (JwtError, JwtTtlError) as error:
            raise invalid(str(error)) from error
        metrics.JWT_ISSUED.inc()
        log.info(
            "citadel.jwt_issued",
            identity=str(caller),
            audience=list(request.audience),
            not_after=expires_at.isoformat(),
            peer=context.peer(),
        )
        expires = Timestamp()
        expires.FromDatetime(expires_at)
        return trust_pb2.MintJwtSvidResponse(svid=token, expires_at=expires)

    async def WatchJwtBundle(  # noqa: N802  the wire's name
        self, _: trust_pb2.WatchJwtBundleRequest, __: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[trust_pb2.JwtBundle]:
        keys = self._jwt_keys
        stop = asyncio.create_task(self._stopping.wait())
        try:
            while not stop.done():
                seen = keys.sequence
                yield trust_pb2.JwtBundle(trust_domain=self._trust_domain, jwks=bundle(keys.ring))
                change = asyncio.create_task(keys.changed(seen))
                try:
                    await asyncio.wait({change, stop}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    change.cancel()
        finally:
            stop.cancel()
