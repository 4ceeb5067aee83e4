"""Discovery envelopes as bytes: what the proxy must know of a message is read from the wire, what is in it stays shut.

    DeltaDiscoveryRequest, DeltaDiscoveryResponse  -> Request, Response (nonces, names, versions; resources as bytes)
    DiscoveryRequest                               -> SotwRequest, for secrets

No protobuf runtime: a resource's bytes are the same when they leave as when they came, fields that are not known here
among them, and the agent stays small. Field numbers: envoy/service/discovery/v3/discovery.proto; wire types:
https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from windward.xds.envelope import text_field, varint

LONGEST_VARINT = 10
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class WireError(ValueError):
    """Bytes that are not a message of the kind that was expected."""


@dataclass(frozen=True, slots=True)
class Item:
    """One resource of a response. ``entry`` is the whole ``Resource`` message, serialised."""

    name: str
    version: str
    entry: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """A DeltaDiscoveryRequest."""

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = field(default_factory=dict)
    nonce: str = ""
    error: bytes | None = None
    """A google.rpc.Status, serialised: this is a NACK."""
    node: bytes | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """A DeltaDiscoveryResponse."""

    type_url: str
    nonce: str = ""
    version: str = ""
    """``system_version_info``."""
    items: tuple[Item, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SotwRequest:
    """A DiscoveryRequest, as far as secrets need it."""

    type_url: str
    names: tuple[str, ...] = ()
    nonce: str = ""
    version: str = ""
    error: bytes | None = None


def fields(raw: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Each field's number with its bytes, or with its number for a varint and for one of a fixed width. Raises WireError.

    Groups, which proto3 does not have, are refused.
    """
    at, end = 0, len(raw)
    while at < end:
        key, at = _varint(raw, at)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise WireError("a field with the number 0")
        if wire_type == VARINT:
            value, at = _varint(raw, at)
            yield number, value
            continue
        if wire_type == BYTES:
            length, at = _varint(raw, at)
        elif wire_type in {FIXED64, FIXED32}:
            length = 8 if wire_type == FIXED64 else 4
        else:
            raise WireError(f"wire type {wire_type} does not exist in proto3")
        if length > end - at:
            raise WireError("the message ends within a field")
        content = raw[at : at + length]
        yield number, content if wire_type == BYTES else int.from_bytes(content, "little")
        at += length


def bytes_field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | BYTES) + varint(len(value)) + value


def read_request(raw: bytes) -> Request:
    """Raises WireError."""
    type_url, nonce = "", ""
    subscribe: list[str] = []
    unsubscribe: list[str] = []
    versions: dict[str, str] = {}
    error: bytes | None = None
    node: bytes | None = None
    for number, value in fields(raw):
        match number:
            case 1:
                # A message that comes twice is merged, and merging is joining.
                node = (node or b"") + _bytes(value)
            case 2:
                type_url = _text(value)
            case 3:
                subscribe.append(_text(value))
            case 4:
                unsubscribe.append(_text(value))
            case 5:
                name, version = _map_entry(_bytes(value))
                versions[name] = version
            case 6:
                nonce = _text(value)
            case 7:
                error = (error or b"") + _bytes(value)
            case _:
                pass
    return Request(type_url, tuple(subscribe), tuple(unsubscribe), versions, nonce, error, node)


def write_request(request: Request) -> bytes:
    parts = [bytes_field(1, request.node)] if request.node is not None else []
    parts.append(text_field(2, request.type_url))
    parts += [text_field(3, name) for name in request.subscribe]
    parts += [text_field(4, name) for name in request.unsubscribe]
    parts += [
        bytes_field(5, text_field(1, name) + text_field(2, version))
        for name, version in request.initial_versions.items()
    ]
    if request.nonce:
        parts.append(text_field(6, request.nonce))
    if request.error is not None:
        parts.append(bytes_field(7, request.error))
    return b"".join(parts)


def read_response(raw: bytes) -> Response:
    """Raises WireError."""
    type_url, nonce, version = "", "", ""
    items: list[Item] = []
    removed: list[str] = []
    for number, value in fields(raw):
        match number:
            case 1:
                version = _text(value)
            case 2:
                items.append(_item(_bytes(value)))
            case 4:
                type_url = _text(value)
            case 5:
                nonce = _text(value)
            case 6:
                removed.append(_text(value))
            case _:
                pass
    return Response(type_url, nonce, version, tuple(items), tuple(removed))


def with_nonce(raw: bytes, nonce: str) -> bytes:
    """The same response under another nonce: of a field that comes twice, the last one counts."""
    return raw + text_field(5, nonce)


def write_response(
    type_url: str, entries: Iterable[bytes], removed: Iterable[str], version: str, nonce: str
) -> bytes:
    """A DeltaDiscoveryResponse of whole ``Resource`` messages."""
    parts = [text_field(1, version)]
    parts += [bytes_field(2, entry) for entry in entries]
    parts += [text_field(4, type_url), text_field(5, nonce)]
    parts += [text_field(6, name) for name in removed]
    return b"".join(parts)


def read_sotw_request(raw: bytes) -> SotwRequest:
    """Raises WireError."""
    type_url, nonce, version = "", "", ""
    names: list[str] = []
    error: bytes | None = None
    for number, value in fields(raw):
        match number:
            case 1:
                version = _text(value)
            case 3:
                names.append(_text(value))
            case 4:
                type_url = _text(value)
            case 5:
                nonce = _text(value)
            case 6:
                error = (error or b"") + _bytes(value)
            case _:
                pass
    return SotwRequest(type_url, tuple(names), nonce, version, error)


def body_of(entry: bytes) -> bytes:
    """The message inside a ``Resource``: the value of its Any; empty for a resource without one."""
    body = b""
    for number, value in fields(entry):
        if number == 2:
            for inner, content in fields(_bytes(value)):
                if inner == 2:
                    body = _bytes(content)
    return body


def status(message: str) -> bytes:
    """A google.rpc.Status of code 3 (INVALID_ARGUMENT), serialised: why something is refused."""
    return varint(1 << 3 | VARINT) + varint(3) + text_field(2, message)


def message_of(error: bytes) -> str:
    """The words of a google.rpc.Status, for logs."""
    try:
        for number, value in fields(error):
            if number == 2:
                return _text(value)
    except WireError:
        pass
    return ""


def _item(entry: bytes) -> Item:
    name, version = "", ""
    for number, value in fields(entry):
        if number == 1:
            version = _text(value)
        elif number == 3:
            name = _text(value)
    return Item(name, version, entry)


def _map_entry(raw: bytes) -> tuple[str, str]:
    key, value = "", ""
    for number, content in fields(raw):
        if number == 1:
            key = _text(content)
        elif number == 2:
            value = _text(content)
    return key, value


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    for index in range(at, min(at + LONGEST_VARINT, len(raw))):
        byte = raw[index]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFF_FFFF_FFFF_FFFF, index + 1
        shift += 7
    raise WireError("the message ends within a number, or the number does not end")


def _bytes(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise WireError("a number where text or a message is expected")
    return value


def _text(value: bytes | int) -> str:
    try:
        return _bytes(value).decode()
    except UnicodeDecodeError as error:
        raise WireError("text that is not UTF-8") from error
