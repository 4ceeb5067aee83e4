"""A configuration object: what names it, its metadata, its typed spec, and the JSON that the user wrote."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

S_co = TypeVar("S_co", bound=msgspec.Struct, covariant=True)


@dataclass(frozen=True, slots=True, order=True)
class ObjectKey:
    """What names an object. The API version is not part of it: v1 and v1beta1 are one object."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class ConfigObject(Generic[S_co]):
    """A valid object as it stands in the store."""

    key: ObjectKey
    spec: S_co
    """The kind's Struct, e.g. windward.config.virtual_service.VirtualService. Never mutated."""
    raw: dict[str, Any]
    """The whole object as the user wrote it: apiVersion, kind, metadata, spec."""
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    revision: int = 0
    """The store's revision of the last write."""
    generation: int = 1
    created_at: datetime | None = None
    """Aware UTC; decides which of two objects is the older one."""
