"""SDS: the workload's certificate and roots, and those of mounted files, pushed whenever they change.

Incremental, state of the world and fetch. A key leaves this process only to its own Envoy, over a socket that only
Envoy's user can open. Source: Envoy service/secret/v3/sds.proto.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from services.agent.sds.store import SecretStore
from services.agent.sds.stream import DeltaSecrets, SotwSecrets, whole_response
from services.agent.xds_proxy.wire import (
    WireError,
    message_of,
    read_request,
    read_sotw_request,
)
from windward.rpc.errors import invalid, not_found
from windward.telemetry.logging import get_logger

log = get_logger()
SERVICE = "envoy.service.secret.v3.SecretDiscoveryService"
MOST_NAMES = 1000


class SecretServer:
    def __init__(self, store: SecretStore) -> None:
        self._store = store
        self.pushes = 0
        self.rejected = 0

    @property
    def file_failures(self) -> int:
        return self._store.file_failures

    def handlers(self) -> grpc.GenericRpcHandler:
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "DeltaSecrets": grpc.stream_stream_rpc_method_handler(self.delta),
            "StreamSecrets": grpc.stream_stream_rpc_method_handler(self.stream),
            "FetchSecrets": grpc.unary_unary_rpc_method_handler(self.fetch),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def fetch(self, raw: bytes, _: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        """All that are named, or an error that names the first one that does not exist."""
        request = _read(read_sotw_request, raw)
        self._check(request.names)
        self._store.want(request.names)
        current = self._store.current
        missing = [name for name in request.names if name not in current]
        if missing or not request.names:
            what = f"no secret {missing[0][:200]!r}" if missing else "no secret is named"
            raise not_found(
                f"{what}: default, ROOTCA and mounted files (file-cert:, file-root:) are"
            )
        return whole_response([current[name] for name in sorted(set(request.names))], "")

    async def delta(
        self, requests: AsyncIterator[bytes], _: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[bytes]:
        stream = DeltaSecrets()

        def take_in(raw: bytes) -> None:
            request = _read(read_request, raw)
            self._note(request.error)
            self._check(request.subscribe)
            stream.request(request)
            self._store.want(request.subscribe)

        async for response in self._pump(requests, stream, take_in):
            yield response

    async def stream(
        self, requests: AsyncIterator[bytes], _: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[bytes]:
        stream = SotwSecrets()

        def take_in(raw: bytes) -> None:
            request = _read(read_sotw_request, raw)
            self._note(request.error)
            self._check(request.names)
            stream.request(request)
            self._store.want(request.names)

        async for response in self._pump(requests, stream, take_in):
            yield response

    def _note(self, error: bytes | None) -> None:
        if error is not None:
            self.rejected += 1
            log.warning("secret.rejected", reason=message_of(error)[:500])

    def _check(self, names: tuple[str, ...]) -> None:
        if len(names) > MOST_NAMES:
            raise invalid(f"more than {MOST_NAMES} secrets")

    async def _pump(
        self,
        requests: AsyncIterator[bytes],
        stream: DeltaSecrets | SotwSecrets,
        take_in: Callable[[bytes], None],
    ) -> AsyncIterator[bytes]:
        """Whichever comes first: a request, or other secrets."""
        iterator = aiter(requests)
        store = self._store
        reading = asyncio.ensure_future(_next(iterator))
        changing = asyncio.ensure_future(store.changed(store.sequence))
        try:
            while True:
                for response in stream.take(store.current):
                    self.pushes += 1
                    yield response
                done, _ = await asyncio.wait(
                    {reading, changing}, return_when=asyncio.FIRST_COMPLETED
                )
                if changing in done:
                    changing = asyncio.ensure_future(store.changed(store.sequence))
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


def _read(reader: Callable[[bytes], Any], raw: bytes) -> Any:
    try:
        return reader(raw)
    except WireError as error:
        raise invalid(f"not a discovery request: {error}") from error


async def _next(iterator: AsyncIterator[bytes]) -> bytes | None:
    return await anext(iterator, None)
