"""HTTP/2 frames as bytes. Pure. Source: RFC 9113 sections 4, 6 and 7."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME: Final = Struct(">IBI")
"""Length (24 bits) and type in one word, flags, stream."""
FRAME_BYTES: Final = FRAME.size
MESSAGE: Final = Struct(">IBIBI")
"""A DATA frame's head, and that of the gRPC message that fills it: not compressed, its length."""
MESSAGE_HEAD_BYTES: Final = 5
LARGEST_PAYLOAD: Final = 16_384
"""The protocol's default, which neither side is asked to raise."""
LARGEST_WINDOW: Final = 2**31 - 1
DEFAULT_WINDOW: Final = 65_535
STREAM_MASK: Final = 0x7FFF_FFFF

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITISED: Final = 0x20

HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6
_SETTING: Final = Struct(">HI")
_WORD: Final = Struct(">I")
_GOAWAY: Final = Struct(">II")


class Code(IntEnum):
    """RFC 9113 section 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Broken(Exception):
    """The peer does not keep to the protocol: the connection ends with this code."""

    def __init__(self, code: Code, words: str) -> None:
        super().__init__(words)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return FRAME.pack(len(payload) << 8 | kind, flags, stream) + payload


def settings(values: dict[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    if len(payload) % _SETTING.size:
        raise Broken(Code.FRAME_SIZE_ERROR, "SETTINGS of a broken length")
    return list(_SETTING.iter_unpack(payload))


def window_update(stream: int, by: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, _WORD.pack(by))


def reset(stream: int, code: Code) -> bytes:
    return frame(RST_STREAM, 0, stream, _WORD.pack(code))


def goaway(last: int, code: Code, words: str = "") -> bytes:
    return frame(GOAWAY, 0, 0, _GOAWAY.pack(last, code) + words.encode()[:256])


def word(payload: bytes) -> int:
    """The one 32-bit word of a frame; its first bit is reserved."""
    if len(payload) != _WORD.size:
        raise Broken(Code.FRAME_SIZE_ERROR, "a frame of another length than its kind has")
    found: int = _WORD.unpack(payload)[0]
    return found & STREAM_MASK


def unpadded(flags: int, payload: bytes) -> bytes:
    """Without what PADDED and PRIORITY put around."""
    at, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise Broken(Code.FRAME_SIZE_ERROR, "a padded frame without a length of its padding")
        at, end = 1, end - payload[0]
    if flags & PRIORITISED:
        at += 5
    if at > end:
        raise Broken(Code.PROTOCOL_ERROR, "more padding than frame")
    return payload[at:end]
