"""The kinds: one entry each, from which decoding, the CLI and the schemas are made.

To add a kind: a module with its Struct and its ``validate``, a line in ``KINDS``, and whatever no builder reads yet in
unbuilt.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from windward.config import (
    destination_rule,
    gateway,
    mixer_rule,
    peer_authentication,
    service_entry,
    sidecar,
    virtual_service,
    workload_entry,
    workload_group,
)
from windward.config.metadata import Metadata
from windward.config.report import Report

NETWORKING: Final = "networking.istio.io"
SECURITY: Final = "security.istio.io"
MIXER: Final = "config.istio.io"

__all__ = ["KINDS", "MIXER", "NETWORKING", "SECURITY", "Kind", "Metadata"]


@dataclass(frozen=True, slots=True)
class Kind:
    group: str
    kind: str
    plural: str
    versions: tuple[str, ...]
    """All are one schema; the first is the one to write."""
    spec_type: type[msgspec.Struct]
    validate: Callable[[Any, Metadata, Report], None] = field(repr=False)
    """The rules that types cannot say: (spec, metadata, report at ``spec``)."""


def _networking(name: str, plural: str, module: Any, spec: type[msgspec.Struct]) -> Kind:
    return Kind(NETWORKING, name, plural, ("v1", "v1beta1", "v1alpha3"), spec, module.validate)


_ALL: Final = (
    _networking("Gateway", "gateways", gateway, gateway.Gateway),
    _networking(
        "VirtualService", "virtualservices", virtual_service, virtual_service.VirtualService
    ),
    _networking(
        "DestinationRule", "destinationrules", destination_rule, destination_rule.DestinationRule
    ),
    _networking("ServiceEntry", "serviceentries", service_entry, service_entry.ServiceEntry),
    _networking("WorkloadEntry", "workloadentries", workload_entry, workload_entry.WorkloadEntry),
    _networking("WorkloadGroup", "workloadgroups", workload_group, workload_group.WorkloadGroup),
    _networking("Sidecar", "sidecars", sidecar, sidecar.Sidecar),
    Kind(
        SECURITY,
        "PeerAuthentication",
        "peerauthentications",
        ("v1", "v1beta1"),
        peer_authentication.PeerAuthentication,
        peer_authentication.validate,
    ),
    Kind(
        MIXER, "handler", "handlers", ("v1alpha2",), mixer_rule.Handler, mixer_rule.validate_handler
    ),
    Kind(
        MIXER,
        "instance",
        "instances",
        ("v1alpha2",),
        mixer_rule.Instance,
        mixer_rule.validate_instance,
    ),
    Kind(MIXER, "rule", "rules", ("v1alpha2",), mixer_rule.Rule, mixer_rule.validate_rule),
)

KINDS: Final[Mapping[tuple[str, str], Kind]] = {(kind.group, kind.kind): kind for kind in _ALL}
"""(API group, kind) -> Kind."""
