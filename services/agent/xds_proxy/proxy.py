"""The xDS proxy: Envoy's stream on the unix socket, one stream up to a Pilot; a Pilot that goes is replaced unseen.

The newest downstream wins. Delta streams survive a change of Pilot (session.py); a state-of-the-world stream ends with
its Pilot, and Envoy opens it again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import grpc

from services.agent.xds_proxy.session import DeltaSession
from windward.rpc.channel import ChannelSource
from windward.rpc.errors import unavailable
from windward.telemetry.logging import get_logger

log = get_logger()
SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
QUEUE = 256
FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 5.0
END = None


class XdsProxy:
    def __init__(self, channels: ChannelSource) -> None:
        self._channels = channels
        self._newest = 0
        self.connected = False
        self.reconnects = 0

    def handlers(self) -> grpc.GenericRpcHandler:
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(self.delta),
            "StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(self.stream),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def stream(
        self, requests: AsyncIterator[bytes], _: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[bytes]:
        """State of the world: passed through as it is."""
        method: Any = self._channels.channel().stream_stream(
            f"/{SERVICE}/StreamAggregatedResources"
        )
        call = method(requests)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            self._channels.next_address()
            raise unavailable(f"Pilot has gone: {error.details()}") from error
        finally:
            call.cancel()

    async def delta(
        self, requests: AsyncIterator[bytes], _: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[bytes]:
        self._newest += 1
        mine = self._newest
        session = DeltaSession()
        upward: asyncio.Queue[bytes] = asyncio.Queue(QUEUE)
        downward: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUE)
        opened = asyncio.Event()
        tasks = [
            asyncio.create_task(self._read_envoy(requests, session, upward, downward, opened)),
            asyncio.create_task(self._keep_upstream(session, upward, downward, opened)),
        ]
        try:
            while mine == self._newest:
                response = await downward.get()
                if response is END:
                    return
                yield response
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.connected = False

    async def _read_envoy(
        self,
        requests: AsyncIterator[bytes],
        session: DeltaSession,
        upward: asyncio.Queue[bytes],
        downward: asyncio.Queue[bytes | None],
        opened: asyncio.Event,
    ) -> None:
        async for raw in requests:
            passed = session.from_envoy(raw)
            if passed is not None and (self.connected or not opened.is_set()):
                await upward.put(passed)
            opened.set()
        await downward.put(END)

    async def _keep_upstream(
        self,
        session: DeltaSession,
        upward: asyncio.Queue[bytes],
        downward: asyncio.Queue[bytes | None],
        opened: asyncio.Event,
    ) -> None:
        """A stream to some Pilot, for ever."""
        await opened.wait()
        backoff_s = FIRST_BACKOFF_S
        first = True
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._one_upstream(session, upward, downward, first=first)
            except grpc.aio.AioRpcError as error:
                log.warning(
                    "xds.upstream_broken",
                    pilot=self._channels.address,
                    reason=f"{error.code().name}: {error.details()}",
                )
            self.connected = False
            self.reconnects += 1
            first = False
            self._channels.next_address()
            if asyncio.get_running_loop().time() - began > LONGEST_BACKOFF_S:
                backoff_s = FIRST_BACKOFF_S
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.5))  # noqa: S311  jitter, not a secret
            backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)

    async def _one_upstream(
        self,
        session: DeltaSession,
        upward: asyncio.Queue[bytes],
        downward: asyncio.Queue[bytes | None],
        *,
        first: bool,
    ) -> None:
        call: Any = self._channels.channel().stream_stream(f"/{SERVICE}/DeltaAggregatedResources")(
            wait_for_ready=False
        )
        try:
            if not first:
                while not upward.empty():
                    upward.get_nowait()
                for request in session.reopen():
                    await call.write(request)
            self.connected = True
            writer = asyncio.create_task(_write(call, upward))
            try:
                while (response := await call.read()) is not grpc.aio.EOF:
                    session.from_pilot(response)
                    await downward.put(response)
            finally:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
        finally:
            call.cancel()


async def _write(call: Any, upward: asyncio.Queue[bytes]) -> None:
    while True:
        await call.write(await upward.get())
