"""Everything of a Pilot that views read; nothing of it is changed by reading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from services.pilot.blame.judge import Judge
from services.pilot.groups import Groups
from services.pilot.push_log import PushLog
from services.pilot.registry.liveness import Liveness, WorkloadKey
from services.pilot.snapshot import MeshSnapshot
from services.pilot.xds.connected import ConnectedProxies


@dataclass(frozen=True, slots=True)
class Observed:
    pilot: str
    """Where this Pilot serves, as clients know it."""
    snapshot: Callable[[], MeshSnapshot]
    lease: Callable[[WorkloadKey], Liveness | None]
    """How alive a registered workload is; None for one that is not registered."""
    pushes: PushLog
    groups: Groups
    connected: ConnectedProxies
    judge: Judge
