"""The last good state as one file's bytes: what is written is read back whole, by the same workload, or not at all. Pure.

    magic | format, 2 bytes | length of the header, 4 bytes | header, JSON | body, MessagePack | blake2b over all of that

The header names the identity and the node that the state belongs to; the body holds every resource that Envoy has
accepted, the names for DNS, and the certificate with its key and roots. Numbers are big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

import msgspec

from services.agent.xds_proxy.cache import Accepted, Held
from windward.rpc.credentials import TlsMaterial

FORMAT = 1
MAGIC = b"windward last good\n"
LEAD = struct.Struct(">HI")
DIGEST_BYTES = 32
LONGEST_HEADER = 64 * 1024


class UnusableError(Exception):
    """A file that must not be served from; says why, in words for the one who runs the agent."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose state it is."""

    identity: str
    node_id: str


@dataclass(frozen=True, slots=True)
class State:
    types: Mapping[str, Accepted]
    revision: str
    saved_at: float
    """Seconds since the epoch."""
    material: TlsMaterial | None = None


class _Header(msgspec.Struct, frozen=True):
    identity: str
    node_id: str
    saved_at: float
    revision: str
    body_bytes: int


class _Type(msgspec.Struct, frozen=True, array_like=True):
    resources: dict[str, tuple[str, bytes]]
    missing: list[str]


class _Body(msgspec.Struct, frozen=True, array_like=True):
    types: dict[str, _Type]
    material: tuple[bytes, bytes, bytes] | None


def encode(state: State, owner: Owner) -> bytes:
    """Types that Pilot has never answered are left out."""
    types = {
        url: _Type(
            {name: (held.version, held.entry) for name, held in known.resources.items()},
            sorted(known.missing),
        )
        for url, known in state.types.items()
        if known.answered
    }
    kept = state.material
    material = (kept.chain_pem, kept.key_pem, kept.roots_pem) if kept else None
    body = msgspec.msgpack.encode(_Body(types, material))
    header = msgspec.json.encode(
        _Header(owner.identity, owner.node_id, state.saved_at, state.revision, len(body))
    )
    content = b"".join((MAGIC, LEAD.pack(FORMAT, len(header)), header, body))
    return content + _digest(content)


def decode(raw: bytes, owner: Owner) -> State:
    """Raises UnusableError: for another format, another owner, and for anything that is not what was written."""
    header, body_at = _header(raw)
    if len(raw) != body_at + header.body_bytes + DIGEST_BYTES:
        raise UnusableError(
            f"it has {len(raw)} bytes, not {body_at + header.body_bytes + DIGEST_BYTES}: it was cut off or added to"
        )
    if _digest(raw[:-DIGEST_BYTES]) != raw[-DIGEST_BYTES:]:
        raise UnusableError("its content is not what was written: the digest differs")
    if (header.identity, header.node_id) != (owner.identity, owner.node_id):
        raise UnusableError(
            f"it belongs to {header.identity} ({header.node_id}), not to {owner.identity} ({owner.node_id})"
        )
    try:
        body = msgspec.msgpack.decode(raw[body_at:-DIGEST_BYTES], type=_Body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnusableError(f"its body is not readable: {error}") from error
    types = {
        url: Accepted(
            {name: Held(version, entry) for name, (version, entry) in kept.resources.items()},
            set(kept.missing),
            answered=True,
        )
        for url, kept in body.types.items()
    }
    material = TlsMaterial(*body.material) if body.material else None
    return State(types, header.revision, header.saved_at, material)


def _header(raw: bytes) -> tuple[_Header, int]:
    """The header, and where the body begins. The format is looked at first: nothing else is known of another one."""
    if not raw.startswith(MAGIC):
        raise UnusableError("it is not a state of this agent's" if raw else "it is empty")
    at = len(MAGIC)
    if len(raw) < at + LEAD.size:
        raise UnusableError("it was cut off")
    number, length = LEAD.unpack_from(raw, at)
    if number != FORMAT:
        age = "an older" if number < FORMAT else "a newer"
        raise UnusableError(f"{age} agent wrote it: format {number}, this one reads {FORMAT}")
    at += LEAD.size
    if length > LONGEST_HEADER or len(raw) < at + length + DIGEST_BYTES:
        raise UnusableError("it was cut off")
    try:
        return msgspec.json.decode(raw[at : at + length], type=_Header), at + length
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnusableError("its content is not what was written: the header is broken") from error


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=DIGEST_BYTES).digest()
