"""What a registry is: a source of services and endpoints, told by key, as the objects that users write.

    Registry.batches() -> RegistryBatch(everything), RegistryBatch(changes), ...

What registries find are ServiceEntries and WorkloadEntries, so that nothing downstream has a second path for them. Their
names carry the source, ``consul:web``: no user's object can be named so, and an origin shows where a service is from. Files
say their namespace; what DNS and Consul tell has none, and lives in the namespace ``dns`` or ``consul``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from windward.config.decode import decode_object
from windward.config.finding import Finding
from windward.config.object import ConfigObject, ObjectKey

MESH = "mesh"
"""The store's own ServiceEntries and WorkloadEntries, among the registries of the settings."""
NETWORKING = "networking.istio.io"
KINDS = frozenset({"ServiceEntry", "WorkloadEntry"})


@dataclass(frozen=True, slots=True)
class RegistryBatch:
    upserts: tuple[ConfigObject[Any], ...] = ()
    removed: tuple[ObjectKey, ...] = ()
    whole: bool = False
    """All there is: what the registry told before and is not in ``upserts`` is gone."""


class Registry(Protocol):
    @property
    def name(self) -> str:
        """Unique among the registries, e.g. ``dns:db.example.com``; for logs and metrics."""

    def batches(self) -> AsyncGenerator[RegistryBatch, None]:
        """The first batch is whole, also when it is empty, and comes once the source has been read.

        Never ends; an outage of the source is waited out, what it said last stays. Ends cleanly when closed.
        """


@dataclass(frozen=True, slots=True)
class Sources:
    """Every registry there is."""

    registries: tuple[Registry, ...] = ()
    order: tuple[str, ...] = (MESH,)
    """Their names, ``mesh`` among them: the first one that has a host wins."""


def decode_found(
    source: str, raw: Mapping[str, Any]
) -> tuple[ConfigObject[Any] | None, tuple[Finding, ...]]:
    """An object that a source (``file``, ``dns``, ``consul``) tells: decoded like a user's, then named for the source."""
    made, findings = decode_object(raw)
    if made is None:
        return None, findings
    return replace(made, key=named(source, made.key)), findings


def named(source: str, key: ObjectKey) -> ObjectKey:
    return replace(key, name=f"{source}:{key.name}")
