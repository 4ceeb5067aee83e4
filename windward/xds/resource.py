"""A resource as it travels: built once, hashed once, and the same bytes for every proxy that should have it.

    builder -> Resource(type_url, name, body, origins) -> streams join the envelopes below into responses

Protobuf's rule that concatenated messages merge makes a ``DiscoveryResponse`` a join of one-resource responses, so a
response is spliced from bytes that exist already and never serialised again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

TYPE_PREFIX: Final = "type.googleapis.com/"
CLUSTER: Final = TYPE_PREFIX + "envoy.config.cluster.v3.Cluster"
ENDPOINT: Final = TYPE_PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER: Final = TYPE_PREFIX + "envoy.config.listener.v3.Listener"
ROUTE: Final = TYPE_PREFIX + "envoy.config.route.v3.RouteConfiguration"
SECRET: Final = TYPE_PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"
EXTENSION: Final = TYPE_PREFIX + "envoy.config.core.v3.TypedExtensionConfig"
NAME_TABLE: Final = TYPE_PREFIX + "istio.networking.nds.v1.NameTable"
"""Names for the agents' DNS proxies: one resource a host."""

PUSH_ORDER: Final = (CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET, EXTENSION, NAME_TABLE)
"""Make before break: what is referred to goes first; removals go in the reverse order, last."""

WILDCARD_TYPES: Final = frozenset({CLUSTER, LISTENER, NAME_TABLE})
"""Types of which a client that names nothing gets everything (xDS protocol, "how the client specifies what to return")."""


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """A user's object that a resource was built from.

    ``path`` is the field of that object which the resource depends on, e.g. ``spec.http[0]``; empty means all of it.
    """

    group: str
    kind: str
    namespace: str
    name: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class Resource:
    """One xDS resource. ``body`` is the serialised Envoy message itself, without its Any."""

    type_url: str
    name: str
    body: bytes
    origins: tuple[Origin, ...] = ()
    version: str = field(init=False)
    """blake2b over the body, 16 hex digits: equal bytes have equal versions in every replica."""
    any_entry: bytes = field(init=False, repr=False)
    """``DiscoveryResponse.resources`` (field 2), tag and length included."""
    delta_entry: bytes = field(init=False, repr=False)
    """``DeltaDiscoveryResponse.resources`` (field 2), tag and length included."""

    def __post_init__(self) -> None:
        version = blake2b(self.body, digest_size=8).hexdigest()
        wrapped = _bytes_field(1, self.type_url.encode()) + _bytes_field(2, self.body)
        entry = (
            _bytes_field(1, version.encode())
            + _bytes_field(2, wrapped)
            + _bytes_field(3, self.name.encode())
        )
        object.__setattr__(self, "version", version)
        object.__setattr__(self, "any_entry", _bytes_field(2, wrapped))
        object.__setattr__(self, "delta_entry", _bytes_field(2, entry))


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between two sets of one group, the earlier of which it names."""

    since: int
    """The version that it leads from."""
    names: Mapping[str, frozenset[str]]
    """type URL -> names of resources that were added, changed or removed."""


@dataclass(frozen=True, slots=True)
class ResourceSet:
    """All that one proxy group should have at one version of the mesh. Immutable: replaced whole, never changed."""

    version: int
    """Rises with every snapshot of the mesh in this process."""
    revision: int
    """The store's revision that this set reflects; the same number means the same bytes in every replica."""
    by_type: Mapping[str, Mapping[str, Resource]]
    """type URL -> name -> resource. A type without resources may be left out."""
    changes: tuple[Changes, ...] = ()
    """How it came about, the latest change first: ``changes[0]`` leads here from ``changes[0].since``, ``changes[1]`` leads to
    that version, and so on as far as is remembered. Saves work only: without it a set is compared whole."""

    def changed_since(self, version: int) -> Mapping[str, frozenset[str]] | None:
        """Type URL -> names that may differ from a set of that version; None when that is not remembered."""
        if version == self.version:
            return {}
        found: dict[str, frozenset[str]] = {}
        for change in self.changes:
            for type_url, names in change.names.items():
                found[type_url] = found.get(type_url, frozenset()) | names
            if change.since == version:
                return found
        return None


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _bytes_field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value
