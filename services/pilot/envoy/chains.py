"""Filter chains as bytes, made once and spliced into listeners.

    FilterChain ─► ChainBytes ─► joined between what a listener has before its chains and after them

Concatenated fields are one message: the bytes are those that the whole listener, serialised at once, would have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from hashlib import blake2b

from envoy.config.listener.v3 import listener_components_pb2 as parts
from envoy.config.listener.v3 import listener_pb2

from windward.xds import resource as xds
from windward.xds.resource import Origin, Resource, bytes_field

FILTER_CHAINS = listener_pb2.Listener.FILTER_CHAINS_FIELD_NUMBER


@dataclass(frozen=True, slots=True)
class ChainBytes:
    """``Listener.filter_chains``, tag and length included."""

    field: bytes
    digest: bytes = dataclass_field(repr=False, compare=False)


def spliceable(chain: parts.FilterChain) -> ChainBytes:
    body = bytes_field(FILTER_CHAINS, chain.SerializeToString(deterministic=True))
    return ChainBytes(body, _digest(body))


def spliced(
    frame: listener_pb2.Listener, chains: Iterable[ChainBytes], origins: tuple[Origin, ...] = ()
) -> Resource:
    """``frame``: the listener without chains. The version is a digest of its parts' digests."""
    head = listener_pb2.Listener(name=frame.name, address=frame.address)
    rest = listener_pb2.Listener()
    rest.CopyFrom(frame)
    rest.ClearField("name")
    rest.ClearField("address")
    first = head.SerializeToString(deterministic=True)
    last = rest.SerializeToString(deterministic=True)
    version = blake2b(_digest(first), digest_size=8)
    fields = []
    for chain in chains:
        fields.append(chain.field)
        version.update(chain.digest)
    version.update(_digest(last))
    return Resource(xds.LISTENER, frame.name, (first, *fields, last), origins, version.hexdigest())


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()
