"""Registration at Pilots of the test's own: renewed with its lease, healthy once served, taken out at the end."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import grpc
import pytest

from services.agent import registration as module
from services.agent.registration import Registration
from tests.unit.agent.settings import settings
from windward.api.registry.v1 import registry_pb2, registry_pb2_grpc
from windward.rpc import server as servers
from windward.rpc.channel import ChannelSource

LEASE = 4711


class FakePilot:
    """Grants one lease; refuses while it is told to."""

    def __init__(self) -> None:
        self.registered: asyncio.Queue[Any] = asyncio.Queue()
        self.deregistered: asyncio.Queue[Any] = asyncio.Queue()
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.ttl_s = 0.3
        self.probe: Any = None
        self.address = ""

    async def Register(self, request: Any, context: Any) -> Any:  # noqa: N802  the wire's name
        if self.refusal is not None:
            await context.abort(*self.refusal)
        await self.registered.put(request)
        answer = registry_pb2.RegisterResponse(lease_id=LEASE, revision=1)
        answer.ttl.FromMilliseconds(int(self.ttl_s * 1000))
        if self.probe is not None:
            answer.readiness_probe.CopyFrom(self.probe)
        return answer

    async def ListWorkloads(self, _: Any, context: Any) -> None:  # noqa: N802  the wire's name
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "agents do not list")

    async def Deregister(self, request: Any, _: Any) -> Any:  # noqa: N802  the wire's name
        await self.deregistered.put(request)
        return registry_pb2.DeregisterResponse()


@pytest.fixture
async def pilot():
    fake = FakePilot()
    server = servers.new_server()
    servicer: Any = fake
    registry_pb2_grpc.add_RegistryServiceServicer_to_server(servicer, server)
    port = servers.listen_plaintext(server, "127.0.0.1:0", setting="--address")
    fake.address = f"127.0.0.1:{port}"
    await server.start()
    yield fake
    await server.stop(None)


class Agent:
    """A registration that runs, and what it asks of Envoy."""

    def __init__(self, *addresses: str, resumed: bool = False, **over: Any) -> None:
        self.serving = asyncio.Event()
        self.serving.set()
        self._asked, self._times = asyncio.Condition(), 0
        self.channels = ChannelSource(addresses)
        made = settings(**{"workload_group": "reviews", "labels": {"version": "v1"}} | over)
        self.registration = Registration(made, self.channels, self._serves, resumed=resumed)

    async def _serves(self) -> bool:
        async with self._asked:
            self._times += 1
            self._asked.notify_all()
        return self.serving.is_set()

    async def was_asked(self, times: int) -> None:
        """Until it has asked so often whether Envoy serves."""
        async with self._asked:
            await self._asked.wait_for(lambda: self._times >= times)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.registration.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.channels.close()


async def test_it_says_who_it_is(pilot):
    async with Agent(pilot.address) as agent:
        request = await pilot.registered.get()
        workload = request.workload
        assert (workload.namespace, workload.name, workload.address) == (
            "shop",
            "reviews-v1-1",
            "10.0.0.7",
        )
        assert (workload.workload_group, dict(workload.labels)) == ("reviews", {"version": "v1"})
        assert request.lease_id == 0
        await agent.registration.registered.wait()
        assert agent.registration.problem == ""


async def test_it_renews_with_the_lease_it_was_given(pilot):
    async with Agent(pilot.address):
        leases = [(await pilot.registered.get()).lease_id for _ in range(3)]
    assert leases == [0, LEASE, LEASE]


async def test_an_agent_that_serves_an_earlier_runs_state_is_healthy_from_the_first(pilot):
    async with Agent(pilot.address, resumed=True):
        assert not (await pilot.registered.get()).workload.unhealthy


async def test_an_agent_that_comes_back_to_a_probed_application_says_all_the_time_that_it_is_healthy(
    pilot,
):
    probe = registry_pb2.ReadinessProbe
    port = int(pilot.address.rpartition(":")[2])
    pilot.probe = probe(tcp_socket=probe.TcpSocket(port=port), initial_delay_seconds=60)
    async with Agent(pilot.address, resumed=True):
        for _ in range(3):
            assert not (await pilot.registered.get()).workload.unhealthy


async def test_it_says_nothing_of_an_envoy_that_starts_with_an_earlier_runs_state(pilot):
    """Peers go on sending: to hear that it is unhealthy would take it away once it serves."""
    async with Agent(pilot.address, resumed=True) as agent:
        agent.serving.clear()
        asked = asyncio.create_task(pilot.registered.get())
        await agent.was_asked(3)
        assert not asked.done()
        agent.serving.set()
        assert not (await asked).workload.unhealthy


async def test_an_envoy_that_does_not_come_up_with_an_earlier_runs_state_is_told_of(
    pilot, monkeypatch
):
    monkeypatch.setattr(module, "RESUME_WAIT_S", 0.1)
    async with Agent(pilot.address, resumed=True) as agent:
        agent.serving.clear()
        assert (await pilot.registered.get()).workload.unhealthy
        agent.serving.set()
        while (await pilot.registered.get()).workload.unhealthy:
            pass


async def test_it_is_unhealthy_until_envoy_serves_its_application(pilot):
    async with Agent(pilot.address) as agent:
        agent.serving.clear()
        for _ in range(2):
            assert (await pilot.registered.get()).workload.unhealthy
        assert not agent.registration.registered.is_set()
        agent.serving.set()
        while (await pilot.registered.get()).workload.unhealthy:
            pass
        await agent.registration.registered.wait()


async def test_a_workload_that_nothing_selects_is_registered_all_the_same(pilot, monkeypatch):
    monkeypatch.setattr(module, "INBOUND_WAIT_S", 0.1)
    async with Agent(pilot.address) as agent:
        agent.serving.clear()
        await agent.registration.registered.wait()


async def test_a_pilot_that_is_away_is_passed_over(pilot, monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    async with Agent("127.0.0.1:1", pilot.address) as agent:
        await agent.registration.registered.wait()
        assert agent.channels.address == pilot.address


async def test_a_refusal_is_the_reason_and_is_tried_again(pilot, monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    pilot.refusal = (grpc.StatusCode.PERMISSION_DENIED, "not your namespace")
    async with Agent(pilot.address) as agent:
        while agent.registration.problem == "not registered yet":
            await asyncio.sleep(0.01)
        assert agent.registration.problem == "PERMISSION_DENIED: not your namespace"
        assert not agent.registration.registered.is_set()
        pilot.refusal = None
        await agent.registration.registered.wait()
        assert agent.registration.problem == ""


async def test_the_end_takes_it_out_with_its_lease(pilot):
    async with Agent(pilot.address) as agent:
        await agent.registration.registered.wait()
        assert await agent.registration.end()
    request = await pilot.deregistered.get()
    assert (request.namespace, request.name, request.lease_id) == ("shop", "reviews-v1-1", LEASE)


async def test_the_end_is_told_to_another_pilot_when_the_one_it_knows_is_gone(pilot):
    async with Agent(pilot.address) as agent:
        await agent.registration.registered.wait()
        agent.channels.addresses = ("127.0.0.1:1", pilot.address)
        await agent.channels.close()
        assert await agent.registration.end()
    assert (await pilot.deregistered.get()).lease_id == LEASE


@pytest.mark.parametrize("resumed", [True, False])
async def test_who_never_registered_has_nothing_to_end_but_an_earlier_run_may_have(pilot, resumed):
    agent = Agent(pilot.address, resumed=resumed)
    assert await agent.registration.end() is not resumed
    assert pilot.deregistered.empty()
    await agent.channels.close()


async def test_an_end_without_a_pilot_is_no_error_and_no_leave(pilot):
    async with Agent(pilot.address) as agent:
        await agent.registration.registered.wait()
        agent.channels.addresses = ("127.0.0.1:1",)
        await agent.channels.close()
        assert not await agent.registration.end()
    assert pilot.deregistered.empty()


async def test_the_groups_probe_decides_the_endpoints_health_at_once(pilot):
    probe = registry_pb2.ReadinessProbe
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as app:
        port = app.sockets[0].getsockname()[1]
        pilot.ttl_s = 3600
        pilot.probe = probe(tcp_socket=probe.TcpSocket(port=port))
        async with Agent(pilot.address) as agent:
            async with asyncio.timeout(5):
                assert (await pilot.registered.get()).workload.unhealthy
                while (await pilot.registered.get()).workload.unhealthy:
                    pass
                await agent.registration.registered.wait()


async def test_an_application_that_fails_its_probe_is_told_unhealthy_and_the_sidecar_is_ready(
    pilot,
):
    probe = registry_pb2.ReadinessProbe
    pilot.probe = probe(exec=probe.Exec(command=["true"]))
    async with Agent(pilot.address) as agent:
        async with asyncio.timeout(5):
            await agent.registration.registered.wait()
            told = [(await pilot.registered.get()).workload.unhealthy for _ in range(4)]
        assert told == [True] * 4


def test_who_fails_asks_less_often_and_more_patiently():
    assert [module.pause_s(failures, 5.0) for failures in range(1, 7)] == [0.5, 1, 2, 4, 5, 5]
    assert [module.timeout_s(failures, 6.0) for failures in range(4)] == pytest.approx(
        [1.2, 2.4, 3, 3]
    )
    assert module.timeout_s(0, 1.0) == 1.0
    for ttl_s in (2.0, 5.0, 15.0, 60.0):
        longest_s = 1.5 * module.pause_s(10**6, ttl_s / 6) + module.timeout_s(10**6, ttl_s)
        assert longest_s < ttl_s


async def test_a_success_makes_it_prompt_again(pilot, monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    pilot.refusal = (grpc.StatusCode.UNAVAILABLE, "not now")
    async with Agent(pilot.address) as agent:
        while agent.registration._failures < 3:
            await asyncio.sleep(0.01)
        pilot.refusal = None
        await agent.registration.registered.wait()
        assert agent.registration._failures == 0
