"""DNS messages as far as a proxy must read and write them. Pure; bytes in, bytes out.

    query bytes -> parse -> Query       (Unusable: what is no question that may be answered)
    Query, records -> answer -> bytes   (what does not fit is cut, and TC says so)

Names stay in their wire form, lowercased: the key of a table's lookup is a slice of the query. Sources: RFC 1035
section 4 (messages), RFC 6891 (EDNS), RFC 2181 section 9 (TC), RFC 9619 (one question).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct, pack

import msgspec

A, CNAME, OPT, AAAA, ANY = 1, 5, 41, 28, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5
BADVERS_HIGH = 1
"""BADVERS is 16: its upper eight bits stand in the OPT record, its lower four are 0."""
TTL_S = 30
HEADER_BYTES = 12
PLAIN_UDP_BYTES = 512
OUR_UDP_BYTES = 4096
"""Most that goes into one datagram: it travels over loopback, where nothing fragments."""
LONGEST_NAME_BYTES = 255
MOST_RECORDS = 16
"""Records beside the question that a query may carry; OPT and a signature are two."""
MOST_BYTES = 65535

_HEADER = Struct("!2sHHHHH")
_TAIL = Struct("!HHIH")
_QUESTION_NAME = b"\xc0\x0c"
"""A pointer to the question's name, which always stands right behind the header."""

Shuffle = Callable[[list[bytes]], None]


class Unusable(Exception):
    """Bytes that are no question: ``response`` is what to say, or None where silence is right."""

    def __init__(self, reason: str, response: bytes | None = None) -> None:
        super().__init__(reason)
        self.response = response


class Query(msgspec.Struct, frozen=True, gc=False):
    id: bytes
    flags: int
    question: bytes
    """Name, type and class as they were sent, the letters' case included."""
    name: bytes
    """Wire form, lowercased, with the root's zero byte."""
    type: int
    in_class: bool
    edns: bool
    limit: int
    """How large a datagram the caller takes, in bytes."""


def parse(data: bytes) -> Query:
    """Read a query. Raises Unusable. O(len(data)), bounded by the name's 255 bytes and MOST_RECORDS."""
    if len(data) < HEADER_BYTES:
        raise Unusable("shorter than a header")
    id_, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    if flags & 0x8000:
        raise Unusable("a response")
    if flags & 0x7800:
        raise Unusable("not a standard query", _bare(id_, flags, NOTIMP))
    formerr = _bare(id_, flags, FORMERR)
    others = answers + authorities + additional
    if questions != 1 or others > MOST_RECORDS:
        raise Unusable("not one question", formerr)
    end = _end_of_name(data, HEADER_BYTES, pointers=False)
    if end < 0 or end + 4 > len(data):
        raise Unusable("a broken question", formerr)
    name = data[HEADER_BYTES:end].lower()
    type_ = data[end] << 8 | data[end + 1]
    in_class = data[end + 2] == 0 and data[end + 3] == IN
    question = data[HEADER_BYTES : end + 4]
    edns, limit = False, PLAIN_UDP_BYTES
    if others or end + 4 != len(data):
        option = _option(data, end + 4, answers + authorities, others)
        if option is None:
            raise Unusable("broken records", formerr)
        edns = option != ()
        if option:
            version, size = option
            limit = min(max(size, PLAIN_UDP_BYTES), OUR_UDP_BYTES)
            if version:
                query = Query(id_, flags, question, name, type_, in_class, True, limit)
                raise Unusable("an EDNS version of the future", _bad_version(query))
    return Query(id_, flags, question, name, type_, in_class, edns, limit)


def answer(
    query: Query,
    tails: Sequence[bytes],
    *,
    limit: int,
    shuffle: Shuffle,
    canonical: bytes = b"",
) -> bytes:
    """An authoritative answer: ``tails`` are records without their names, in an order that ``shuffle`` decides.

    With ``canonical`` (wire form) the question's name is an alias: a CNAME comes first, the records are that name's.
    """
    prefix, name = b"", _QUESTION_NAME
    if canonical:
        prefix = _QUESTION_NAME + _TAIL.pack(CNAME, IN, TTL_S, len(canonical)) + canonical
        at = HEADER_BYTES + len(query.question) + len(prefix) - len(canonical)
        name = (0xC000 | at).to_bytes(2, "big")
    option = _our_option(0) if query.edns else b""
    room = limit - HEADER_BYTES - len(query.question) - len(prefix) - len(option)
    count, truncated = len(tails), False
    if count == 1:
        body = name + tails[0]
    else:
        mixed = list(tails)
        if count > 1:
            shuffle(mixed)
        body = b"".join([name + tail for tail in mixed])
    if len(body) > room:
        truncated, body, count = True, *_fitting(body, room)
    flags = 0x8480 | query.flags & 0x0110 | (0x0200 if truncated else 0)
    head = _HEADER.pack(query.id, flags, 1, count + bool(prefix), 0, query.edns)
    return head + query.question + prefix + body + option


def failure(query: Query, rcode: int) -> bytes:
    """An answer without records: SERVFAIL, REFUSED, or NOERROR for a name that has nothing of this type."""
    flags = 0x8080 | query.flags & 0x0110 | rcode
    option = _our_option(0) if query.edns else b""
    return _HEADER.pack(query.id, flags, 1, 0, 0, query.edns) + query.question + option


def truncated(query: Query) -> bytes:
    """Nothing but TC: ask again over TCP."""
    flags = 0x8280 | query.flags & 0x0110
    return _HEADER.pack(query.id, flags, 1, 0, 0, 0) + query.question


def address_tail(packed: bytes) -> bytes:
    """An A or AAAA record without its name, of an address of 4 or 16 bytes."""
    return _TAIL.pack(A if len(packed) == 4 else AAAA, IN, TTL_S, len(packed)) + packed


def wire_name(host: str) -> bytes:
    """``reviews.shop`` -> its lowercase wire form. Raises ValueError for what DNS cannot carry."""
    text = host.removesuffix(".").lower()
    labels = text.encode("ascii").split(b".")
    if not all(0 < len(label) < 64 for label in labels):
        raise ValueError(f"{host[:80]!r}: a label must have 1 to 63 bytes")
    name = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    if len(name) > LONGEST_NAME_BYTES:
        raise ValueError(f"{host[:80]!r}: longer than DNS allows")
    return name


def answers_question(data: bytes, id_: bytes, question: bytes) -> bool:
    """Whether bytes are a response to exactly this question: what else arrives at the port is forged or late."""
    return (
        len(data) >= HEADER_BYTES + len(question)
        and data[:2] == id_
        and data[2] & 0x80 != 0
        and data[4:6] == b"\0\x01"
        and data[HEADER_BYTES : HEADER_BYTES + len(question)].lower() == question.lower()
    )


def is_truncated(data: bytes) -> bool:
    return data[2] & 0x02 != 0


def rcode_of(data: bytes) -> int:
    return data[3] & 0x0F


def with_id(data: bytes, id_: bytes) -> bytes:
    return id_ + data[2:]


def without_nxdomain(data: bytes) -> bytes:
    """A name that exists here does not "not exist": the same answer as NODATA (RFC 2308 section 2.2)."""
    if rcode_of(data) != NXDOMAIN:
        return data
    return data[:3] + bytes((data[3] & 0xF0,)) + data[4:]


def _bare(id_: bytes, flags: int, rcode: int) -> bytes:
    return _HEADER.pack(id_, 0x8080 | flags & 0x7900 | rcode, 0, 0, 0, 0)


def _our_option(high_rcode: int) -> bytes:
    return b"\0" + pack("!HHBBHH", OPT, OUR_UDP_BYTES, high_rcode, 0, 0, 0)


def _bad_version(query: Query) -> bytes:
    head = _HEADER.pack(query.id, 0x8080 | query.flags & 0x0110, 1, 0, 0, 1)
    return head + query.question + _our_option(BADVERS_HIGH)


def _fitting(body: bytes, room: int) -> tuple[bytes, int]:
    """The whole records at the beginning of ``body`` that have room, and how many they are."""
    at, count = 0, 0
    while at + 12 <= len(body):
        end = at + 12 + int.from_bytes(body[at + 10 : at + 12], "big")
        if end > room:
            break
        at, count = end, count + 1
    return body[:at], count


def _end_of_name(data: bytes, at: int, *, pointers: bool) -> int:
    """Where a name that begins at ``at`` ends; -1 if it is broken. A pointer ends a name and is not followed."""
    begin, size = at, len(data)
    while at < size:
        length = data[at]
        if length == 0:
            return at + 1 if at + 1 - begin <= LONGEST_NAME_BYTES else -1
        if length > 63:
            return at + 2 if pointers and length >= 0xC0 and at + 2 <= size else -1
        at += length + 1
    return -1


def _option(data: bytes, at: int, before: int, count: int) -> tuple[int, int] | tuple[()] | None:
    """Walk all records to the end: (EDNS version, size), () without an OPT record, None if something is broken."""
    found: tuple[int, int] | tuple[()] = ()
    for index in range(count):
        root = at < len(data) and data[at] == 0
        at = _end_of_name(data, at, pointers=True)
        if at < 0 or at + 10 > len(data):
            return None
        type_, size, ttl, length = _TAIL.unpack_from(data, at)
        at += 10 + length
        if type_ == OPT:
            if found or not root or index < before:
                return None
            found = (ttl >> 16 & 0xFF, size)
    return found if at == len(data) else None
