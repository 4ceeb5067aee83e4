"""Readiness: facts of one Envoy process, known once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from services.agent.envoy.admin import EnvoyState, Updates
from services.agent.status.readiness import Readiness

GOOD = EnvoyState(
    live=True, workers=True, clusters=Updates(True, False), listeners=Updates(True, False)
)


class FakeAdmin:
    def __init__(self, state: EnvoyState | None) -> None:
        self.current = state

    async def state(self) -> EnvoyState:
        if self.current is None:
            raise ConnectionRefusedError
        return self.current


def readiness(state: EnvoyState | None, pids: list[int | None]) -> tuple[FakeAdmin, Readiness]:
    admin: Any = FakeAdmin(state)
    return admin, Readiness(admin, lambda: pids[-1])


async def test_it_is_ready_when_it_has_all():
    pids: list[int | None] = [None]
    admin, ready = readiness(None, pids)
    assert await ready.problem() == "Envoy is not running"
    pids.append(1)
    assert await ready.problem() == "Envoy does not answer"
    admin.current = replace(GOOD, listeners=Updates(False, True))
    assert await ready.problem() == "Envoy has rejected its listeners"
    admin.current = GOOD
    assert await ready.problem() == ""


async def test_what_was_once_true_stays_true():
    admin, ready = readiness(GOOD, [1])
    assert await ready.problem() == ""
    admin.current = replace(GOOD, clusters=Updates(False, True), workers=False)
    assert await ready.problem() == ""


async def test_live_is_asked_each_time():
    admin, ready = readiness(GOOD, [1])
    assert await ready.problem() == ""
    admin.current = replace(GOOD, live=False)
    assert await ready.problem() == "Envoy is not LIVE"
    admin.current = None
    assert await ready.problem() == "Envoy does not answer"


async def test_another_envoy_must_show_all_of_it_again():
    pids: list[int | None] = [1]
    admin, ready = readiness(GOOD, pids)
    assert await ready.problem() == ""
    pids.append(2)
    admin.current = replace(GOOD, listeners=Updates(False, False))
    assert await ready.problem() == "Envoy has not received its listeners"
