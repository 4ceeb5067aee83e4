"""PeerAuthentication: whether a workload takes mTLS, plaintext or both. Source: peer_authentication.proto."""

from __future__ import annotations

from enum import Enum

from windward.config.common import check_port, check_selector
from windward.config.metadata import Metadata
from windward.config.report import Report
from windward.config.types import Spec, UInt32


class MutualTLSMode(Enum):
    UNSET = "UNSET"
    DISABLE = "DISABLE"
    PERMISSIVE = "PERMISSIVE"
    STRICT = "STRICT"


class MutualTLS(Spec, frozen=True):
    mode: MutualTLSMode = MutualTLSMode.UNSET


class LabelSelector(Spec, frozen=True):
    """type/v1beta1's selector."""

    match_labels: dict[str, str] = {}


class PeerAuthentication(Spec, frozen=True):
    selector: LabelSelector | None = None
    mtls: MutualTLS | None = None
    port_level_mtls: dict[UInt32, MutualTLS] | None = None


def validate(spec: PeerAuthentication, _: Metadata, report: Report) -> None:
    if spec.selector is not None:
        check_selector(spec.selector.match_labels, report.at("selector", "matchLabels"))
    if spec.port_level_mtls is None:
        return
    if not spec.port_level_mtls:
        report.at("portLevelMtls").error("required", "must name at least one port")
    elif spec.selector is None or not spec.selector.match_labels:
        report.at("portLevelMtls").error(
            "conflict", "needs a selector with labels", "add selector.matchLabels"
        )
    for port in spec.port_level_mtls:
        check_port(port, report.at("portLevelMtls").key(port))
