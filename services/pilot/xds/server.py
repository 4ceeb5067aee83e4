"""Discovery over gRPC: who may open a stream, when it starts, what ends it. Messages travel as bytes.

    first request -> who is it -> a place to sync in -> its group's view -> Session until somebody ends it

A stream ends, without an error, when its client is done, when its certificate expires, when it is old, and on drain:
clients then come again, here or at another Pilot, and say what they have.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import partial
from random import random
from typing import Any, Final

from google.protobuf import json_format

from services.pilot import metrics
from services.pilot.model.position import Position
from services.pilot.model.proxy import Proxy, ProxyRejected
from services.pilot.model.source import ResourceSource
from services.pilot.reach import Behind, Reach
from services.pilot.xds.admission import Admission
from services.pilot.xds.connected import Connected, ConnectedProxies
from services.pilot.xds.ending import Ending
from services.pilot.xds.limits import Limits
from services.pilot.xds.requests import ADS, SERVICES, Variant, delta, sotw
from services.pilot.xds.session import Judgement, Session, Waker
from windward.rpc.errors import denied, exhausted, invalid, late, unavailable
from windward.rpc.http2.call import Call
from windward.rpc.http2.context import Behaviour
from windward.rpc.peer import peer_expiry, peer_identity
from windward.slices import Turns, in_slices
from windward.telemetry.logging import get_logger
from windward.xds.resource import ResourceSet
from windward.xds.stream import HeldKey, Refusal, TypeState

log = get_logger()
LONGEST_NODE: Final = 64 * 1024
POSITION_KEY: Final = "windward-position"
"""Metadata of a stream: how much of the store its client has seen, in the words of an earlier response's version."""
BATCH: Final = 50
"""Streams that are ended or woken before others get their turn."""


class DiscoveryServer:
    """Serves the resources of a source to the proxies that prove to be who they say."""

    def __init__(
        self,
        source: ResourceSource,
        connected: ConnectedProxies,
        limits: Limits = Limits(),  # noqa: B008  frozen
        jitter: Callable[[], float] = random,
    ) -> None:
        self._source = source
        self.connected = connected
        self._limits = limits
        self._jitter = jitter
        self._admission = Admission(limits.first_syncs, limits.first_sync_s)
        self._turns = Turns()
        self._open: dict[Ending, Waker] = {}
        self._judgement = Judgement()
        self._draining = False
        self._empty = asyncio.Event()
        self.ready: asyncio.Event | None = None
        """Set once there is something to serve. Who comes before waits: to be sent away and come again costs more."""
        self.reach: Reach | None = None
        """Given one, no client is served less of the store than it has seen elsewhere."""

    def behaviours(self) -> dict[str, Behaviour]:
        """ADS, and the services of one type, by method."""
        found = {
            f"/{ADS}/StreamAggregatedResources": sotw(),
            f"/{ADS}/DeltaAggregatedResources": delta(),
        }
        for service, (ending, only) in SERVICES.items():
            found[f"/{service}/Stream{ending}"] = sotw(only)
            found[f"/{service}/Delta{ending}"] = delta(only)
        return {method: partial(self.serve, variant) for method, variant in found.items()}

    def tell(
        self,
        on_answer: Callable[[Proxy, TypeState, tuple[Refusal, ...]], None],
        on_synced: Callable[[ResourceSet, int], None] = lambda *_: None,
    ) -> None:
        """Call these at every ACK and NACK, and when a client has answered all of a newer set: see Judgement."""
        self._judgement.on_answer = on_answer
        self._judgement.on_synced = on_synced

    async def hold(self, held: Mapping[HeldKey, object]) -> None:
        """Withhold these versions, and no others, from every proxy that does not have them."""
        self._judgement.held = held
        for number, waker in enumerate(list(self._open.values()), 1):
            waker.wake()
            if number % BATCH == 0:
                await asyncio.sleep(0)

    async def drain(self) -> None:
        """End every stream, and open no more; returns when the last one has ended."""
        self._draining = True
        for number, ending in enumerate(list(self._open), 1):
            ending.end("drain")
            if number % BATCH == 0:
                await asyncio.sleep(0)
        if self._open:
            await self._empty.wait()

    async def serve(self, variant: Variant, call: Call) -> None:
        """One stream, to its end. RefusedError for one that is not served."""
        if self._draining:
            raise unavailable("this Pilot is going away")
        if len(self._open) >= self._limits.streams:
            raise exhausted(
                f"this Pilot has {self._limits.streams} streams, its most; try another one"
            )
        ending, waker = Ending(), Waker()
        async with ending:
            self._open[ending] = waker
            timer = self._timer(ending, peer_expiry(call))
            try:
                await self._until_ready()
                await self._converse(variant, call, waker)
            finally:
                self._close(ending)
                if timer is not None:
                    timer.cancel()
        if ending.reason:
            log.info("xds.ended", reason=ending.reason)

    def _close(self, ending: Ending) -> None:
        del self._open[ending]
        if self._draining and not self._open:
            self._empty.set()

    def _timer(self, ending: Ending, expiry: datetime | None) -> asyncio.TimerHandle | None:
        """Ends the stream with its peer's certificate, or when it is old."""
        ends: list[tuple[float, str]] = []
        limits = self._limits
        if expiry is not None:
            left_s = (expiry - datetime.now(UTC)).total_seconds()
            ends.append((max(left_s, 0.0), "certificate expired"))
        if limits.longest_age_s:
            part = 1 + limits.age_jitter * (2 * self._jitter() - 1)
            ends.append((limits.longest_age_s * part, "age"))
        if not ends:
            return None
        after_s, reason = min(ends)
        return asyncio.get_running_loop().call_later(after_s, ending.end, reason)

    async def _converse(self, variant: Variant, call: Call, waker: Waker) -> None:
        await self._begun(call)
        await self._catch_up(call)
        # Requests are taken in by those who have a place: of a thousand that come again, each with the versions of all that it
        # has, the others' stay with them.
        async with self._admission.enter() as place:
            await self._turns.next()
            first = await self._first(call)
            if first is None:
                return
            request = await in_slices(variant.parsing(first))
            proxy, version = self._proxy(request.node, call)
            view = await self._source.attach(proxy, waker.wake)
            try:
                session = Session(proxy, variant, view, self._judgement)
                await in_slices(session.taking_in(request))
                # Of a client that comes again they are long, and this frame lives as long as the stream.
                del first, request
                with self._connect(session, version):
                    await session.run(call, waker, place, self._turns)
            finally:
                view.detach()

    async def _catch_up(self, call: Call) -> None:
        """Wait until this Pilot is as far as the client is."""
        if self.reach is None:
            return
        said = [value for key, value in call.invocation_metadata() if key == POSITION_KEY]
        if not said:
            return
        try:
            position = Position.parse(str(said[-1]))
        except ValueError as error:
            # Of a Pilot that counted otherwise: the client has nothing that this one could be behind of.
            log.info("xds.position_unknown", reason=str(error))
            return
        try:
            await self.reach.until(position, self._limits.behind_s)
        except Behind as error:
            raise unavailable(str(error)) from error

    async def _until_ready(self) -> None:
        if self.ready is None or self.ready.is_set():
            return
        try:
            async with asyncio.timeout(self._limits.ready_s):
                await self.ready.wait()
        except TimeoutError:
            raise unavailable("this Pilot has not read the mesh's configuration yet") from None

    async def _begun(self, call: Call) -> None:
        async with self._patience():
            await call.heard()

    async def _first(self, call: Call) -> bytes | None:
        """The first request; None when the client ends without one."""
        async with self._patience():
            return await call.receive()

    @asynccontextmanager
    async def _patience(self) -> AsyncIterator[None]:
        """For so long a client may hold a stream, or a place, without saying what it wants."""
        try:
            async with asyncio.timeout(self._limits.first_request_s):
                yield
        except TimeoutError:
            raise late(
                f"no request within {self._limits.first_request_s:g} s of opening the stream"
            ) from None

    def _proxy(self, node: Any, call: Call) -> tuple[Proxy, str]:
        """The proxy of a first request's node, and its version. Refuses what is oversized or not what its certificate says."""
        size = node.ByteSize()
        if size > LONGEST_NODE:
            raise invalid(f"the node message has {size} bytes, at most {LONGEST_NODE} are taken")
        identity = peer_identity(call)
        most = self._limits.streams_per_identity
        if identity is not None and self.connected.of(identity) >= most:
            raise exhausted(f"{identity} has {most} streams here, its most")
        try:
            metadata = json_format.MessageToDict(node.metadata)
        except (ValueError, RecursionError) as error:
            raise invalid("the node's metadata is not readable") from error
        try:
            proxy = Proxy.from_node(node.id, metadata, identity)
        except ProxyRejected as error:
            raise denied(str(error)) from error
        return proxy, str(metadata.get("ISTIO_VERSION") or metadata.get("WINDWARD_VERSION") or "")

    @contextmanager
    def _connect(self, session: Session, version: str) -> Iterator[None]:
        """The proxy is among those that are connected."""
        proxy = session.proxy
        connected = Connected(proxy, session.stream, datetime.now(UTC), session.view)
        number = self.connected.add(connected)
        metrics.connected(version, 1)
        log.info("xds.connected", proxy=proxy.id, identity=str(proxy.identity or ""))
        try:
            yield
        finally:
            self.connected.remove(number)
            metrics.connected(version, -1)
            log.info("xds.disconnected", proxy=proxy.id)
