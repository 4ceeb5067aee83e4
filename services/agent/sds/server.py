"""SDS: ``default`` (certificate and key) and ``ROOTCA`` (trust bundle), pushed whenever they change.

Delta, state-of-the-world and fetch. The key leaves this process only to its own Envoy, over a socket that only
Envoy's user can open. Source: Envoy service/secret/v3/sds.proto.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2
from envoy.service.discovery.v3 import discovery_pb2

from windward.rpc.credentials import TlsMaterial, TlsSource
from windward.rpc.errors import invalid
from windward.xds.resource import SECRET, Resource, ResourceSet
from windward.xds.stream import DeltaRequest, DeltaStream, SotwRequest, SotwStream

SERVICE = "envoy.service.secret.v3.SecretDiscoveryService"


def secrets_of(material: TlsMaterial, sequence: int) -> ResourceSet:
    """The two secrets as a resource set; versions are content hashes, so an equal secret is not sent again."""
    inline = base_pb2.DataSource
    certificate = secret_pb2.Secret(
        name="default",
        tls_certificate=common_pb2.TlsCertificate(
            certificate_chain=inline(inline_bytes=material.chain_pem),
            private_key=inline(inline_bytes=material.key_pem),
        ),
    )
    roots = secret_pb2.Secret(
        name="ROOTCA",
        validation_context=common_pb2.CertificateValidationContext(
            trusted_ca=inline(inline_bytes=material.roots_pem)
        ),
    )
    made = {
        item.name: Resource(SECRET, item.name, item.SerializeToString(deterministic=True))
        for item in (certificate, roots)
    }
    return ResourceSet.of(sequence, sequence, {SECRET: made})


class SecretServer:
    def __init__(self, source: TlsSource) -> None:
        self._source = source

    def handlers(self) -> grpc.GenericRpcHandler:
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "DeltaSecrets": grpc.stream_stream_rpc_method_handler(self.delta),
            "StreamSecrets": grpc.stream_stream_rpc_method_handler(self.stream),
            "FetchSecrets": grpc.unary_unary_rpc_method_handler(self.fetch),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def fetch(self, raw: bytes, _: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        request = discovery_pb2.DiscoveryRequest.FromString(raw)
        stream = SotwStream(self._current())
        stream.request(SotwRequest(SECRET, tuple(request.resource_names)))
        responses = stream.take()
        if not responses:
            raise invalid("no such secret: default and ROOTCA exist")
        return responses[0]

    async def delta(
        self, requests: AsyncIterator[bytes], _: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[bytes]:
        stream = DeltaStream(self._current())

        def take_in(raw: bytes) -> None:
            request = discovery_pb2.DeltaDiscoveryRequest.FromString(raw)
            stream.request(
                DeltaRequest(
                    type_url=SECRET,
                    nonce=request.response_nonce,
                    error=request.error_detail.message if request.HasField("error_detail") else "",
                    subscribe=tuple(request.resource_names_subscribe),
                    unsubscribe=tuple(request.resource_names_unsubscribe),
                    initial_versions=dict(request.initial_resource_versions),
                )
            )

        async for response in self._pump(requests, stream, take_in):
            yield response

    async def stream(
        self, requests: AsyncIterator[bytes], _: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[bytes]:
        stream = SotwStream(self._current())

        def take_in(raw: bytes) -> None:
            request = discovery_pb2.DiscoveryRequest.FromString(raw)
            error = request.error_detail.message if request.HasField("error_detail") else ""
            stream.request(
                SotwRequest(SECRET, tuple(request.resource_names), request.response_nonce, error)
            )

        async for response in self._pump(requests, stream, take_in):
            yield response

    def _current(self) -> ResourceSet:
        return secrets_of(self._source.current, self._source.sequence)

    async def _pump(
        self, requests: AsyncIterator[bytes], stream: Any, take_in: Any
    ) -> AsyncIterator[bytes]:
        iterator = aiter(requests)
        reading = asyncio.ensure_future(_next(iterator))
        changing = asyncio.ensure_future(self._source.changed(stream.current.version))
        try:
            while True:
                for response in stream.take():
                    yield response
                done, _ = await asyncio.wait(
                    {reading, changing}, return_when=asyncio.FIRST_COMPLETED
                )
                if changing in done:
                    stream.update(self._current())
                    changing = asyncio.ensure_future(self._source.changed(stream.current.version))
                if reading in done:
                    raw = reading.result()
                    if raw is None:
                        return
                    take_in(raw)
                    reading = asyncio.ensure_future(_next(iterator))
        finally:
            for task in (reading, changing):
                task.cancel()
            await asyncio.gather(reading, changing, return_exceptions=True)


async def _next(iterator: AsyncIterator[bytes]) -> bytes | None:
    return await anext(iterator, None)
