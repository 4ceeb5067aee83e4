"""Messages out of the bytes of DATA frames. Pure. Source: gRPC "PROTOCOL-HTTP2.md", Length-Prefixed-Message."""

from __future__ import annotations

import zlib
from typing import Final

from windward.rpc.errors import exhausted, invalid, unimplemented
from windward.rpc.http2.frames import MESSAGE_HEAD_BYTES

ENCODINGS: Final = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class Messages:
    """One call's requests. RefusedError for what is too long or packed in a way that is not known."""

    __slots__ = ("_encoding", "_limit", "_part")

    def __init__(self, limit: int, encoding: str = "identity") -> None:
        self._limit = limit
        self._encoding = encoding
        self._part = bytearray()

    def __len__(self) -> int:
        """Bytes of what is not whole yet."""
        return len(self._part)

    def feed(self, data: bytes) -> list[bytes]:
        """Every message that is whole now."""
        part = self._part
        part += data
        found, at = [], 0
        while len(part) - at >= MESSAGE_HEAD_BYTES:
            length = int.from_bytes(part[at + 1 : at + MESSAGE_HEAD_BYTES])
            if length > self._limit:
                raise exhausted(f"a request of {length} bytes; at most {self._limit} are taken")
            begin = at + MESSAGE_HEAD_BYTES
            if len(part) < begin + length:
                break
            message = bytes(part[begin : begin + length])
            found.append(self._unpacked(message) if part[at] else message)
            at = begin + length
        del part[:at]
        return found

    def _unpacked(self, message: bytes) -> bytes:
        if self._encoding not in ENCODINGS:
            raise unimplemented(f"requests packed by {self._encoding[:50]!r}")
        unpacking = zlib.decompressobj(ENCODINGS[self._encoding])
        try:
            whole = unpacking.decompress(message, self._limit)
        except zlib.error as error:
            raise invalid("a request that cannot be unpacked") from error
        if unpacking.unconsumed_tail or not unpacking.eof:
            raise exhausted(f"a request that unpacks to over {self._limit} bytes, or to no end")
        return whole
