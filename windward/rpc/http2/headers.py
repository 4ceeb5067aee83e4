"""Header blocks of gRPC calls. Pure but for HPACK's tables, which live as long as their connection.

Responses are written with literals and the static table alone: a peer's table is never filled, and they are constants.
Sources: RFC 7541; gRPC "PROTOCOL-HTTP2.md" (Requests, Responses, Timeout, Status-Message).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from hpack import Decoder, HPACKError
from hpack.exceptions import OversizedHeaderListError

from windward.rpc.http2.frames import Broken, Code

LARGEST_LIST: Final = 16 * 1024
"""Names and values of a call's headers, with 32 bytes for each, as RFC 9113 section 10.5.1 counts."""
LARGEST_BLOCK: Final = 2 * LARGEST_LIST
TABLE: Final = 4096
MOST_KNOWN: Final = 64
UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
OWN: Final = frozenset(
    {"te", "content-type", "grpc-encoding", "grpc-timeout", "grpc-accept-encoding"}
)
"""What belongs to the protocol and is not metadata of the caller's."""
PRINTABLE: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """What opens a call. ``refusal``: why it is no gRPC call, as an HTTP status; empty when it is one."""

    method: str
    """``/package.Service/Method``."""
    metadata: Metadata = ()
    encoding: str = "identity"
    timeout_s: float | None = None
    refusal: str = ""


class Headers:
    """One connection's: every block has to be read, in order, whoever it is for."""

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=LARGEST_LIST)
        self._decoder.max_allowed_table_size = TABLE
        self._known: dict[bytes, Request] = {}
        """Blocks that neither changed the table nor were read before it changed: clients say most calls in the same bytes."""

    def read(self, block: bytes) -> Request:
        """Broken where the table cannot be trusted any more."""
        found = self._known.get(block)
        if found is not None:
            return found
        table = self._decoder.header_table
        before = (table.maxsize, tuple(table.dynamic_entries))
        found = self._read(block)
        if before != (table.maxsize, tuple(table.dynamic_entries)):
            self._known.clear()
        elif len(self._known) < MOST_KNOWN:
            self._known[block] = found
        return found

    def _read(self, block: bytes) -> Request:
        try:
            fields = self._decoder.decode(block, raw=True)
        except OversizedHeaderListError as error:
            raise Broken(Code.ENHANCE_YOUR_CALM, "headers of more than 16 KiB") from error
        except (HPACKError, ValueError, IndexError) as error:
            raise Broken(Code.COMPRESSION_ERROR, "a header block that is none") from error
        known: dict[str, str] = {}
        metadata: list[tuple[str, str | bytes]] = []
        for name_bytes, value_bytes in fields:
            name, value = bytes(name_bytes).decode("latin-1"), bytes(value_bytes).decode("latin-1")
            if name.startswith(":") or name in OWN:
                known[name] = value
            elif name.endswith("-bin"):
                metadata += [(name, item) for item in _binary(value)]
            else:
                metadata.append((name, value))
        return Request(
            known.get(":path", ""),
            tuple(metadata),
            known.get("grpc-encoding", "identity"),
            _timeout_s(known.get("grpc-timeout", "")),
            _refusal(known),
        )


def _refusal(known: dict[str, str]) -> str:
    if not known.get(":path", "").startswith("/"):
        return "400"
    if known.get(":method") != "POST":
        return "405"
    return "" if known.get("content-type", "").startswith("application/grpc") else "415"


def _binary(value: str) -> list[bytes]:
    """Values of a ``-bin`` key, which may be joined by commas and lack their padding; what is no base64 is dropped."""
    found = []
    for part in value.split(","):
        try:
            found.append(base64.b64decode(part + "=" * (-len(part) % 4), validate=True))
        except (binascii.Error, ValueError):
            continue
    return found


def _timeout_s(value: str) -> float | None:
    """At most eight digits and a unit; what is no timeout sets none."""
    digits, unit = value[:-1], value[-1:]
    if unit not in UNITS or not digits.isascii() or not digits.isdigit() or len(digits) > 8:
        return None
    return int(digits) * UNITS[unit]


def _literal(name: str, value: str) -> bytes:
    """A field that no table remembers. RFC 7541 section 6.2.2."""
    return b"\x00" + _string(name.encode("ascii")) + _string(value.encode("utf-8"))


def _string(text: bytes) -> bytes:
    """RFC 7541 section 5.2, without Huffman; lengths of over 126 go on in groups of seven bits."""
    length = len(text)
    if length < 127:
        return bytes((length,)) + text
    head, length = bytearray((127,)), length - 127
    while length >= 128:
        head.append(length & 127 | 128)
        length >>= 7
    head.append(length)
    return bytes(head) + text


RESPONSE: Final = (
    b"\x88"
    + _literal("content-type", "application/grpc")
    + _literal("grpc-accept-encoding", "identity,deflate,gzip")
)
"""``:status: 200`` is number 8 of the static table."""
LONGEST_WORDS: Final = 4096


def trailers(code: int, words: str, metadata: Metadata = ()) -> bytes:
    """The end of a call: its status and, for people, why."""
    block = _literal("grpc-status", str(code))
    if words:
        block += _literal("grpc-message", quote(words, safe=PRINTABLE)[:LONGEST_WORDS])
    for name, value in metadata:
        text = base64.b64encode(value).decode() if isinstance(value, bytes) else value
        block += _literal(name, text)
    return block


def refused(status: str) -> bytes:
    """The answer to what is no gRPC call."""
    return _literal(":status", status)
