"""One call: what its behaviour reads and writes. A coroutine asks with ``receive``; who follows is called instead.

DATA ─► messages ─► receive() or on_message          send() ─► frames, as the windows allow ─► on_room
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import grpc

from windward.rpc.errors import RefusedError, exhausted
from windward.rpc.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME,
    HEADERS,
    MESSAGE,
    MESSAGE_HEAD_BYTES,
    Code,
    frame,
    reset,
    window_update,
)
from windward.rpc.http2.headers import RESPONSE, Metadata, Request, trailers
from windward.rpc.http2.messages import Messages

if TYPE_CHECKING:
    from windward.rpc.http2.connection import Connection

WINDOW: Final = 32 * 1024
"""Bytes that a client may send ahead of what a behaviour takes: of a thousand that wait for their turn so much is kept."""
WIDE: Final = 256 * 1024
"""Once a request that is longer is being taken: it need not come in many pieces with a round trip between."""


class Call:
    __slots__ = (
        "_allowed",
        "_begun",
        "_connection",
        "_ended",
        "_held",
        "_messages",
        "_on_end",
        "_on_message",
        "_on_room",
        "_out",
        "_owed",
        "_queue",
        "_receiving",
        "_trailer",
        "_waiter",
        "_wide",
        "expired",
        "finished",
        "gone",
        "number",
        "request",
        "task",
        "trailing",
        "window",
    )

    def __init__(
        self, connection: Connection, number: int, request: Request, window: int, limit: int
    ) -> None:
        """``window``: bytes that the client takes now. ``limit``: of a message, in bytes."""
        self._connection = connection
        self.number = number
        self.request = request
        self.window = window
        self._messages = Messages(limit, request.encoding)
        self._allowed = connection.allowance
        self._held = self._owed = 0
        self._queue: deque[bytes] = deque()
        self._out: deque[memoryview] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._on_message: Callable[[bytes], None] | None = None
        self._on_end: Callable[[], None] | None = None
        self._on_room: Callable[[], None] | None = None
        self._begun = self._ended = self._receiving = self._wide = False
        self._trailer = b""
        self.trailing: Metadata = ()
        """Sent with the status."""
        self.finished = False
        """Its status is said, or about to be when everything before it has gone."""
        self.gone = False
        """The client has ended it, or its connection."""
        self.expired = False
        """Its time is up."""
        self.task: asyncio.Task[None] | None = None

    # ---- who calls --------------------------------------------------------------------------------------------------

    @property
    def method(self) -> str:
        return self.request.method

    def invocation_metadata(self) -> Metadata:
        return self.request.metadata

    def auth_context(self) -> dict[str, list[bytes]]:
        """What the transport proved of the client, by gRPC's names."""
        return self._connection.transport.auth_context()

    def peer(self) -> str:
        """The client's address, ``ipv4:192.0.2.7:4711``."""
        return self._connection.transport.peer

    # ---- requests ---------------------------------------------------------------------------------------------------

    async def heard(self) -> None:
        """Wait until the client has begun to say something, or has ended; what it says is not taken yet."""
        while not (self._queue or len(self._messages) or self._ended):
            await self._told()

    async def receive(self) -> bytes | None:
        """The next request; None after the last one."""
        self._receiving = True
        try:
            while not self._queue:
                if self._ended:
                    return None
                self._give_back()
                self._widen()
                await self._told()
        finally:
            self._receiving = False
        message = self._queue.popleft()
        self._connection.buffered -= len(message)
        if not self._queue:
            self._give_back()
        return message

    async def _told(self) -> None:
        """Wait for news; one waits at a time."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _give_back(self) -> None:
        """What was kept has been taken: the client may send as much again."""
        held, self._held = self._held, 0
        self._allow(held)

    def follow(
        self,
        on_message: Callable[[bytes], None],
        on_end: Callable[[], None],
        on_room: Callable[[], None],
    ) -> None:
        """From now on these are called: for each request, after the last one, and when there is ``room`` again."""
        self._on_room = on_room
        while self._queue:
            message = self._queue.popleft()
            self._connection.buffered -= len(message)
            on_message(message)
        self._give_back()
        self._on_message, self._on_end = on_message, on_end
        if self._ended:
            on_end()

    def unfollow(self) -> None:
        """Call nobody any more."""
        self._on_message = self._on_end = self._on_room = None

    def data(self, payload: bytes, flow: int) -> None:
        """Bytes of the client's; ``flow`` of them count for its window, padding among them."""
        if self._ended or self.finished:
            return
        self._allowed -= flow
        if self._allowed < 0:
            self._connection.abandon(self, Code.FLOW_CONTROL_ERROR)
            return
        if (
            self._on_message is not None
            and not len(self._messages)
            and len(payload) >= MESSAGE_HEAD_BYTES
            and not payload[0]
            and int.from_bytes(payload[1:MESSAGE_HEAD_BYTES]) == len(payload) - MESSAGE_HEAD_BYTES
        ):
            self._allow(flow)
            self._on_message(payload[MESSAGE_HEAD_BYTES:])
            return
        try:
            self._feed(payload, flow)
        except RefusedError as error:
            self._fail(error)

    def _feed(self, payload: bytes, flow: int) -> None:
        connection, before = self._connection, len(self._messages)
        try:
            whole = self._messages.feed(payload)
        finally:
            connection.buffered += len(self._messages) - before
        if connection.buffered > connection.limits.buffered:
            raise exhausted("requests of this connection that are not whole take too much room")
        if self._on_message is not None or (self._receiving and not self._queue and not whole):
            self._allow(flow)
            self._widen()
        else:
            self._held += flow
        for message in whole:
            if self._on_message is not None:
                self._on_message(message)
            else:
                connection.buffered += len(message)
                self._queue.append(message)
        self._tell()

    def _fail(self, error: RefusedError) -> None:
        self.finish(error.code, error.message)
        if self.task is not None:
            self.task.cancel()

    def _allow(self, flow: int) -> None:
        """The client may send as much again; it hears of it once that is worth a frame."""
        self._owed += flow
        if self._owed >= WINDOW // 2 and not self._ended and not self.finished:
            self._connection.write(window_update(self.number, self._owed))
            self._allowed += self._owed
            self._owed = 0

    def resize(self, by: int) -> None:
        """The client has taken in our settings: from now on its window is another one, less than nothing perhaps."""
        self._allowed += by

    def _widen(self) -> None:
        if len(self._messages) and not self._wide:
            self._wide = True
            self._allow(WIDE - WINDOW)

    def end(self) -> None:
        """The client has said its last."""
        if self._ended:
            return
        self._ended = True
        if self._on_end is not None:
            self._on_end()
        self._tell()

    def _tell(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # ---- responses --------------------------------------------------------------------------------------------------

    @property
    def room(self) -> bool:
        """Whether everything that was sent has gone to the transport: another message is worth making."""
        return not self._out

    def send(self, message: bytes) -> None:
        """One response, at once where the client and the transport have room for it."""
        if self.finished or self.gone:
            return
        connection, size = self._connection, len(message) + MESSAGE_HEAD_BYTES
        if not self._begun:
            self._begin()
        if not self._out and size <= self.window and connection.takes(size):
            self.window -= size
            connection.window -= size
            connection.write(
                MESSAGE.pack(size << 8 | DATA, 0, self.number, 0, len(message)) + message
            )
            return
        whole = b"\x00" + len(message).to_bytes(4) + message
        self._out.append(memoryview(whole))
        connection.waits(self)

    def _begin(self) -> None:
        self._begun = True
        self._connection.write(frame(HEADERS, END_HEADERS, self.number, RESPONSE))

    def next_frame(self, most: int) -> bytes:
        """Of what waits, as much as fits and the client takes; empty when there is none, or it takes none."""
        if not self._out:
            return b""
        waiting = self._out[0]
        size = min(len(waiting), most, self.window)
        if size <= 0:
            return b""
        self.window -= size
        if size == len(waiting):
            self._out.popleft()
        else:
            self._out[0] = waiting[size:]
        return FRAME.pack(size << 8 | DATA, 0, self.number) + waiting[:size]

    def emptied(self) -> None:
        """Nothing waits any more: the end goes, or whoever follows may send again."""
        if self._trailer:
            self._say_end()
        elif self._on_room is not None:
            self._on_room()
        self._tell()

    async def until_room(self) -> None:
        """For a coroutine that sends: until there is ``room``. It is the only one that waits."""
        while self._out and not self.gone:
            await self._told()

    def finish(self, code: grpc.StatusCode, words: str = "") -> None:
        """Say the status, after everything that was sent; later ones are not said."""
        if self.finished or self.gone:
            return
        self.finished = True
        self.unfollow()
        number: int = code.value[0]
        block = trailers(number, words, self.trailing)
        if not self._begun:
            block = RESPONSE + block
        self._trailer = frame(HEADERS, END_HEADERS | END_STREAM, self.number, block)
        if not self._out:
            self._say_end()

    def _say_end(self) -> None:
        """A client that is not done yet need not send the rest."""
        trailer, self._trailer = self._trailer, b""
        self._connection.write(
            trailer if self._ended else trailer + reset(self.number, Code.NO_ERROR)
        )
        self._connection.drop(self)

    def release(self) -> int:
        """Keep no requests any more; how many bytes they were."""
        size = len(self._messages) + sum(map(len, self._queue))
        self._messages = Messages(0)
        self._queue.clear()
        return size

    def lost(self) -> None:
        """The client ended the call, or is gone."""
        self.gone = True
        self.unfollow()
        self._out.clear()
        self._tell()
        if self.task is not None:
            self.task.cancel()
