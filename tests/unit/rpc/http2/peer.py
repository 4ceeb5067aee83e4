"""The other end of a connection, by hand: frames that a client sends, and what it is answered. No socket."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hpack import Decoder, Encoder

from windward.rpc.http2 import frames
from windward.rpc.http2.call import Call
from windward.rpc.http2.connection import Connection, Limits

METHOD = "/windward.test.Echo/Call"
FIELDS = {
    ":method": "POST",
    ":scheme": "https",
    ":path": METHOD,
    "te": "trailers",
    "content-type": "application/grpc",
}


@dataclass
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes


@dataclass
class FakeTransport:
    """Keeps what is written. ``full`` is set by hand."""

    peer: str = "ipv4:192.0.2.7:4711"
    full: bool = False
    written: bytearray = field(default_factory=bytearray)
    closed: bool = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written += data

    def close(self) -> None:
        self.closed = True

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"peer_spiffe_id": [b"spiffe://cluster.local/ns/shop/sa/web"]}


class Peer:
    """A client; ``calls`` are the server's side of what it has opened."""

    def __init__(self, limits: Limits = Limits(), *, begin: bool = True) -> None:  # noqa: B008  frozen
        self.now_s = 0.0
        self.calls: list[Call] = []
        self.transport = FakeTransport()
        self.connection = Connection(self.transport, self.calls.append, lambda: self.now_s, limits)
        self._encoder, self._decoder = Encoder(), Decoder()
        if begin:
            acknowledged = frames.frame(frames.SETTINGS, frames.ACK, 0)
            self.send_raw(frames.PREFACE + frames.settings({}) + acknowledged)
            self.answers()

    def send_raw(self, data: bytes) -> None:
        self.connection.receive(data)

    def send(self, kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> None:
        self.send_raw(frames.frame(kind, flags, stream, payload))

    def block(self, **changes: str | None) -> bytes:
        """A header block of a call; ``changes`` by name without ``:``, ``_`` for ``-``; None takes a field away."""
        fields = dict(FIELDS)
        for name, value in changes.items():
            wanted = name.replace("_", "-")
            wanted = f":{wanted}" if f":{wanted}" in FIELDS else wanted
            if value is None:
                del fields[wanted]
            else:
                fields[wanted] = value
        return bytes(self._encoder.encode(list(fields.items())))

    def open(self, stream: int = 1, flags: int = 0, **changes: str | None) -> Call:
        """Open a call; the server's side of it."""
        before = len(self.calls)
        self.send(frames.HEADERS, frames.END_HEADERS | flags, stream, self.block(**changes))
        assert len(self.calls) == before + 1
        return self.calls[-1]

    def message(self, data: bytes, stream: int = 1, flags: int = 0) -> None:
        self.send(frames.DATA, flags, stream, b"\0" + len(data).to_bytes(4) + data)

    def answers(self, kind: int | None = None) -> list[Frame]:
        """What was written since the last time; of one kind."""
        data = bytes(self.transport.written)
        self.transport.written.clear()
        found, at = [], 0
        while at < len(data):
            word, flags, stream = frames.FRAME.unpack_from(data, at)
            at += frames.FRAME_BYTES
            found.append(Frame(word & 0xFF, flags, stream, data[at : at + (word >> 8)]))
            at += word >> 8
        return [frame for frame in found if kind is None or frame.kind == kind]

    def fields(self, frame: Frame) -> dict[str, str]:
        """Of a HEADERS frame of the server's."""
        fields: Any = self._decoder.decode(frame.payload)
        return dict(fields)

    def code(self) -> frames.Code:
        """Why the connection ended."""
        (frame,) = self.answers(frames.GOAWAY)
        assert self.connection.closed
        assert self.transport.closed
        return frames.Code(int.from_bytes(frame.payload[4:8]))
