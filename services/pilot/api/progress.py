"""How far an object is: what its last change pushed, who has accepted it, and what Envoy has against it."""

from __future__ import annotations

from dataclasses import dataclass

from services.pilot.blame.blame import Blame
from services.pilot.blame.judge import Case, Judge
from services.pilot.push_log import PushLog
from windward.api.config.v1 import config_pb2
from windward.config.object import ObjectKey


@dataclass(frozen=True, slots=True)
class Progress:
    pushes: PushLog
    judge: Judge

    def add_to(self, status: config_pb2.ObjectStatus, key: ObjectKey) -> None:
        """Fill in what is known of an object's last push and of refusals."""
        push = self.pushes.of(key)
        if push is not None:
            status.push.CopyFrom(
                config_pb2.Push(
                    version=push.version,
                    proxies=push.proxies,
                    accepted=push.accepted,
                    resources=sum(map(len, push.resources.values())),
                    p50_ms=1000 * (push.percentile_s(0.5) or 0.0),
                    p99_ms=1000 * (push.percentile_s(0.99) or 0.0),
                )
            )
            status.push.at.FromDatetime(push.at)
        for case in self.judge.about(key):
            mine = [blame for blame in case.blames if blame.key == key]
            status.refusals.extend(_refusal(case, blame) for blame in mine or (None,))


def _refusal(case: Case, blame: Blame | None) -> config_pb2.Refusal:
    made = config_pb2.Refusal(
        type_url=case.refusal.type_url,
        name=case.refusal.name,
        version=case.refusal.version,
        path=blame.path if blame is not None else "",
        message=(blame.words if blame is not None else case.refusal.error)[:2000],
        by=sorted(case.identities),
        held=case.proved,
    )
    made.at.FromDatetime(case.at)
    return made
