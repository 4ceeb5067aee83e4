"""A server that speaks etcd's wire and does what a test's script says: the failures a real one shows too seldom."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc

from windward.api.store.v1 import etcd_pb2 as wire

Unary = Callable[[Any, Any], Awaitable[Any]]
Stream = Callable[[AsyncIterator[Any], Any], AsyncIterator[Any]]
REQUESTS: dict[str, Any] = {
    "/etcdserverpb.KV/Range": wire.RangeRequest,
    "/etcdserverpb.KV/Txn": wire.TxnRequest,
    "/etcdserverpb.Auth/Authenticate": wire.AuthenticateRequest,
    "/etcdserverpb.Lease/LeaseGrant": wire.LeaseGrantRequest,
    "/etcdserverpb.Lease/LeaseRevoke": wire.LeaseRevokeRequest,
    "/etcdserverpb.Lease/LeaseKeepAlive": wire.LeaseKeepAliveRequest,
    "/etcdserverpb.Watch/Watch": wire.WatchRequest,
}


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, unary: Mapping[str, Unary], streams: Mapping[str, Stream]) -> None:
        self._unary, self._streams = unary, streams

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        method = details.method
        if method in self._unary:
            return grpc.unary_unary_rpc_method_handler(
                self._unary[method],
                request_deserializer=REQUESTS[method].FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
        if method in self._streams:
            script = self._streams[method]

            async def answer(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
                async for response in script(requests, context):
                    yield response

            return grpc.stream_stream_rpc_method_handler(
                answer,
                request_deserializer=REQUESTS[method].FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
        return None


@asynccontextmanager
async def serving(
    unary: Mapping[str, Unary] | None = None,
    streams: Mapping[str, Stream] | None = None,
) -> AsyncIterator[str]:
    """A server on a free loopback port; yields its address."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((_Handlers(unary or {}, streams or {}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


def header(revision: int, cluster: int = 1) -> wire.ResponseHeader:
    return wire.ResponseHeader(cluster_id=cluster, revision=revision)


def put_event(key: str, revision: int, value: bytes = b"v") -> wire.Event:
    kv = wire.KeyValue(
        key=key.encode(), value=value, create_revision=revision, mod_revision=revision, version=1
    )
    return wire.Event(type=wire.Event.PUT, kv=kv)


def delete_event(key: str, revision: int) -> wire.Event:
    return wire.Event(
        type=wire.Event.DELETE, kv=wire.KeyValue(key=key.encode(), mod_revision=revision)
    )
