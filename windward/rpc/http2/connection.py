"""One connection: frames in, calls opened, both flow-control windows. Knows no socket; what it writes goes to a transport.

Source: RFC 9113. What a peer can make us keep is bounded: calls, headers, requests that are not whole, and how many frames
that bring nothing it may send (section 10.5).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from windward.rpc.http2 import frames
from windward.rpc.http2.call import WINDOW, Call
from windward.rpc.http2.carrier import NOWHERE, Transport
from windward.rpc.http2.frames import FRAME, FRAME_BYTES, Broken, Code
from windward.rpc.http2.headers import LARGEST_BLOCK, LARGEST_LIST, TABLE, Headers, refused

LARGEST_SENT: Final = frames.LARGEST_PAYLOAD - FRAME_BYTES
"""With its head, a frame is then one TLS record."""
CONNECTION_WINDOW: Final = 1024 * 1024
IDLE_FRAMES: Final = 1000
"""Frames without content (pings, settings, resets, empty data) that a peer may send in ``IDLE_S``."""
IDLE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one connection."""

    calls: int = 1000
    message: int = 4 * 1024 * 1024
    """Bytes of a request."""
    buffered: int = 16 * 1024 * 1024
    """Bytes of requests that are not whole, or that nobody has taken yet."""


class Connection:
    __slots__ = (
        "__weakref__",
        "_allowed",
        "_block",
        "_block_flags",
        "_block_of",
        "_headers",
        "_idle_frames",
        "_idle_since",
        "_initial",
        "_last",
        "_now",
        "_open",
        "_preface",
        "_pumping",
        "_rest",
        "_waiting",
        "allowance",
        "buffered",
        "called_at",
        "calls",
        "closed",
        "draining",
        "limits",
        "pinged_at",
        "transport",
        "window",
        "write",
    )

    def __init__(
        self,
        transport: Transport,
        opened: Callable[[Call], None],
        now: Callable[[], float],
        limits: Limits = Limits(),
    ) -> None:
        """``opened`` is told of every call; ``now``: seconds, monotonic."""
        self.transport: Transport = transport
        self.write: Callable[[bytes], None] = transport.write
        self.limits = limits
        self.calls: dict[int, Call] = {}
        self.called_at = now()
        """When the last call ended, if there is none."""
        self.window = frames.DEFAULT_WINDOW
        """Bytes that the peer takes now, over all calls."""
        self.allowance = frames.DEFAULT_WINDOW
        """Bytes that the peer may send in a new call: the protocol's default until it has acknowledged our settings."""
        self.buffered = 0
        self.closed = False
        self.draining = False
        self.pinged_at: float | None = None
        """When a ping was sent that is not answered yet."""
        self._open = opened
        self._now = now
        self._headers = Headers()
        self._rest = b""
        self._preface = True
        self._last = 0
        self._initial = frames.DEFAULT_WINDOW
        self._allowed = CONNECTION_WINDOW
        self._block = b""
        self._block_of = self._block_flags = 0
        self._waiting: deque[Call] = deque()
        self._pumping = False
        self._idle_frames, self._idle_since = 0, now()
        values = {
            frames.HEADER_TABLE_SIZE: TABLE,
            frames.MAX_CONCURRENT_STREAMS: limits.calls,
            frames.INITIAL_WINDOW_SIZE: WINDOW,
            frames.MAX_HEADER_LIST_SIZE: LARGEST_LIST,
        }
        self.write(
            frames.settings(values)
            + frames.window_update(0, CONNECTION_WINDOW - frames.DEFAULT_WINDOW)
        )

    # ---- what comes in ----------------------------------------------------------------------------------------------

    @property
    def begun(self) -> bool:
        """Whether the peer has shown that it speaks HTTP/2."""
        return not self._preface

    def receive(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        try:
            at = self._read(data)
        except Broken as error:
            self.end(error.code, str(error))
            return
        self._rest = data[at:] if at < len(data) else b""

    def _read(self, data: bytes) -> int:
        """Take in the frames that are whole; up to where."""
        at, end = 0, len(data)
        if self._preface:
            head = data[: len(frames.PREFACE)]
            if not frames.PREFACE.startswith(head):
                raise Broken(Code.PROTOCOL_ERROR, "not HTTP/2")
            if len(head) < len(frames.PREFACE):
                return 0
            at, self._preface = len(head), False
        while end - at >= FRAME_BYTES and not self.closed:
            word, flags, number = FRAME.unpack_from(data, at)
            begin = at + FRAME_BYTES
            after = begin + (word >> 8)
            if word >> 8 > frames.LARGEST_PAYLOAD:
                raise Broken(Code.FRAME_SIZE_ERROR, "a frame of more than 16,384 bytes")
            if after > end:
                break
            self._frame(word & 0xFF, flags, number & frames.STREAM_MASK, data[begin:after])
            at = after
        return at

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block_of and (kind != frames.CONTINUATION or number != self._block_of):
            raise Broken(Code.PROTOCOL_ERROR, "a header block that is interrupted")
        if kind == frames.DATA:
            self._data(flags, number, payload)
        elif kind == frames.WINDOW_UPDATE:
            self._window(number, frames.word(payload))
        elif kind == frames.HEADERS:
            self._begin_block(flags, number, frames.unpadded(flags, payload))
        elif kind == frames.CONTINUATION:
            if not self._block_of:
                raise Broken(Code.PROTOCOL_ERROR, "a continuation of nothing")
            self._add_to_block(flags, payload)
        else:
            self._idle()
            if kind == frames.PING:
                self._ping(flags, number, payload)
            elif kind == frames.SETTINGS:
                self._settings(flags, number, payload)
            elif kind == frames.RST_STREAM:
                self._reset(number, payload)
            elif kind == frames.PUSH_PROMISE:
                raise Broken(Code.PROTOCOL_ERROR, "a push from a client")

    def _idle(self) -> None:
        self._idle_frames += 1
        if self._idle_frames > IDLE_FRAMES:
            now = self._now()
            if now - self._idle_since < IDLE_S:
                raise Broken(Code.ENHANCE_YOUR_CALM, "too many frames that bring nothing")
            self._idle_frames, self._idle_since = 0, now

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        flow = len(payload)
        self._allowed -= flow
        if self._allowed < 0:
            raise Broken(Code.FLOW_CONTROL_ERROR, "more data than the connection's window")
        if self._allowed < CONNECTION_WINDOW // 2:
            self.write(frames.window_update(0, CONNECTION_WINDOW - self._allowed))
            self._allowed = CONNECTION_WINDOW
        if not flow:
            self._idle()
        call = self.calls.get(number)
        if call is None:
            # Of a call that has ended here; its end has crossed the data.
            self._known(number)
            return
        if flags & frames.PADDED:
            payload = frames.unpadded(frames.PADDED, payload)
        call.data(payload, flow)
        if flags & frames.END_STREAM:
            call.end()

    def _known(self, number: int) -> None:
        if not number or number > self._last:
            raise Broken(Code.PROTOCOL_ERROR, f"a frame of stream {number}, which is not open")

    def _window(self, number: int, by: int) -> None:
        if not number:
            if not by:
                raise Broken(Code.PROTOCOL_ERROR, "a window update by nothing")
            self.window += by
            if self.window > frames.LARGEST_WINDOW:
                raise Broken(Code.FLOW_CONTROL_ERROR, "a window of over 2^31-1")
            if self._waiting:
                self.pump()
            return
        self._known(number)
        call = self.calls.get(number)
        if call is None:
            return
        call.window += by
        if not by or call.window > frames.LARGEST_WINDOW:
            self.abandon(call, Code.FLOW_CONTROL_ERROR if by else Code.PROTOCOL_ERROR)
        elif not call.room:
            self.waits(call)

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        if number or len(payload) != 8:
            raise Broken(
                Code.PROTOCOL_ERROR if number else Code.FRAME_SIZE_ERROR, "a ping of another form"
            )
        if flags & frames.ACK:
            self.pinged_at = None
        else:
            self.write(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise Broken(Code.PROTOCOL_ERROR, "settings of a stream")
        if flags & frames.ACK:
            if payload:
                raise Broken(Code.FRAME_SIZE_ERROR, "an acknowledgement with settings")
            for call in self.calls.values():
                call.resize(WINDOW - self.allowance)
            self.allowance = WINDOW
            return
        for name, value in frames.read_settings(payload):
            if name == frames.INITIAL_WINDOW_SIZE:
                self._resize(value)
            elif name == frames.MAX_FRAME_SIZE and not (frames.LARGEST_PAYLOAD <= value < 1 << 24):
                raise Broken(Code.PROTOCOL_ERROR, "a frame size out of its range")
        self.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
        if self._waiting:
            self.pump()

    def _resize(self, initial: int) -> None:
        if initial > frames.LARGEST_WINDOW:
            raise Broken(Code.FLOW_CONTROL_ERROR, "an initial window of over 2^31-1")
        for call in self.calls.values():
            call.window += initial - self._initial
            if call.window > frames.LARGEST_WINDOW:
                raise Broken(Code.FLOW_CONTROL_ERROR, "a window of over 2^31-1")
            if not call.room and call not in self._waiting:
                self._waiting.append(call)
        self._initial = initial

    def _reset(self, number: int, payload: bytes) -> None:
        frames.word(payload)
        self._known(number)
        call = self.calls.get(number)
        if call is not None:
            self.drop(call)
            call.lost()

    # ---- calls ------------------------------------------------------------------------------------------------------

    def _begin_block(self, flags: int, number: int, block: bytes) -> None:
        if not number % 2:
            raise Broken(Code.PROTOCOL_ERROR, f"a request as stream {number}")
        self._block_of, self._block_flags, self._block = number, flags, b""
        self._add_to_block(flags, block)

    def _add_to_block(self, flags: int, block: bytes) -> None:
        self._block += block
        if len(self._block) > LARGEST_BLOCK:
            raise Broken(Code.ENHANCE_YOUR_CALM, "a header block of more than 32 KiB")
        if not block:
            self._idle()
        if flags & frames.END_HEADERS:
            number, whole = self._block_of, self._block
            self._block_of, self._block = 0, b""
            self._request(number, whole)

    def _request(self, number: int, block: bytes) -> None:
        request = self._headers.read(block)
        ends = self._block_flags & frames.END_STREAM
        if number <= self._last:
            call = self.calls.get(number)
            if call is not None and ends:
                call.end()
            elif call is not None:
                self.abandon(call, Code.PROTOCOL_ERROR)
            return
        self._last = number
        if self.draining or len(self.calls) >= self.limits.calls:
            self._idle()
            self.write(frames.reset(number, Code.REFUSED_STREAM))
            return
        if request.refusal:
            flags = frames.END_HEADERS | frames.END_STREAM
            self.write(frames.frame(frames.HEADERS, flags, number, refused(request.refusal)))
            return
        call = Call(self, number, request, self._initial, self.limits.message)
        self.calls[number] = call
        if ends:
            call.end()
        self._open(call)

    def abandon(self, call: Call, code: Code) -> None:
        """The peer does not keep to the protocol in this call; the others go on."""
        self.write(frames.reset(call.number, code))
        self.drop(call)
        call.lost()

    def drop(self, call: Call) -> None:
        """The call has ended."""
        self.calls.pop(call.number, None)
        self.buffered -= call.release()
        self.called_at = self._now()
        if self.draining and not self.calls and not self.closed:
            self.end(Code.NO_ERROR, "")

    # ---- what goes out ----------------------------------------------------------------------------------------------

    def takes(self, size: int) -> bool:
        """Whether a frame of this size can go at once."""
        return (
            size <= self.window
            and size <= LARGEST_SENT
            and not self._waiting
            and not self.transport.full
        )

    def waits(self, call: Call) -> None:
        """A call has more to send than could go."""
        if call not in self._waiting:
            self._waiting.append(call)
        self.pump()

    def pump(self) -> None:
        """Send what waits: a frame of each call in turn, as far as windows and transport allow."""
        if self._pumping:
            return
        self._pumping, waiting = True, self._waiting
        try:
            while waiting and self.window > 0 and not self.transport.full:
                call = waiting.popleft()
                data = call.next_frame(min(LARGEST_SENT, self.window))
                if not data:
                    continue
                self.window -= len(data) - FRAME_BYTES
                self.write(data)
                if call.room:
                    call.emptied()
                else:
                    waiting.append(call)
        finally:
            self._pumping = False

    def drained(self) -> None:
        """The transport is not full any more."""
        if self._waiting:
            self.pump()

    def ping(self) -> None:
        """Ask whether the peer is still there."""
        if self.pinged_at is None:
            self.pinged_at = self._now()
            self.write(frames.frame(frames.PING, 0, 0, b"windward"))

    # ---- the end ----------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take no more calls, and close when the last one has ended."""
        if self.draining or self.closed:
            return
        self.draining = True
        self.write(frames.goaway(frames.STREAM_MASK, Code.NO_ERROR))
        if not self.calls:
            self.end(Code.NO_ERROR, "")

    def end(self, code: Code, words: str) -> None:
        """Say why, and close."""
        if self.closed:
            return
        self.write(frames.goaway(self._last, code, words))
        self.transport.close()
        self.lost()

    def lost(self) -> None:
        """The peer is gone, or soon will be: all calls with it."""
        self.closed = True
        calls, self.calls = list(self.calls.values()), {}
        self._waiting.clear()
        for call in calls:
            self.buffered -= call.release()
            call.lost()

    def let_go(self) -> None:
        """The transport is closed. The two held one another: what long-lived servers set aside must not need the collector."""
        self.transport, self.write = NOWHERE, NOWHERE.write
