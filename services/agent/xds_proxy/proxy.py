"""The xDS proxy: Envoy's delta stream on the unix socket, one stream up to a Pilot; a Pilot that goes is replaced unseen.

    Envoy ── delta ──> Session over the Cache ── delta, mTLS ──> one of the Pilots
                          └── name tables ──> DNS

The newest downstream wins. Our Envoys speak delta (envoy/bootstrap.py); state of the world is refused. The stream up lives
as long as Envoy's: an Envoy that comes back is answered from the cache and Pilot is asked for differences.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from time import time
from typing import Any

import grpc

from services.agent.xds_proxy.cache import Cache
from services.agent.xds_proxy.pilots import Attempts
from services.agent.xds_proxy.session import NameSink, Session, Turn
from services.agent.xds_proxy.wire import WireError, message_of, read_request, read_response
from windward.rpc.channel import ChannelSource
from windward.rpc.errors import RefusedError, invalid
from windward.telemetry.logging import get_logger
from windward.xds.resource import CLUSTER, LISTENER

log = get_logger()
SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
POSITION_KEY = "windward-position"
"""Metadata: how far the Pilot was that this agent was told by last; one that lags behind it waits."""
QUEUE = 256
CONNECT_S = 5.0
"""A Pilot that has not finished its handshake by then is left."""
STEADY_S = 5.0
"""A stream that lived this long was one, even if Pilot had nothing to say."""
SETTLED_S = 60.0
"""After that long an Envoy has asked for all it will ask for."""
HELD = frozenset({CLUSTER, LISTENER})
END = None
"""Ends a downstream."""


class Leaving(Exception):
    """The present Pilot is no longer the one to talk to; says why."""


class Counts:
    """What has passed, for metrics."""

    def __init__(self) -> None:
        self.connected_until = 0.0
        """When the last stream to a Pilot ended, in seconds since the epoch; 0: none has yet."""
        self.reconnects = 0
        """Upstreams that have ended or could not be opened."""
        self.requests = 0
        self.responses = 0
        """Of Pilots, name tables among them."""
        self.resources = 0
        """Resources that Pilots have sent or removed."""
        self.rejected = 0
        """Responses that Envoy has refused."""
        self.served_from_cache = 0
        """Responses that no Pilot was asked for."""


class XdsProxy:
    def __init__(
        self,
        channels: ChannelSource,
        cache: Cache | None = None,
        *,
        names: NameSink | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self.cache = cache if cache is not None else Cache()
        self.counts = Counts()
        self._channels = channels
        self._names = names
        self._chance = chance or random.Random()  # noqa: S311  jitter, not a secret
        self._current: _Relay | None = None
        self._holding = False

    def hold(self) -> None:
        """From now on Envoy keeps the clusters and listeners it has.

        For a workload that leaves: a Pilot that no longer knows it takes its inbound ones away, while requests still come.
        """
        self._holding = True
        if self._current is not None:
            self._current.holding = True

    @property
    def pilot(self) -> str:
        """The one that is talked to, or tried."""
        return self._channels.address

    @property
    def connected(self) -> bool:
        """Whether Envoy's stream reaches a Pilot now."""
        return self._current is not None and self._current.attached

    def live_until(self) -> float:
        """When a Pilot last stood behind what Envoy has: now, while one does; 0: none has yet."""
        return time() if self.connected else self.counts.connected_until

    def handlers(self) -> grpc.GenericRpcHandler:
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(self.delta),
            "StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(self.stream),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def stream(
        self, _requests: AsyncIterator[bytes], _: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        raise RefusedError(
            grpc.StatusCode.UNIMPLEMENTED,
            "the agent speaks incremental xDS only: set api_type DELTA_GRPC in ads_config",
        )

    async def delta(
        self, requests: AsyncIterator[bytes], _: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[bytes]:
        if self._current is not None:
            self._current.supersede()
        session = Session(self.cache, self._names)
        attempts = Attempts(len(self._channels.addresses), self._chance)
        relay = self._current = _Relay(self._channels, session, self.cache, attempts, self.counts)
        relay.holding = self._holding
        tasks = [
            asyncio.create_task(relay.read_envoy(requests)),
            asyncio.create_task(relay.keep_upstream()),
            asyncio.create_task(_prune_later(session)),
        ]
        try:
            while (response := await relay.downward.get()) is not END:
                yield response
            if relay.refusal is not None:
                raise relay.refusal
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._current is relay:
                self._current = None


class _Relay:
    """One downstream, and whichever upstream it has.

    Invariant: while ``attached``, everything that Envoy asks goes through ``upward`` to the present upstream, in order;
    otherwise it only reaches the session, which tells it all to the next one.
    """

    def __init__(
        self,
        channels: ChannelSource,
        session: Session,
        cache: Cache,
        attempts: Attempts,
        counts: Counts,
    ) -> None:
        self._channels = channels
        self._session = session
        self._cache = cache
        self._attempts = attempts
        self._counts = counts
        self._upward: asyncio.Queue[bytes] = asyncio.Queue()
        self._opened = asyncio.Event()
        self._leave: asyncio.Future[str] | None = None
        self.downward: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUE)
        self.attached = False
        self.holding = False
        self.refusal: RefusedError | None = None
        """Why the downstream has ended, if Envoy is to be told."""

    def supersede(self) -> None:
        """A newer downstream has come: this one ends, whatever it still had to say."""
        while not self.downward.empty():
            self.downward.get_nowait()
        self.downward.put_nowait(END)

    async def read_envoy(self, requests: AsyncIterator[bytes]) -> None:
        try:
            async for raw in requests:
                if not await self._take_in(raw):
                    break  # a Pilot that reads nothing: Envoy opens its stream again
        except WireError as error:
            self.refusal = invalid(f"not a discovery request: {error}")
        finally:
            # Not awaited: a queue that nobody reads any more would hold this task for ever.
            if self.downward.full():
                self.supersede()
            else:
                self.downward.put_nowait(END)

    async def _take_in(self, raw: bytes) -> bool:
        """One request of Envoy's. False if Pilot does not take what it is told."""
        self._counts.requests += 1
        request = read_request(raw)
        if request.error is not None:
            self._counts.rejected += 1
            reason = message_of(request.error)[:500]
            log.warning("xds.rejected", type=request.type_url, reason=reason)
        turn = self._session.from_envoy(request)
        passed = self._pass_up(turn)
        self._opened.set()
        for response in turn.down:
            self._counts.served_from_cache += 1
            await self.downward.put(response)
        return passed

    def _pass_up(self, turn: Turn) -> bool:
        """False if Pilot does not take what it is told."""
        if turn.reopen:
            self._leave_pilot("Envoy has refused what it was given from the cache")
        if self.attached and turn.up:
            if self._upward.qsize() >= QUEUE:
                return False
            for request in turn.up:
                self._upward.put_nowait(request)
        return True

    def _leave_pilot(self, reason: str) -> None:
        if self._leave is not None and not self._leave.done():
            self._leave.set_result(reason)

    async def keep_upstream(self) -> None:
        """A stream to some Pilot, for ever."""
        await self._opened.wait()
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._one_upstream()
                reason = "it ended the stream"
            except grpc.aio.AioRpcError as error:
                reason = f"{error.code().name}: {error.details()}"
            except (Leaving, WireError, TimeoutError) as error:
                reason = str(error) or "no connection in time"
            self.attached = False
            self._session.lose_upstream()
            self._counts.reconnects += 1
            if loop.time() - began > STEADY_S:
                self._attempts.served()
            wait_s = self._attempts.wait_s()
            log.warning("xds.upstream_left", pilot=self._channels.address, reason=reason)
            self._channels.next_address()
            await asyncio.sleep(wait_s)

    async def _one_upstream(self) -> None:
        channel = self._channels.channel()
        async with asyncio.timeout(CONNECT_S):
            await _connected(channel)
        method: Any = channel.stream_stream(f"/{SERVICE}/DeltaAggregatedResources")
        position = self._cache.revision
        call = method(metadata=((POSITION_KEY, position),) if position else ())
        # Without an await between: what Envoy asks from here on goes behind what it has asked before.
        self._upward = asyncio.Queue()
        for request in self._session.open_upstream():
            self._upward.put_nowait(request)
        self.attached = True
        self._leave = asyncio.get_running_loop().create_future()
        tasks: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(self._read_pilot(call)),
            asyncio.ensure_future(_write(call, self._upward)),
            asyncio.ensure_future(_going_away(channel)),
            self._leave,
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._leave in done:
                raise Leaving(self._leave.result())
            for task in done:
                task.result()
        finally:
            self._counts.connected_until = time()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            call.cancel()

    async def _read_pilot(self, call: Any) -> None:
        while (raw := await call.read()) is not grpc.aio.EOF:
            self._attempts.served()
            if self.holding and read_response(raw).type_url in HELD:
                continue
            self._counts.responses += 1
            turn = self._session.from_pilot(raw)
            self._counts.resources += turn.moved
            if not self._pass_up(turn):
                raise Leaving("it reads nothing")
            for response in turn.down:
                await self.downward.put(response)
        code = await call.code()
        if code is not grpc.StatusCode.OK:
            raise Leaving(f"{code.name}: {await call.details()}")


async def _write(call: Any, upward: asyncio.Queue[bytes]) -> None:
    """Ends when the stream does, whose status its reader tells."""
    with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
        while True:
            await call.write(await upward.get())
    await asyncio.Event().wait()


async def _connected(channel: grpc.aio.Channel) -> None:
    """Wait until the channel stands. Raises Leaving as soon as an attempt has failed."""
    state = channel.get_state(try_to_connect=True)
    while state is not grpc.ChannelConnectivity.READY:
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            raise Leaving("it cannot be reached")


async def _going_away(channel: grpc.aio.Channel) -> None:
    """Raises Leaving when the connection is no longer one for new streams: GOAWAY, or its end."""
    while channel.get_state() is grpc.ChannelConnectivity.READY:
        await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
    # The stream's own end, if that is why, says more: it is given the chance to be first.
    await asyncio.sleep(0.05)
    raise Leaving("it is going away")


async def _prune_later(session: Session) -> None:
    await asyncio.sleep(SETTLED_S)
    session.prune()
