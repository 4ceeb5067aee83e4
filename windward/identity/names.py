"""Names of the control plane itself: its service accounts, and the DNS names that Citadel alone assigns to them.

A gRPC client verifies host names, so the control plane's certificates carry a DNS name beside the SPIFFE URI; clients
pin it (``grpc.ssl_target_name_override``). No workload can obtain one: Citadel gives them to these accounts of the
root namespace only.
"""

from __future__ import annotations

from typing import Final

ROOT_NAMESPACE: Final = "istio-system"
TRUST_DOMAIN: Final = "cluster.local"

PILOT_ACCOUNT: Final = "windward-pilot"
MIXER_ACCOUNT: Final = "windward-mixer"
CITADEL_ACCOUNT: Final = "windward-citadel"
ADMIN_ACCOUNT: Final = "windward-admin"

CONTROL_PLANE_DNS: Final = {
    PILOT_ACCOUNT: "pilot.windward.internal",
    MIXER_ACCOUNT: "mixer.windward.internal",
    CITADEL_ACCOUNT: "citadel.windward.internal",
}
"""Service account of the root namespace -> DNS name in its certificate."""
