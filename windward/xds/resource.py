"""A resource as it travels: built once, hashed once, and the same bytes for every proxy that should have it.

    builder -> Resource(type_url, name, body, origins) -> streams join the envelopes below into responses

Protobuf's rule that concatenated messages merge makes a ``DiscoveryResponse`` a join of one-resource responses, so a
response is spliced from bytes that exist already and never serialised again.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, Self

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
    version: str = ""
    """16 hex digits: equal bytes have equal versions in every replica. blake2b over the body unless the builder, which
    may know the parts' digests, gives a digest of its own."""
    any_entry: bytes = field(init=False, repr=False)
    """``DiscoveryResponse.resources`` (field 2), tag and length included."""
    delta_entry: bytes = field(init=False, repr=False)
    """``DeltaDiscoveryResponse.resources`` (field 2), tag and length included."""

    def __post_init__(self) -> None:
        version = self.version or blake2b(self.body, digest_size=8).hexdigest()
        wrapped = bytes_field(1, self.type_url.encode()) + bytes_field(2, self.body)
        entry = (
            bytes_field(1, version.encode())
            + bytes_field(2, wrapped)
            + bytes_field(3, self.name.encode())
        )
        object.__setattr__(self, "version", version)
        object.__setattr__(self, "any_entry", bytes_field(2, wrapped))
        object.__setattr__(self, "delta_entry", bytes_field(2, entry))


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between two sets of one group, the earlier of which it names."""

    since: int
    """The version that it leads from."""
    names: Mapping[str, frozenset[str]]
    """type URL -> names of resources that were added, changed or removed."""


Layer = Mapping[str, Mapping[str, Resource]]
"""Type URL -> name -> resource; a type without resources may be left out. Never changed once it is part of a set."""
NOTHING: Final[Mapping[str, Resource]] = {}


@dataclass(frozen=True, slots=True)
class ResourceSet:
    """All that one proxy group should have at one version of the mesh. Immutable: replaced whole, never changed."""

    version: int
    """Rises with every snapshot of the mesh in this process."""
    revision: int
    """The store's revision that this set reflects; the same number means the same bytes in every replica."""
    layers: tuple[Layer, ...]
    """The first layer that has a name counts: the proxies' own resources before what they share with others. Maps are shared
    with other sets, and the same map object as in an earlier set means that nothing in it has changed."""
    changes: tuple[Changes, ...] = ()
    """How it came about, the latest change first: ``changes[0]`` leads here from ``changes[0].since``, ``changes[1]`` leads to
    that version, and so on as far as is remembered. Saves work only: without it a set is compared whole."""

    @classmethod
    def of(
        cls, version: int, revision: int, by_type: Layer, changes: tuple[Changes, ...] = ()
    ) -> Self:
        """A set of one layer."""
        return cls(version, revision, (by_type,), changes)

    def get(self, type_url: str, name: str) -> Resource | None:
        for layer in self.layers:
            found = layer.get(type_url, NOTHING).get(name)
            if found is not None:
                return found
        return None

    def names(self, type_url: str) -> AbstractSet[str]:
        """Every name of a type. O(1) when one layer alone has the type."""
        maps = [found for layer in self.layers if (found := layer.get(type_url))]
        if len(maps) == 1:
            return maps[0].keys()
        return {name for named in maps for name in named}

    @property
    def by_type(self) -> Layer:
        """The layers merged: made anew with each call, for tests and for what looks at a whole set now and then."""
        merged: dict[str, dict[str, Resource]] = {}
        for layer in reversed(self.layers):
            for type_url, named in layer.items():
                merged.setdefault(type_url, {}).update(named)
        return merged

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


def bytes_field(number: int, value: bytes) -> bytes:
    """A length-delimited field on the wire: tag, length, value."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value
