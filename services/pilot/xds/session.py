"""One stream's shell: one coroutine reads requests, one writes what the state machine says; neither makes anything per push.

    wake() / request ──► writer:  next() ─► context.write ─► next() ... None ─► sleep

A slow reader holds back nobody: the next response is made, of the newest state, when the transport has taken the one
before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import grpc

from services.pilot import metrics
from services.pilot.model.proxy import Proxy
from services.pilot.model.source import GroupView
from services.pilot.xds.admission import Place
from services.pilot.xds.requests import MOST_NAMES, AnyStream, Variant
from windward.rpc.errors import invalid
from windward.telemetry.logging import get_logger
from windward.xds.resource import ResourceSet
from windward.xds.stream import HeldKey, Refusal, TypeState

log = get_logger()


class Waker:
    """One waits, anybody wakes; a wake that finds nobody waiting is kept."""

    __slots__ = ("_set", "_waiter")

    def __init__(self) -> None:
        self._set = False
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        self._set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        """Until the next wake: what was woken for before is the waiter's to know."""
        if not self._set:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._set = False


@dataclass(slots=True)
class Judgement:
    """What proxies and the engine tell each other about resources, one object for all streams."""

    held: Mapping[HeldKey, object] = field(default_factory=dict)
    """Versions that are withheld from every proxy that does not have them; replaced whole."""
    on_answer: Callable[[Proxy, TypeState, tuple[Refusal, ...]], None] = lambda *_: None
    """Told of every ACK and NACK, with the type's state after it and the resources found bad."""
    on_synced: Callable[[ResourceSet, int], None] = lambda *_: None
    """Told when a client has answered all of a set, with the version of the last one that it had answered; 0: none."""


class Session:
    """A proxy that is connected, and what it has."""

    def __init__(
        self, proxy: Proxy, variant: Variant, view: GroupView, judgement: Judgement
    ) -> None:
        self.proxy = proxy
        self.stream: AnyStream = variant.stream(view.current)
        self._judgement = judgement
        self._variant = variant
        self.view = view
        self._synced = 0

    def take_in(self, request: Any) -> None:
        """A request that was parsed. RefusedError for one that is no request of this stream."""
        event, stream = self._variant.of(request), self.stream
        expired = stream.expired
        found = stream.request(event, monotonic())
        state = stream.types.get(event.type_url)
        if state is not None and len(state.subscription.names) > MOST_NAMES:
            raise invalid(f"more than {MOST_NAMES} resource names in all")
        if event.error:
            metrics.REJECTS.inc()
            log.warning(
                "xds.nack", proxy=self.proxy.id, type=event.type_url, error=event.error[:500]
            )
        if stream.expired != expired:
            metrics.EXPIRED.inc()
        elif event.nonce and state is not None:
            self._judgement.on_answer(self.proxy, state, found)

    async def read(self, requests: AsyncIterator[bytes], waker: Waker) -> None:
        """Until the client has said its last."""
        parse = self._variant.parse
        async for raw in requests:
            self.take_in(parse(raw))
            waker.wake()

    async def write(
        self, context: grpc.aio.ServicerContext[Any, Any], waker: Waker, place: Place
    ) -> None:
        """For ever, or until the transport is gone."""
        stream, record = self.stream, metrics.PUSHED.record
        while True:
            begun = monotonic()
            current, held = self.view.current, self._judgement.held
            if current is not stream.current or held is not stream.held:
                stream.update(current, held)
            response = stream.next()
            if response is None:
                if stream.settled:
                    place.leave()
                    if stream.current.version > self._synced:
                        self._judgement.on_synced(stream.current, self._synced)
                        self._synced = stream.current.version
                await waker.wait()
                continue
            made = monotonic()
            try:
                await context.write(response)
            except grpc.aio.BaseError:
                return
            record(stream.sent_type, len(response), made - begun, monotonic() - made)
