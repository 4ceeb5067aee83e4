"""The xDS proxy: Envoy's stream on the unix socket, one stream up to a Pilot; a Pilot that goes is replaced unseen.

The newest downstream wins. Delta streams survive a change of Pilot (session.py); a state-of-the-world stream ends with
its Pilot, and Envoy opens it again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
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
"""Ends a downstream."""


class XdsProxy:
    def __init__(self, channels: ChannelSource) -> None:
        self._channels = channels
        self._current: _Relay | None = None
        self.reconnects = 0
        """How often an upstream has ended or could not be opened."""

    @property
    def connected(self) -> bool:
        """Whether Envoy's stream reaches a Pilot now."""
        return self._current is not None and self._current.attached

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
        if self._current is not None:
            self._current.supersede()
        relay = self._current = _Relay(self._channels, self._count)
        tasks = [
            asyncio.create_task(relay.read_envoy(requests)),
            asyncio.create_task(relay.keep_upstream()),
        ]
        try:
            while (response := await relay.downward.get()) is not END:
                yield response
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._current is relay:
                self._current = None

    def _count(self) -> None:
        self.reconnects += 1


class _Relay:
    """One downstream, and whichever upstream it has.

    Invariant: while ``attached``, everything that Envoy asks goes through ``upward`` to the present upstream, in order;
    otherwise it only reaches the session, which tells it all to the next one.
    """

    def __init__(self, channels: ChannelSource, count: Callable[[], None]) -> None:
        self._channels = channels
        self._count = count
        self._session = DeltaSession()
        self._upward: asyncio.Queue[bytes] = asyncio.Queue()
        self._opened = asyncio.Event()
        self.downward: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUE)
        self.attached = False

    def supersede(self) -> None:
        """A newer downstream has come: this one ends, whatever it still had to say."""
        while not self.downward.empty():
            self.downward.get_nowait()
        self.downward.put_nowait(END)

    async def read_envoy(self, requests: AsyncIterator[bytes]) -> None:
        async for raw in requests:
            passed = self._session.from_envoy(raw)
            if passed is not None and self.attached:
                if self._upward.qsize() >= QUEUE:
                    break  # a Pilot that reads nothing: Envoy opens its stream again
                self._upward.put_nowait(passed)
            self._opened.set()
        await self.downward.put(END)

    async def keep_upstream(self) -> None:
        """A stream to some Pilot, for ever."""
        await self._opened.wait()
        loop = asyncio.get_running_loop()
        backoff_s = FIRST_BACKOFF_S
        while True:
            began = loop.time()
            try:
                await self._one_upstream()
            except grpc.aio.AioRpcError as error:
                reason = f"{error.code().name}: {error.details()}"
                log.warning("xds.upstream_broken", pilot=self._channels.address, reason=reason)
            self.attached = False
            self._count()
            self._channels.next_address()
            if loop.time() - began > LONGEST_BACKOFF_S:
                backoff_s = FIRST_BACKOFF_S
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.5))  # noqa: S311  jitter, not a secret
            backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)

    async def _one_upstream(self) -> None:
        method: Any = self._channels.channel().stream_stream(f"/{SERVICE}/DeltaAggregatedResources")
        call = method()
        # Without an await between: what Envoy asks from here on goes behind what it has asked before.
        self._upward = asyncio.Queue()
        for request in self._session.reopen():
            self._upward.put_nowait(request)
        self.attached = True
        writer = asyncio.create_task(_write(call, self._upward))
        try:
            while (response := await call.read()) is not grpc.aio.EOF:
                self._session.from_pilot(response)
                await self.downward.put(response)
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            call.cancel()


async def _write(call: Any, upward: asyncio.Queue[bytes]) -> None:
    while True:
        await call.write(await upward.get())
