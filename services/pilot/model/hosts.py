"""Objects by the hosts they name, so that a host's candidates are found without asking every object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from windward.config.hosts import matches

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HostIndex(Generic[T]):
    """Exact hosts by name; the few wildcards are asked one by one. Items stand in an order of their own below each host."""

    exact: Mapping[str, tuple[T, ...]] = field(default_factory=dict)
    wildcards: tuple[tuple[str, T], ...] = ()

    def changed(
        self,
        pairs: Iterable[tuple[T | None, T | None]],
        hosts_of: Callable[[T], Iterable[str]],
        order: Callable[[T], Any],
    ) -> HostIndex[T]:
        """The index after replacements (what goes, what comes). ``hosts_of``: an item's hosts, completed."""
        exact = dict(self.exact)
        wildcards = list(self.wildcards)
        for gone, come in pairs:
            if gone is not None:
                for host in hosts_of(gone):
                    if host.startswith("*"):
                        wildcards = [pair for pair in wildcards if pair != (host, gone)]
                        continue
                    left = tuple(item for item in exact.get(host, ()) if item is not gone)
                    if left:
                        exact[host] = left
                    else:
                        exact.pop(host, None)
            if come is not None:
                for host in hosts_of(come):
                    if host.startswith("*"):
                        wildcards.append((host, come))
                    else:
                        exact[host] = tuple(sorted((*exact.get(host, ()), come), key=order))
        wildcards.sort(key=lambda pair: order(pair[1]))
        return HostIndex(exact, tuple(wildcards))

    def candidates(self, host: str) -> tuple[T, ...]:
        """Every item that may be about a host: those that name it, then those whose wildcard covers it."""
        covering = tuple(item for pattern, item in self.wildcards if matches(pattern, host))
        return self.exact.get(host, ()) + covering
