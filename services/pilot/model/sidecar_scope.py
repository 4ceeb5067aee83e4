"""Which Sidecar applies to a proxy, and what it lets the proxy see. Pure.

    Sidecars of the mesh -> Sidecars.of -> applies_to(namespace, labels) -> egress_scope -> EgressScope.allows(host, ns)

Source: networking/v1alpha3/sidecar.proto; istio pilot/pkg/model/push_context.go (getSidecarScope) and sidecar.go
(a service is imported when its host is a subset of a listed one).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from windward.config.hosts import matches
from windward.config.object import ConfigObject
from windward.config.sidecar import Sidecar

ANY = "*"
OWN = "."
NOBODY = "~"
_EPOCH = datetime.min.replace(tzinfo=UTC)

Pattern = tuple[str, str]
"""(namespace or ``*``, host pattern)."""


@dataclass(frozen=True, slots=True)
class EgressScope:
    """The hosts that a proxy may see. Two scopes that list the same are equal, whoever wrote them."""

    included: frozenset[Pattern] = frozenset({(ANY, ANY)})
    excluded: frozenset[Pattern] = frozenset()

    def allows(self, host: str, namespace: str) -> bool:
        """Whether a host (exact, or itself ``*.foo.com``) of a namespace is seen: all of it, not a part."""
        return _listed(self.included, host, namespace) and not _listed(
            self.excluded, host, namespace
        )


EVERYTHING = EgressScope()


def _listed(patterns: frozenset[Pattern], host: str, namespace: str) -> bool:
    for of in (namespace, ANY):
        # What is usual is found without asking every pattern.
        if (of, ANY) in patterns or (of, host) in patterns:
            return True
    return any(
        of in (namespace, ANY) and name.startswith(ANY) and matches(name, host)
        for of, name in patterns
    )


def egress_scope(sidecar: ConfigObject[Sidecar] | None, namespace: str) -> EgressScope:
    """What a Sidecar lets the proxies of a namespace see. ``.`` is the proxy's namespace, in the root's Sidecar too.

    Without a Sidecar, or without egress in it, everything is seen.
    """
    if sidecar is None or not sidecar.spec.egress:
        return EVERYTHING
    included: set[Pattern] = set()
    excluded: set[Pattern] = set()
    for listener in sidecar.spec.egress:
        for entry in listener.hosts:
            of, _, name = entry.partition("/")
            if of == NOBODY:
                continue
            if of.startswith(NOBODY):
                excluded.add((of.removeprefix(NOBODY), name))
            else:
                included.add((namespace if of == OWN else of, name))
    if (ANY, ANY) in included:
        included = {(ANY, ANY)}
    return EgressScope(frozenset(included), frozenset(excluded))


@dataclass(frozen=True, slots=True)
class Sidecars:
    """The mesh's Sidecars, found by namespace; each list is oldest first."""

    root_namespace: str
    selecting: Mapping[str, tuple[ConfigObject[Sidecar], ...]] = field(default_factory=dict)
    plain: Mapping[str, ConfigObject[Sidecar]] = field(default_factory=dict)
    """Namespace -> the oldest Sidecar without a selector."""

    @classmethod
    def of(cls, sidecars: Iterable[ConfigObject[Sidecar]], root_namespace: str) -> Sidecars:
        """In any order."""
        selecting: dict[str, list[ConfigObject[Sidecar]]] = {}
        plain: dict[str, ConfigObject[Sidecar]] = {}
        for item in sorted(sidecars, key=_age):
            if _selector(item):
                selecting.setdefault(item.key.namespace, []).append(item)
            else:
                plain.setdefault(item.key.namespace, item)
        return cls(root_namespace, {key: tuple(found) for key, found in selecting.items()}, plain)

    def applies_to(self, namespace: str, labels: Mapping[str, str]) -> ConfigObject[Sidecar] | None:
        """The oldest whose selector picks the proxy; its namespace's own; the root namespace's; None."""
        for item in self.selecting.get(namespace, ()):
            if all(labels.get(key) == value for key, value in _selector(item).items()):
                return item
        return self.plain.get(namespace) or self.plain.get(self.root_namespace)

    def scope(self, namespace: str, labels: Mapping[str, str]) -> EgressScope:
        return egress_scope(self.applies_to(namespace, labels), namespace)


def _selector(item: ConfigObject[Sidecar]) -> Mapping[str, str]:
    """Empty: every workload of the namespace."""
    selector = item.spec.workload_selector
    return selector.labels if selector is not None else {}


def _age(item: ConfigObject[Sidecar]) -> tuple[datetime, str, str]:
    return (item.created_at or _EPOCH, item.key.namespace, item.key.name)
