"""What each failed request of a chaos run is due to. Pure.

    kills, all requests -> when each sidecar was down -> a verdict for each failed request

A kill takes what was under way on the killed Envoy, and it takes the workload away until its Envoy answers again. A
request is excused by the first only if it was under way then, and by the second only if nobody else could have served it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from math import inf

from benchmarks.requests import Ended

REACH_S = 0.25
"""After a process is gone: how long its peers may take to read that on a busy machine."""
CONTROL_PLANE = ("pilot", "citadel")
GATEWAY = "gateway"


class Part(Enum):
    """What is killed. With an agent goes its Envoy (PR_SET_PDEATHSIG)."""

    ENVOY = "envoy"
    AGENT = "agent"
    PILOT = "pilot"
    CITADEL = "citadel"


class Verdict(Enum):
    IN_FLIGHT = "in_flight"
    """Under way when an Envoy on its path was killed."""
    GATEWAY_DOWN = "gateway_down"
    """The one way in was not there."""
    NO_INSTANCE = "no_instance"
    """Every instance of the service was down at one moment."""
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True)
class Kill:
    part: Part
    name: str
    """The workload's, or that of the part of the control plane."""
    at: float
    gone: float
    """When the last process that the kill took was gone."""


@dataclass(frozen=True, slots=True)
class Down:
    """From ``since`` until before ``until`` a sidecar could not answer."""

    since: float
    until: float


def outages(
    kills: Iterable[Kill], requests: Mapping[str, Sequence[Ended]]
) -> dict[str, tuple[Down, ...]]:
    """When each workload was down: from a kill until it first answered a request that was sent after it.

    requests: service -> ended ones, each with the answering workload's name as body. Any good answer is also the gateway's.
    A workload that never answered again is down for ever. O(kills x requests).
    """
    good = [one for ended in requests.values() for one in ended if one.good]
    found: dict[str, list[Down]] = {}
    for kill in kills:
        if kill.part.value in CONTROL_PLANE:
            continue
        answers = (
            one.ended for one in good if one.sent >= kill.gone and kill.name in {GATEWAY, one.body}
        )
        found.setdefault(kill.name, []).append(Down(kill.at, min(answers, default=inf)))
    return {name: tuple(downs) for name, downs in found.items()}


def verdict(
    failed: Ended,
    instances: Sequence[str],
    kills: Iterable[Kill],
    downs: Mapping[str, Sequence[Down]],
) -> Verdict:
    """Why a request to a service with these instances failed."""
    struck = [kill for kill in kills if kill.name in (GATEWAY, *instances)]
    if any(failed.sent <= kill.at <= failed.ended for kill in struck):
        return Verdict.IN_FLIGHT
    if _together(failed, [downs.get(GATEWAY, ())]):
        return Verdict.GATEWAY_DOWN
    if _together(failed, [downs.get(name, ()) for name in instances]):
        return Verdict.NO_INSTANCE
    # Sent to a connection whose end nobody had read yet.
    if any(kill.at <= failed.sent <= kill.gone + REACH_S for kill in struck):
        return Verdict.IN_FLIGHT
    return Verdict.UNEXPLAINED


def _together(request: Ended, all_downs: Sequence[Sequence[Down]]) -> bool:
    """Whether there was a moment of the request's life at which all of them were down."""
    starts = (down.since for downs in all_downs for down in downs)
    moments = [request.sent, *(at for at in starts if request.sent <= at <= request.ended)]
    return any(
        all(any(down.since <= at < down.until for down in downs) for downs in all_downs)
        for at in moments
    )
