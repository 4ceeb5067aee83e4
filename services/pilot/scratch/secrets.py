"""Secrets for the scratch Envoy: a key of its own that nobody trusts, so that what wants certificates can be tried.

Envoy acknowledges no clusters while one of them waits for its secrets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2
from envoy.service.discovery.v3 import discovery_pb2

from windward.identity.certificate import Issuer, Validity, build_leaf, build_root, pem
from windward.identity.keys import key_pem, new_key
from windward.identity.spiffe_id import SpiffeId, workload_id
from windward.xds.envelope import sotw_response
from windward.xds.resource import SECRET, Resource

SERVICE = "envoy.service.secret.v3.SecretDiscoveryService"
LIFETIME = timedelta(days=30)
CLOCKS_DIFFER = timedelta(minutes=5)


class ScratchSecrets:
    """Answers every name: a validation context for roots, the key and its certificate for all others."""

    def __init__(self) -> None:
        root_key, key, now = new_key(), new_key(), datetime.now(UTC)
        validity = Validity(now - CLOCKS_DIFFER, now + LIFETIME)
        root = build_root(root_key, SpiffeId.parse("spiffe://scratch.invalid"), validity, 1)
        identity = workload_id("scratch.invalid", "scratch", "scratch")
        leaf = build_leaf(Issuer(root, root_key), key.public_key(), identity, validity, 2)
        inline = base_pb2.DataSource
        self._certificate = common_pb2.TlsCertificate(
            certificate_chain=inline(inline_bytes=pem(leaf)),
            private_key=inline(inline_bytes=key_pem(key)),
        )
        self._roots = common_pb2.CertificateValidationContext(
            trusted_ca=inline(inline_bytes=pem(root))
        )

    def handlers(self) -> grpc.GenericRpcHandler:
        methods: dict[str, Any] = {
            "StreamSecrets": grpc.stream_stream_rpc_method_handler(self._stream)
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def of(self, name: str) -> Resource:
        if name == "ROOTCA" or name.startswith("file-root:"):
            secret = secret_pb2.Secret(name=name, validation_context=self._roots)
        else:
            secret = secret_pb2.Secret(name=name, tls_certificate=self._certificate)
        return Resource(SECRET, name, secret.SerializeToString())

    async def _stream(
        self, requests: AsyncIterator[bytes], _: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[bytes]:
        answered: Sequence[str] = ()
        async for raw in requests:
            names = list(discovery_pb2.DiscoveryRequest.FromString(raw).resource_names)
            if names != answered:
                answered = names
                yield sotw_response(SECRET, map(self.of, names), "1", "1")
