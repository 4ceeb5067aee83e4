"""One stream's shell: requests are taken in as they come, responses are made as long as the transport has room.

A request that names thousands is taken in in turns; until it is, nothing else is asked of its stream.

    wake() / request / room ─► pump():  next() ─► send ─► next() ... None

Nothing waits and nothing is scheduled between a change and its bytes on the wire. A slow reader holds back nobody: the
next response is made, of the newest state, when the transport has taken the one before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, Protocol

from services.pilot import metrics
from services.pilot.model.proxy import Proxy
from services.pilot.model.source import GroupView
from services.pilot.xds.admission import Place
from services.pilot.xds.requests import MOST_NAMES, AnyStream, Variant
from windward.rpc.errors import exhausted, invalid
from windward.slices import SLICE_S, Turns, Work
from windward.telemetry.logging import get_logger
from windward.xds.resource import ResourceSet
from windward.xds.stream import HeldKey, Refusal, TypeState

log = get_logger()


class Exchange(Protocol):
    """What a session needs of its call; see windward.rpc.http2.call."""

    @property
    def room(self) -> bool: ...

    def send(self, message: bytes) -> None: ...

    def follow(
        self,
        on_message: Callable[[bytes], None],
        on_end: Callable[[], None],
        on_room: Callable[[], None],
    ) -> None: ...

    def unfollow(self) -> None: ...


LONG: Final = 32 * 1024
"""Bytes of responses of one stream before others get their turn."""
MOST_KEPT: Final = 8 * 1024 * 1024
"""Bytes of requests of one stream that may wait while one before them is taken in: two of the longest."""
REQUEST_ROOM: Final = 100
"""Bytes that one takes besides its own."""


class Waker:
    """What a change calls: the session's pump, once there is one."""

    __slots__ = ("pump",)

    def __init__(self) -> None:
        self.pump: Callable[[], None] | None = None

    def wake(self) -> None:
        if self.pump is not None:
            self.pump()


@dataclass(slots=True)
class Judgement:
    """What proxies and the engine tell each other about resources, one object for all streams."""

    held: Mapping[HeldKey, object] = field(default_factory=dict)
    """Versions that are withheld from every proxy that does not have them; replaced whole."""
    on_answer: Callable[[Proxy, TypeState, tuple[Refusal, ...]], None] = lambda *_: None
    """Told of every ACK and NACK, with the type's state after it and the resources found bad."""
    on_synced: Callable[[ResourceSet, int], None] = lambda *_: None
    """Told when a client has answered all of a newer set, with the version of the last one, or of the one that it came to."""


class Session:
    """A proxy that is connected, and what it has."""

    __slots__ = (
        "_call",
        "_ended",
        "_judgement",
        "_kept",
        "_later_ones",
        "_place",
        "_pumping",
        "_synced",
        "_turns",
        "_variant",
        "_waits",
        "_work",
        "proxy",
        "stream",
        "view",
    )

    def __init__(
        self, proxy: Proxy, variant: Variant, view: GroupView, judgement: Judgement
    ) -> None:
        self.proxy = proxy
        self.stream: AnyStream = variant.stream(view.current)
        self._judgement = judgement
        self._variant = variant
        self.view = view
        self._synced = view.current.version
        """Of what was pushed before it came it was told nothing, and is nothing late."""
        self._call: Exchange | None = None
        self._place: Place | None = None
        self._ended: asyncio.Future[None] | None = None
        self._turns: Turns | None = None
        self._pumping = self._waits = False
        self._work: Work[None] | None = None
        self._later_ones: deque[bytes] = deque()
        self._kept = 0

    def taking_in(self, request: Any) -> Work[None]:
        """A request that was parsed. RefusedError for one that is no request of this stream."""
        event, stream = (yield from self._variant.reading(request)), self.stream
        yield
        expired = stream.expired
        found = yield from stream.taking(event, monotonic())
        state = stream.types.get(event.type_url)
        if event.asks:
            self._check_names()
        if event.error:
            metrics.PUSHED.rejected(event.type_url)
            log.warning(
                "xds.nack", proxy=self.proxy.id, type=event.type_url, error=event.error[:500]
            )
        if stream.expired != expired:
            metrics.PUSHED.expired()
        elif event.nonce and state is not None:
            self._judgement.on_answer(self.proxy, state, found)

    def _check_names(self) -> None:
        """What a client may make its stream keep, whatever types it spreads it over."""
        if sum(len(s.subscription.names) for s in self.stream.types.values()) > MOST_NAMES:
            raise invalid(f"more than {MOST_NAMES} resource names in all")

    async def run(self, call: Exchange, waker: Waker, place: Place, turns: Turns) -> None:
        """Until the client has said its last. Raises what was wrong with a request, or with making a response.

        ``turns``: where streams with much to send wait for each other.
        """
        self._call, self._place, self._turns = call, place, turns
        self._ended = asyncio.get_running_loop().create_future()
        waker.pump = self.pump
        try:
            call.follow(self._message, self._end, self.pump)
            self._later()
            await self._ended
        finally:
            waker.pump = self._call = self._ended = self._turns = self._work = None
            self._later_ones.clear()
            call.unfollow()

    def _message(self, raw: bytes) -> None:
        if self._work is not None:
            self._kept += len(raw) + REQUEST_ROOM
            self._later_ones.append(raw)
            if self._kept > MOST_KEPT:
                self._fail(exhausted("more requests than can be taken in; answer what is sent"))
            return
        self._work = self._taking_in(raw)
        self._take_on()

    def _taking_in(self, raw: bytes) -> Work[None]:
        request = yield from self._variant.parsing(raw)
        yield
        yield from self.taking_in(request)

    def _take_on(self) -> None:
        """Take in what has come, for a slice; what is left goes on in turns, and what comes meanwhile waits."""
        until_s = monotonic() + SLICE_S
        while self._work is not None and self._going_on:
            try:
                next(self._work)
            except StopIteration:
                self._work = self._next_work()
            except Exception as error:
                self._fail(error)
                return
            if self._work is not None and monotonic() >= until_s:
                assert self._turns is not None
                self._turns.call(self._take_on)
                return
        self.pump()

    def _next_work(self) -> Work[None] | None:
        if not self._later_ones:
            return None
        raw = self._later_ones.popleft()
        self._kept -= len(raw) + REQUEST_ROOM
        return self._taking_in(raw)

    @property
    def _going_on(self) -> bool:
        return self._ended is not None and not self._ended.done()

    def _end(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(error)

    def _later(self) -> None:
        """Go on in a turn of its own."""
        if self._turns is not None and not self._waits:
            self._waits = True
            self._turns.call(self._go_on)

    def _go_on(self) -> None:
        self._waits = False
        self.pump()

    def pump(self) -> None:
        """Send what may go, as long as there is room. Called from wherever something has changed: it raises nothing."""
        if self._pumping or self._waits or self._work is not None or not self._going_on:
            return
        self._pumping = True
        try:
            self._send()
        except Exception as error:
            self._fail(error)
        finally:
            self._pumping = False

    def _send(self) -> None:
        call, stream, sent = self._call, self.stream, 0
        assert call is not None
        now_s = monotonic()
        until_s = now_s + SLICE_S
        while call.room:
            if sent and (sent > LONG or now_s >= until_s):
                self._later()
                return
            current, held = self.view.current, self._judgement.held
            if current is not stream.current or held is not stream.held:
                stream.update(current, held)
            response = stream.next()
            if response is None:
                self._rest()
                return
            begun_s, made_s, size = now_s, monotonic(), len(response)
            call.send(response)
            now_s = monotonic()
            sent += size
            metrics.PUSHED.record(stream.sent_type, size, made_s - begun_s, now_s - made_s)
            if not stream.may_say_more:
                return

    def _rest(self) -> None:
        """Nothing can be sent now; if the client has answered everything, it is synced."""
        stream = self.stream
        if not stream.settled:
            return
        if self._place is not None:
            self._place.leave()
            self._place = None
        if stream.current.version > self._synced:
            self._judgement.on_synced(stream.current, self._synced)
            self._synced = stream.current.version
