"""The ADS service: one task reads a stream's requests, one writes what its state machine says; both are bounded.

A slow reader holds back nobody: nothing is queued for it but the newest state, since responses are made when the
transport takes them. Messages travel as bytes: requests are parsed here, responses are spliced in windward.xds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import grpc
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from services.pilot import metrics
from services.pilot.model.proxy import Proxy, ProxyRejected
from services.pilot.model.source import GroupView, ResourceSource
from services.pilot.xds.connected import Connected, ConnectedProxies
from windward.rpc.errors import denied, invalid, unavailable
from windward.rpc.peer import peer_expiry, peer_identity
from windward.telemetry.logging import get_logger
from windward.xds.resource import TYPE_PREFIX
from windward.xds.stream import DeltaRequest, DeltaStream, SotwRequest, SotwStream

log = get_logger()
SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
MOST_NAMES = 100_000
LONGEST_NODE = 64 * 1024


class DiscoveryServer:
    """Serves the resources of a source to the proxies that prove to be who they say."""

    def __init__(
        self, source: ResourceSource, connected: ConnectedProxies, stopping: asyncio.Event
    ) -> None:
        self._source = source
        self._connected = connected
        self._stopping = stopping
        self.ready: Callable[[], bool] = lambda: True

    def handlers(self) -> grpc.GenericRpcHandler:
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(self.stream),
            "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(self.delta),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def delta(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[bytes]:
        async for response in self._serve(requests, context, _DELTA):
            yield response

    async def stream(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[bytes]:
        async for response in self._serve(requests, context, _SOTW):
            yield response

    async def _serve(
        self,
        requests: AsyncIterator[bytes],
        context: grpc.aio.ServicerContext[Any, Any],
        variant: _Variant,
    ) -> AsyncIterator[bytes]:
        if not self.ready():
            raise unavailable("this Pilot has not read the mesh's configuration yet")
        first = await anext(aiter(requests), None)
        if first is None:
            return
        request = variant.parse(first)
        proxy = _proxy(request.node, context)
        woken = asyncio.Event()
        view = await self._source.attach(proxy, woken.set)
        state = variant.state(view.current)
        number = self._connected.add(Connected(proxy, state, datetime.now(UTC)))
        metrics.CONNECTED.set(len(self._connected))
        log.info("xds.connected", proxy=proxy.id, identity=str(proxy.identity or ""))
        try:
            state.request(variant.event(request))
            async for response in self._pump(
                requests, (view, woken), state, variant, peer_expiry(context)
            ):
                yield response
        finally:
            view.detach()
            self._connected.remove(number)
            metrics.CONNECTED.set(len(self._connected))
            log.info("xds.disconnected", proxy=proxy.id)

    async def _pump(
        self,
        requests: AsyncIterator[bytes],
        source: tuple[GroupView, asyncio.Event],
        state: Any,
        variant: _Variant,
        expiry: datetime | None,
    ) -> AsyncIterator[bytes]:
        """Wait for whichever comes first: a request, a newer set, the end of the certificate, the end of the server."""
        iterator = aiter(requests)
        reading: asyncio.Future[bytes | None] = asyncio.ensure_future(_next(iterator))
        view, woken = source
        changing: asyncio.Future[Any] = asyncio.ensure_future(woken.wait())
        stopping = asyncio.ensure_future(self._stopping.wait())
        left_s = (expiry - datetime.now(UTC)).total_seconds() if expiry else None
        ending = asyncio.ensure_future(asyncio.sleep(left_s)) if left_s is not None else None
        waits = {reading, changing, stopping, *({ending} if ending else ())}
        try:
            while True:
                for response in state.take():
                    metrics.PUSHES.inc()
                    yield response
                done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if stopping in done or (ending is not None and ending in done):
                    return
                if changing in done:
                    woken.clear()
                    state.update(view.current)
                    waits.discard(changing)
                    changing = asyncio.ensure_future(woken.wait())
                    waits.add(changing)
                if reading in done:
                    raw = reading.result()
                    if raw is None:
                        return
                    event = variant.event(variant.parse(raw))
                    if event.error:
                        metrics.REJECTS.inc()
                        log.warning("xds.nack", type=event.type_url, error=event.error[:500])
                    state.request(event)
                    waits.discard(reading)
                    reading = asyncio.ensure_future(_next(iterator))
                    waits.add(reading)
        finally:
            for task in waits:
                task.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


async def _next(iterator: AsyncIterator[bytes]) -> bytes | None:
    return await anext(iterator, None)


def _proxy(node: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Proxy:
    """The proxy of a first request's node. Refuses what is oversized or not what its certificate says."""
    if node.ByteSize() > LONGEST_NODE:
        raise invalid(
            f"the node message has {node.ByteSize()} bytes, at most {LONGEST_NODE} are taken"
        )
    identity = peer_identity(context)
    try:
        metadata = json_format.MessageToDict(node.metadata)
    except (ValueError, RecursionError) as error:
        raise invalid("the node's metadata is not readable") from error
    try:
        return Proxy.from_node(node.id, metadata, identity)
    except ProxyRejected as error:
        raise denied(str(error)) from error


class _Variant:
    """What differs between the two protocols, as data."""

    def __init__(self, message: Any, state: Any, event: Callable[[Any], Any]) -> None:
        self._message = message
        self.state = state
        self._event = event

    def parse(self, raw: bytes) -> Any:
        try:
            return self._message.FromString(raw)
        except DecodeError as error:
            raise invalid("the request is not a discovery request") from error

    def event(self, request: Any) -> Any:
        if not request.type_url.startswith(TYPE_PREFIX):
            raise invalid(f"unknown type URL {request.type_url[:200]!r}")
        return self._event(request)


def _delta_event(request: Any) -> DeltaRequest:
    if (
        len(request.resource_names_subscribe) > MOST_NAMES
        or len(request.initial_resource_versions) > MOST_NAMES
    ):
        raise invalid(f"more than {MOST_NAMES} resource names")
    return DeltaRequest(
        type_url=request.type_url,
        nonce=request.response_nonce,
        error=(request.error_detail.message or "refused")
        if request.HasField("error_detail")
        else "",
        subscribe=tuple(request.resource_names_subscribe),
        unsubscribe=tuple(request.resource_names_unsubscribe),
        initial_versions=dict(request.initial_resource_versions),
    )


def _sotw_event(request: Any) -> SotwRequest:
    if len(request.resource_names) > MOST_NAMES:
        raise invalid(f"more than {MOST_NAMES} resource names")
    return SotwRequest(
        type_url=request.type_url,
        names=tuple(request.resource_names),
        nonce=request.response_nonce,
        error=(request.error_detail.message or "refused")
        if request.HasField("error_detail")
        else "",
    )


_DELTA = _Variant(discovery_pb2.DeltaDiscoveryRequest, DeltaStream, _delta_event)
_SOTW = _Variant(discovery_pb2.DiscoveryRequest, SotwStream, _sotw_event)
