"""Pilot's HTTP/2 connections: frames as a client sends them, and bytes that are none.

Asserted: nothing is raised; the connection ends exactly when its transport is closed; what is written are whole frames; calls and
requests that are kept stay within their limits, and nothing is left in the end.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from random import Random
from types import ModuleType
from typing import Final

import grpc
from hpack import Encoder

from benchmarks.fuzz.mutate import mutate_bytes
from windward.rpc.http2 import call as calls
from windward.rpc.http2 import connection as connections
from windward.rpc.http2 import frames, headers, messages
from windward.rpc.http2.call import Call
from windward.rpc.http2.connection import Connection, Limits

LIMITS: Final = Limits(calls=3, message=200, buffered=600)
FIELDS: Final = (
    (":method", "POST"), (":scheme", "https"), (":path", "/a.B/C"), ("te", "trailers"), ("content-type", "application/grpc"),
)  # fmt: skip
MESSAGE: Final = b"\0\0\0\0\2hi"
STREAMS: Final = (0, 1, 1, 3, 5, 7, 2, 9, 2**31 - 1)
FLAGS: Final = (0, 1, 4, 5, 8, 9, 0x20, 0x2D, 0xFF)
WORDS: Final = (
    MESSAGE, b"\1\0\0\0\2hi", b"\0\0\0\1\0", b"\0\0\0\0\xc8" + bytes(200), bytes(4), b"\0\0\0\1", b"\x7f\xff\xff\xff", bytes(8),
    b"\0\4\0\0\0\0", b"\0\4\x7f\xff\xff\xff", b"\0\5\0\0\x40\0", b"\0\1\0\0\0\0", b"\x82\x84", b"\x3f\xe1\x1f", b"\xbe",
    b"\0\1a\1b",
)  # fmt: skip
Piece = tuple[int, int, int, bytes]
"""(kind, flags, stream, payload); kind -1: the payload as it is."""
Given = tuple[tuple[Piece, ...], int]
"""(what is sent, in order; whether calls follow (1), are answered (2), are ended (4), the transport is full (8))."""


class _Transport:
    peer = "ipv4:192.0.2.7:4711"

    def __init__(self) -> None:
        self.full = False
        self.closed = False
        self.written = bytearray()

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written += data

    def close(self) -> None:
        self.closed = True

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}


def _block(*more: tuple[str, str]) -> bytes:
    return bytes(Encoder().encode([*FIELDS, *more]))


class Http2:
    modules: Sequence[ModuleType] = (connections, calls, frames, headers, messages)

    def executions(self, given: Given) -> int:
        return max(1, len(given[0]))

    def fertile(self, outcome: Hashable) -> bool:  # noqa: ARG002  the protocol's
        return True

    def seeds(self) -> Sequence[Given]:
        opened = (frames.HEADERS, frames.END_HEADERS, 1, _block())
        packed = (frames.HEADERS, frames.END_HEADERS, 3, _block(("grpc-encoding", "gzip")))
        timed = (frames.HEADERS, 4, 3, _block(("grpc-timeout", "1S"), ("x-bin", "AAE,/w")))
        cut = (frames.HEADERS, 0, 3, _block()[:9])
        rest = (frames.CONTINUATION, frames.END_HEADERS, 3, _block()[9:])
        said = (frames.DATA, 0, 1, MESSAGE)
        histories: list[tuple[Piece, ...]] = [
            (opened, said, said, (frames.DATA, frames.END_STREAM, 1, b"")),
            (opened, (frames.DATA, frames.PADDED, 1, b"\3" + MESSAGE + bytes(3)), packed),
            (opened, (frames.DATA, 0, 1, MESSAGE[:4]), timed, (frames.DATA, 0, 1, MESSAGE[4:])),
            (opened, cut, rest, (frames.RST_STREAM, 0, 1, bytes(4))),
            ((frames.SETTINGS, 0, 0, b"\0\4\0\0\0\3"), opened, (frames.WINDOW_UPDATE, 0, 1, b"\0\0\0\x09")),
            ((frames.PING, 0, 0, bytes(8)), (frames.PRIORITY, 0, 1, bytes(5)), (frames.GOAWAY, 0, 0, bytes(8))),
            (opened, (frames.WINDOW_UPDATE, 0, 0, b"\0\0\1\0"), (-1, 0, 0, frames.frame(0x55, 9, 9, b"?"))),
        ]  # fmt: skip
        return [(history, how) for history in histories for how in range(16)]

    def mutate(self, random: Random, chosen: Given, other: Given) -> Given:
        pieces, how = list(chosen[0]), chosen[1]
        for _ in range(random.choice((1, 1, 1, 2, 4))):
            at = random.randrange(len(pieces)) if pieces else 0
            match random.randrange(8):
                case 0 if pieces:
                    del pieces[at]
                case 1 if other[0]:
                    pieces.insert(at, random.choice(other[0]))
                case 2 if pieces:
                    pieces.insert(random.randrange(len(pieces) + 1), pieces[at])
                case 3:
                    how ^= 1 << random.randrange(4)
                case 4 if pieces:
                    kind, _, stream, payload = pieces[at]
                    pieces[at] = (kind, random.choice(FLAGS), stream, payload)
                case 5 if pieces:
                    kind, flags, _, payload = pieces[at]
                    pieces[at] = (kind, flags, random.choice(STREAMS), payload)
                case 6 if pieces:
                    _, flags, stream, payload = pieces[at]
                    pieces[at] = (random.randrange(-1, 11), flags, stream, payload)
                case _ if pieces:
                    kind, flags, stream, payload = pieces[at]
                    donor = random.choice(other[0])[3] if other[0] else b""
                    pieces[at] = (kind, flags, stream, mutate_bytes(random, payload, donor, WORDS))
        return tuple(pieces[:60]), how

    def execute(self, given: Given) -> Hashable:
        pieces, how = given
        transport, opened = _Transport(), list[Call]()
        connection = Connection(transport, opened.append, lambda: 0.0, LIMITS)
        connection.receive(frames.PREFACE)
        for number, (kind, flags, stream, payload) in enumerate(pieces):
            if connection.closed:
                break
            transport.full = bool(how & 8) and number % 3 == 0
            before = len(opened)
            raw = frames.frame(kind, flags, stream, payload[:16_384]) if kind >= 0 else payload
            connection.receive(raw)
            for call in opened[before:]:
                _begin(call, how)
            if how & 4 and number % 5 == 4 and opened:
                opened[-1].finish(grpc.StatusCode.OK, "häuser\n%")
            assert len(connection.calls) <= LIMITS.calls
            assert 0 <= connection.buffered <= LIMITS.buffered + frames.LARGEST_PAYLOAD
        assert connection.closed == transport.closed
        kinds = _kinds(bytes(transport.written))
        connection.lost()
        assert connection.buffered == 0
        assert not connection.calls
        return (kinds, connection.closed, len(opened), sum(call.gone for call in opened))


def _begin(call: Call, how: int) -> None:
    if how & 1:
        call.follow(lambda _: None, lambda: None, lambda: None)
    if how & 2:
        call.send(b"an answer")
        call.send(bytes(20_000))


def _kinds(written: bytes) -> frozenset[tuple[int, int]]:
    """Kinds and flags, or codes, of what is written, which are whole frames."""
    at, found = 0, set()
    while at < len(written):
        word, flags, _ = frames.FRAME.unpack_from(written, at)
        assert word >> 8 <= frames.LARGEST_PAYLOAD
        at += frames.FRAME_BYTES + (word >> 8)
        code = written[at - 1] if word & 0xFF == frames.RST_STREAM else flags
        found.add((word & 0xFF, code))
    assert at == len(written)
    return frozenset(found)
