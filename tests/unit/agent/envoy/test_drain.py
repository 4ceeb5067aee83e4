"""Leaving: peers are told before Envoy refuses anything, and one deadline ends it all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.agent.envoy import drain as module
from services.agent.envoy.admin import Admin
from services.agent.envoy.drain import Drain
from tests.unit.agent.settings import settings


class FakeAdmin(Admin):
    """Connections that end one by one, and a diary of what happened."""

    def __init__(self, connections: int = 0) -> None:
        super().__init__("127.0.0.1:1")
        self.connections = connections
        self.diary: list[str] = []
        self.away = 0
        self.left_out: Any = None
        self.calls: list[int] = []
        """What has arrived, poll by poll; the last for ever."""

    async def post(self, path: str) -> tuple[int, bytes]:
        if self.away:
            self.away -= 1
            raise ConnectionRefusedError
        self.diary.append(path)
        return 200, b""

    async def active_connections(self, ports: Any = ()) -> int:
        self.left_out = ports
        self.connections -= 1
        return max(self.connections, 0)

    async def arrivals(self) -> int:
        if self.away:
            raise ConnectionRefusedError
        return self.calls.pop(0) if self.calls else 10**6

    async def deregister(self) -> bool:
        self.diary.append("deregistered")
        return True


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "POLL_S", 0.001)


def draining(admin: FakeAdmin, **over: Any) -> Drain:
    made = settings(**{"notice_time": 0.01} | over)
    return Drain(made, admin, admin.deregister)


async def test_peers_are_told_first_and_the_last_connection_ends_it():
    admin = FakeAdmin(connections=3)
    drain = draining(admin)
    before = drain.started
    await drain.run()
    assert (before, drain.started) == (False, True)
    assert admin.diary == ["deregistered", "/drain_listeners?inboundonly&graceful"]
    assert admin.connections == 0
    assert admin.left_out == {0, 15021, 15090}


async def test_it_serves_on_until_peers_had_time_to_notice():
    admin = FakeAdmin()
    loop = asyncio.get_running_loop()
    began = loop.time()
    await draining(admin, notice_time=0.05).run()
    assert loop.time() - began >= 0.05


async def test_it_serves_on_while_somebody_still_calls():
    admin = FakeAdmin()
    admin.calls = list(range(40))
    await draining(admin, notice_time=0.005, drain_time=60.0).run()
    assert admin.calls == []


async def test_callers_who_never_notice_get_half_of_the_time():
    admin = FakeAdmin()
    admin.calls = list(range(10**5))
    assert await draining(admin, drain_time=0.3).start() == "no connection is left"
    assert admin.calls


async def test_who_was_never_registered_need_not_wait():
    admin = FakeAdmin()

    async def not_registered() -> bool:
        return False

    drain = Drain(settings(notice_time=60.0), admin, not_registered)
    await drain.run()
    assert admin.diary == ["/drain_listeners?inboundonly&graceful"]


async def test_a_gateway_drains_all_its_listeners():
    admin = FakeAdmin()
    await draining(admin, proxy_type="router").run()
    assert admin.diary[-1] == "/drain_listeners?graceful"


async def test_connections_that_stay_do_not_keep_it_past_the_deadline():
    admin = FakeAdmin(connections=10**9)
    assert await draining(admin, drain_time=0.1).start() == "the deadline came"


async def test_a_pilot_that_does_not_answer_does_not_either():
    async def never() -> bool:
        await asyncio.Event().wait()
        return True

    drain = Drain(settings(drain_time=0.05), FakeAdmin(), never)
    assert await drain.start() == "the deadline came"


@pytest.mark.parametrize(
    ("away", "ended"), [(3, "no connection is left"), (9, "Envoy does not answer")]
)
async def test_an_envoy_that_is_gone_is_not_waited_for(away, ended):
    admin = FakeAdmin()
    admin.away = away
    assert await draining(admin).start() == ended


async def test_it_happens_once():
    admin = FakeAdmin()
    drain = draining(admin)
    await asyncio.gather(drain.run(), drain.run())
    await drain.run()
    assert admin.diary.count("deregistered") == 1


async def test_it_can_be_abandoned():
    admin = FakeAdmin(connections=10**9)
    drain = draining(admin, drain_time=60.0)
    waiting = asyncio.create_task(drain.run())
    await asyncio.sleep(0)
    drain.abandon()
    await waiting
    draining(admin).abandon()
