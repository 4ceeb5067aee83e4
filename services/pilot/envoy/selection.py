"""Which objects apply to a host, a port or a workload: Istio's look-up rules, pure.

Source: istio pilot/pkg/model/push_context.go (destinationRule), pilot/pkg/security/authn/policy_applier.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from windward.config.destination_rule import DestinationRule, Subset
from windward.config.hosts import matches, resolve, specificity
from windward.config.object import ConfigObject
from windward.config.peer_authentication import MutualTLSMode, PeerAuthentication
from windward.config.virtual_service import MESH, VirtualService
from windward.identity.names import ROOT_NAMESPACE
from windward.xds.resource import Origin

Rule = ConfigObject[DestinationRule]


@dataclass(frozen=True, slots=True)
class MergedRule:
    """Rules of one host and namespace taken together, and the objects they were."""

    spec: DestinationRule
    origins: tuple[Origin, ...]


def exported(export_to: Sequence[str], owner: str, namespace: str) -> bool:
    """Istio's exportTo, seen from a namespace."""
    if not export_to or "*" in export_to:
        return True
    return namespace in export_to or ("." in export_to and owner == namespace)


def destination_rule(
    rules: Iterable[Rule], host: str, service_namespace: str, proxy_namespace: str
) -> MergedRule | None:
    """The client's namespace, then the service's, then the root's: the first level that has one wins, whole."""
    candidates = [
        rule for rule in rules if matches(resolve(rule.spec.host, rule.key.namespace), host)
    ]
    for level in dict.fromkeys((proxy_namespace, service_namespace, ROOT_NAMESPACE)):
        own = level == proxy_namespace
        here = [
            rule
            for rule in candidates
            if rule.key.namespace == level
            and (own or exported(rule.spec.export_to, rule.key.namespace, proxy_namespace))
        ]
        if here:
            return _merge(here)
    return None


def _merge(rules: Sequence[Rule]) -> MergedRule:
    """The most specific host's rules, oldest first: subsets united by name, the first top-level policy wins."""
    best = min(specificity(resolve(rule.spec.host, rule.key.namespace)) for rule in rules)
    chosen = [
        rule for rule in rules if specificity(resolve(rule.spec.host, rule.key.namespace)) == best
    ]
    origins = tuple(Origin(r.key.group, r.key.kind, r.key.namespace, r.key.name) for r in chosen)
    if len(chosen) == 1:
        return MergedRule(chosen[0].spec, origins)
    subsets: dict[str, Subset] = {}
    for rule in chosen:
        for subset in rule.spec.subsets:
            subsets.setdefault(subset.name, subset)
    policy = next(
        (rule.spec.traffic_policy for rule in chosen if rule.spec.traffic_policy is not None), None
    )
    spec = DestinationRule(
        host=chosen[0].spec.host, traffic_policy=policy, subsets=tuple(subsets.values())
    )
    return MergedRule(spec, origins)


def mesh_virtual_service(
    services: Iterable[ConfigObject[VirtualService]], host: str, proxy_namespace: str
) -> ConfigObject[VirtualService] | None:
    """The VirtualService for a host on the mesh: most specific host first, then the oldest; never merged."""
    best: tuple[tuple[int, int], ConfigObject[VirtualService]] | None = None
    for item in services:
        spec = item.spec
        if spec.gateways and MESH not in spec.gateways:
            continue
        if not exported(spec.export_to, item.key.namespace, proxy_namespace):
            continue
        for pattern in spec.hosts:
            resolved = resolve(pattern, item.key.namespace)
            if matches(resolved, host):
                rank = specificity(resolved)
                if best is None or rank < best[0]:
                    best = (rank, item)
    return best[1] if best else None


@dataclass(frozen=True, slots=True)
class PeerModes:
    """What a workload demands of callers."""

    default: MutualTLSMode
    ports: Mapping[int, MutualTLSMode]
    deciding: tuple[ConfigObject[PeerAuthentication], ...]
    """Those that say so, at most one a scope; a wider one that a narrower one overrides is among them."""

    def of(self, port: int) -> MutualTLSMode:
        return self.ports.get(port, self.default)


def peer_modes(
    policies: Iterable[ConfigObject[PeerAuthentication]], namespace: str, labels: Mapping[str, str]
) -> PeerModes:
    """Workload over namespace over mesh; UNSET inherits; several in one scope: the oldest. No policy: PERMISSIVE."""
    mesh = space = workload = None
    for item in policies:
        selector = item.spec.selector.match_labels if item.spec.selector else {}
        if selector:
            mine = item.key.namespace == namespace and all(
                labels.get(k) == v for k, v in selector.items()
            )
            if mine and item.key.namespace != ROOT_NAMESPACE and workload is None:
                workload = item
        elif item.key.namespace == ROOT_NAMESPACE:
            mesh = mesh or item
        elif item.key.namespace == namespace:
            space = space or item
    deciding = tuple(item for item in (mesh, space, workload) if item is not None)
    default = MutualTLSMode.PERMISSIVE
    for item in deciding:
        if item.spec.mtls is not None and item.spec.mtls.mode is not MutualTLSMode.UNSET:
            default = item.spec.mtls.mode
    ports = {}
    for port, mtls in ((workload and workload.spec.port_level_mtls) or {}).items():
        ports[port] = default if mtls.mode is MutualTLSMode.UNSET else mtls.mode
    return PeerModes(default, ports, deciding)
