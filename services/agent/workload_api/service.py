"""The SPIFFE Workload API of one identity. Whoever reaches it has been attested as that identity's workload.

Source: SPIFFE_Workload_API.md sections 4-6 and SPIFFE_Workload_Endpoint.md section 5 (the security header, statuses).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import grpc
from cryptography.hazmat.primitives import serialization

from services.agent.workload_api.jwt import JwtKeySet, JwtSvids
from windward.api.spiffe.workload import workload_pb2
from windward.client.certificates import Condition
from windward.identity.certificate import load_chain
from windward.identity.jwt_svid import JwtError, JwtSvid, check_audiences, verify
from windward.identity.keys import load_key
from windward.identity.spiffe_id import SpiffeId
from windward.rpc.credentials import TlsMaterial, TlsSource
from windward.rpc.errors import denied, invalid, unavailable

SERVICE = "SpiffeWorkloadAPI"
HEADER, HEADER_VALUE = "workload.spiffe.io", "true"
KEYS_WAIT_S = 2.0
"""How long validation waits for the very first key set."""
Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Held:
    """What the service serves: of one identity, and of nobody else."""

    identity: SpiffeId
    source: TlsSource
    condition: Callable[[], Condition]
    problem: Callable[[], str]
    tokens: JwtSvids
    keys: JwtKeySet
    hint: str = ""


class WorkloadApi:
    def __init__(self, held: Held, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._held = held
        self._now = now
        self._domain = f"spiffe://{held.identity.trust_domain}"

    def handlers(self) -> grpc.GenericRpcHandler:
        api, unary, stream = workload_pb2, _unary, _stream
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "FetchX509SVID": stream(self.fetch_x509_svid, api.X509SVIDRequest),
            "FetchX509Bundles": stream(self.fetch_x509_bundles, api.X509BundlesRequest),
            "FetchJWTSVID": unary(self.fetch_jwt_svid, api.JWTSVIDRequest),
            "FetchJWTBundles": stream(self.fetch_jwt_bundles, api.JWTBundlesRequest),
            "ValidateJWTSVID": unary(self.validate_jwt_svid, api.ValidateJWTSVIDRequest),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def fetch_x509_svid(
        self, _: workload_pb2.X509SVIDRequest, context: Context
    ) -> AsyncIterator[workload_pb2.X509SVIDResponse]:
        """Now, and again with every new certificate and every change of the roots."""
        check_header(context)
        async for material in self._materials():
            yield workload_pb2.X509SVIDResponse(
                svids=[
                    workload_pb2.X509SVID(
                        spiffe_id=str(self._held.identity),
                        x509_svid=der(material.chain_pem),
                        x509_svid_key=key_der(material.key_pem),
                        bundle=der(material.roots_pem),
                        hint=self._held.hint,
                    )
                ]
            )

    async def fetch_x509_bundles(
        self, _: workload_pb2.X509BundlesRequest, context: Context
    ) -> AsyncIterator[workload_pb2.X509BundlesResponse]:
        """Now, and again when the roots change."""
        check_header(context)
        told = b""
        async for material in self._materials():
            if material.roots_pem != told:
                told = material.roots_pem
                yield workload_pb2.X509BundlesResponse(bundles={self._domain: der(told)})

    async def fetch_jwt_svid(
        self, request: workload_pb2.JWTSVIDRequest, context: Context
    ) -> workload_pb2.JWTSVIDResponse:
        check_header(context)
        identity = str(self._held.identity)
        if request.spiffe_id not in {"", identity}:
            raise denied("spiffe_id: not the caller's")
        try:
            check_audiences(request.audience)
        except JwtError as error:
            raise invalid(str(error)) from error
        self._usable()
        try:
            token = await self._held.tokens.of(request.audience)
        except grpc.aio.AioRpcError as error:
            raise unavailable(f"Citadel gives no JWT-SVID now: {error.code().name}") from error
        svid = workload_pb2.JWTSVID(spiffe_id=identity, svid=token.svid, hint=self._held.hint)
        return workload_pb2.JWTSVIDResponse(svids=[svid])

    async def fetch_jwt_bundles(
        self, _: workload_pb2.JWTBundlesRequest, context: Context
    ) -> AsyncIterator[workload_pb2.JWTBundlesResponse]:
        """When the first has come, and again with every change."""
        check_header(context)
        keys, seen = self._held.keys, 0
        while True:
            await keys.changed(seen)
            seen = keys.sequence
            yield workload_pb2.JWTBundlesResponse(bundles={self._domain: keys.jwks})

    async def validate_jwt_svid(
        self, request: workload_pb2.ValidateJWTSVIDRequest, context: Context
    ) -> workload_pb2.ValidateJWTSVIDResponse:
        check_header(context)
        if not request.audience or not request.svid:
            raise invalid("audience and svid: both are needed")
        found = await self._verified(request.svid, request.audience)
        answer = workload_pb2.ValidateJWTSVIDResponse(spiffe_id=str(found.identity))
        answer.claims.update(found.claims)
        return answer

    async def _verified(self, token: str, audience: str) -> JwtSvid:
        keys = self._held.keys
        try:
            async with asyncio.timeout(KEYS_WAIT_S):
                await keys.changed(0)
        except TimeoutError as error:
            raise unavailable("Citadel has not told its JWT keys yet") from error
        try:
            return verify(token, keys.keys, self._held.identity.trust_domain, audience, self._now())
        except JwtError as error:
            raise invalid(f"svid: {error}") from error

    async def _materials(self) -> AsyncIterator[TlsMaterial]:
        source = self._usable()
        while True:
            seen = source.sequence
            yield source.current
            await source.changed(seen)

    def _usable(self) -> TlsSource:
        """The certificate, if it is still valid. A client whose call fails tries again."""
        held = self._held
        if held.condition() is Condition.EXPIRED:
            raise unavailable(held.problem())
        return held.source


def check_header(context: Context) -> None:
    """Without the header a request may come from a browser or proxy that was led to the socket. Raises RefusedError."""
    values = [value for key, value in context.invocation_metadata() or () if key == HEADER]
    if values != [HEADER_VALUE]:
        raise invalid(f"security header missing: metadata {HEADER}: {HEADER_VALUE}")


class NobodysApi(grpc.GenericRpcHandler):
    """What those get who are no workload of this agent: a clear refusal of every call."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        of_workload_api = str(details.method).startswith(f"/{SERVICE}/")

        async def refuse(_: AsyncIterator[bytes], context: Context) -> None:
            if of_workload_api:
                check_header(context)
            raise denied("no identity is issued to this process")

        return grpc.stream_stream_rpc_method_handler(refuse)


def der(chain_pem: bytes) -> bytes:
    """Certificates one after the other, as the Workload API has them."""
    encoding = serialization.Encoding.DER
    return b"".join(item.public_bytes(encoding) for item in load_chain(chain_pem))


def key_der(key_pem: bytes) -> bytes:
    return load_key(key_pem).private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _unary(behaviour: Any, request: Any) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.unary_unary_rpc_method_handler(behaviour, request.FromString, _serialised)


def _stream(behaviour: Any, request: Any) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.unary_stream_rpc_method_handler(behaviour, request.FromString, _serialised)


def _serialised(message: Any) -> bytes:
    return bytes(message.SerializeToString())
