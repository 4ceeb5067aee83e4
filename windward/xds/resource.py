"""A resource as it travels: built once, hashed once, and the same bytes for every proxy that should have it.

    builder -> Resource(type_url, name, body, origins) -> streams join the envelopes below into responses

Protobuf's rule that concatenated messages merge makes a ``DiscoveryResponse`` a join of one-resource responses, so a
response is spliced from bytes that exist already and never serialised again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from hashlib import blake2b
from typing import Final, Self

import msgspec
from msgspec.structs import force_setattr

from windward.xds.bodies import Bodies

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

KEPT_BYTES: Final = 16 * 1024
"""Longer entries are joined anew for each response: there are few of them, and each would double its memory."""


class Origin(msgspec.Struct, frozen=True, order=True, gc=False):
    """A user's object that a resource was built from.

    ``path`` is the field of that object which the resource depends on, e.g. ``spec.http[0]``; empty means all of it.
    """

    group: str
    kind: str
    namespace: str
    name: str
    path: str = ""


class Resource(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One xDS resource. Immutable; equal when type, name, version and origins are.

    ``body`` is the serialised Envoy message itself, without its Any; given in parts, it is joined only when it is sent,
    and what other resources have of the same parts is in memory once. Python's collector knows nothing of it (``gc=False``: it
    is part of no cycle), nor of maps that hold nothing else: they are most of what Pilot keeps.
    """

    type_url: str
    name: str
    _body: bytes | Sequence[bytes]
    origins: tuple[Origin, ...] = ()
    version: str = ""
    """16 hex digits: equal bytes have equal versions in every replica. blake2b over the body unless the builder, which
    may know the parts' digests, gives a digest of its own."""
    refers: frozenset[str] = frozenset()
    """Names of clusters and route configurations that this one cannot do without: a route's clusters, a listener's routes."""
    size: int = 0
    """Bytes of the body; found out, not given."""
    _entry: bytes | None = None

    def __post_init__(self) -> None:
        if isinstance(self._body, bytes):
            force_setattr(self, "size", len(self._body))
        else:
            force_setattr(self, "size", sum(map(len, self._body)))
        if not self.version:
            force_setattr(self, "version", blake2b(self.body, digest_size=8).hexdigest())

    @property
    def _parts(self) -> Sequence[bytes]:
        return (self._body,) if isinstance(self._body, bytes) else self._body

    @property
    def body(self) -> bytes:
        return self._body if isinstance(self._body, bytes) else b"".join(self._body)

    @property
    def any_entry(self) -> bytes:
        """``DiscoveryResponse.resources`` (field 2), tag and length included."""
        head = self._any_head()
        return b"".join((_head(2, len(head) + self.size), head, *self._parts))

    @property
    def delta_entry(self) -> bytes:
        """``DeltaDiscoveryResponse.resources`` (field 2), tag and length included. Kept after its first use unless it is long."""
        if self._entry is not None:
            return self._entry
        wrapped = self._any_head()
        lead = bytes_field(1, self.version.encode()) + _head(2, len(wrapped) + self.size) + wrapped
        tail = bytes_field(3, self.name.encode())
        size = len(lead) + self.size + len(tail)
        entry = b"".join((_head(2, size), lead, *self._parts, tail))
        if self.size <= KEPT_BYTES:
            force_setattr(self, "_entry", entry)
        return entry

    def _any_head(self) -> bytes:
        """What stands before the body in its Any: type_url = 1, value = 2."""
        return bytes_field(1, self.type_url.encode()) + _head(2, self.size)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Resource):
            return NotImplemented
        return (
            self.version == other.version
            and self.name == other.name
            and self.type_url == other.type_url
            and self.origins == other.origins
        )

    def __ne__(self, other: object) -> bool:
        return not self == other  # a struct has one of its own

    def __hash__(self) -> int:
        return hash((self.type_url, self.name, self.version))

    def __repr__(self) -> str:
        return f"Resource({self.type_url!r}, {self.name!r}, version={self.version})"


class Changes(msgspec.Struct, frozen=True, gc=False):
    """What differs between two sets of one group, the earlier of which it names."""

    since: int
    """The version that it leads from."""
    names: Mapping[str, frozenset[str]]
    """type URL -> names of resources that were added, changed or removed."""


Layer = Mapping[str, Mapping[str, Resource]]
"""Type URL -> name -> resource; a type without resources may be left out. Never changed once it is part of a set."""
NOTHING: Final[Mapping[str, Resource]] = {}


class ResourceSet(msgspec.Struct, frozen=True, gc=False, eq=False):
    """All that one proxy group should have at one version of the mesh. Immutable: replaced whole, never changed."""

    version: int
    """Rises with every snapshot of the mesh in this process."""
    revision: int
    """The store's revision of configuration that this set reflects."""
    layers: tuple[Layer, ...]
    """The first layer that has a name counts: the proxies' own resources before what they share with others. Maps are shared
    with other sets, and the same map object as in an earlier set means that nothing in it has changed."""
    changes: tuple[Changes, ...] = ()
    """How it came about, the latest change first: ``changes[0]`` leads here from ``changes[0].since``, ``changes[1]`` leads to
    that version, and so on as far as is remembered. Saves work only: without it a set is compared whole."""
    bodies: Bodies = msgspec.field(default_factory=Bodies)
    """Where streams keep the bodies of their responses; sets of several groups may have the same one."""
    position: str = ""
    """How much of the store this set reflects, in words that mean the same in every replica: what clients are told as the
    version of what they are sent. Empty: the revision."""

    @classmethod
    def of(
        cls, version: int, revision: int, by_type: Layer, changes: tuple[Changes, ...] = ()
    ) -> Self:
        """A set of one layer."""
        return cls(version, revision, (by_type,), changes)

    @property
    def told(self) -> str:
        """The position, as responses carry it."""
        return self.position or str(self.revision)

    def get(self, type_url: str, name: str) -> Resource | None:
        for layer in self.layers:
            named = layer.get(type_url)
            if named and (found := named.get(name)) is not None:
                return found
        return None

    def names(self, type_url: str) -> AbstractSet[str]:
        """Every name of a type. O(1) when one layer alone has the type."""
        maps = [found for layer in self.layers if (found := layer.get(type_url))]
        if len(maps) == 1:
            return maps[0].keys()
        return {name for named in maps for name in named}

    def shares(self, other: ResourceSet, type_url: str) -> bool:
        """Whether both have the very same maps of a type, so that nothing in it differs."""
        return len(self.layers) == len(other.layers) and all(
            mine.get(type_url) is theirs.get(type_url)
            for mine, theirs in zip(self.layers, other.layers, strict=True)
        )

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
        if self.changes and self.changes[0].since == version:
            return self.changes[0].names
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
    return _head(number, len(value)) + value


def _head(number: int, length: int) -> bytes:
    return _varint(number << 3 | 2) + _varint(length)
