"""Objects by the hosts they name, so that a host's candidates are found without asking every object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from windward.config.hosts import matches

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HostIndex(Generic[T]):
    """Exact hosts by name; the few wildcards are asked one by one."""

    exact: Mapping[str, tuple[T, ...]] = field(default_factory=dict)
    wildcards: tuple[tuple[str, T], ...] = ()

    @classmethod
    def of(cls, items: Iterable[T], hosts_of: Callable[[T], Iterable[str]]) -> HostIndex[T]:
        """``hosts_of``: an item's hosts, completed. The items' order is kept below each host."""
        exact: dict[str, list[T]] = {}
        wildcards: list[tuple[str, T]] = []
        for item in items:
            for host in hosts_of(item):
                if host.startswith("*"):
                    wildcards.append((host, item))
                else:
                    exact.setdefault(host, []).append(item)
        return cls({host: tuple(found) for host, found in exact.items()}, tuple(wildcards))

    def candidates(self, host: str) -> tuple[T, ...]:
        """Every item that may be about a host: those that name it, then those whose wildcard covers it."""
        covering = tuple(item for pattern, item in self.wildcards if matches(pattern, host))
        return self.exact.get(host, ()) + covering
