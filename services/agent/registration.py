"""Keeping the workload registered: at whichever Pilot answers, every third of the lease, for as long as it lives."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import grpc

from services.agent.health.watch import HealthWatch
from services.agent.settings import Settings
from windward.api.registry.v1 import registry_pb2, registry_pb2_grpc
from windward.rpc.channel import ChannelSource
from windward.telemetry.logging import get_logger

log = get_logger()
CALL_TIMEOUT_S = 3.0
CALL_TIMEOUT_LEAST_S = 1.0
CALL_TIMEOUT_TTLS = 0.2
RETRY_S = 0.5
FIRST_TTL_S = 15.0
"""Before Pilot has said one."""
RESUME_WAIT_S = 2.0
"""An Envoy that starts with what is on disk serves by then; one that does not is told of."""
INBOUND_WAIT_S = 5.0
"""A workload that no service selects gets no inbound configuration: it is registered all the same."""
MOVE_ON = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


class Registration:
    """``run`` registers and renews; ``registered`` is set after the first success; ``end`` takes the workload out."""

    def __init__(
        self,
        settings: Settings,
        channels: ChannelSource,
        serves: Callable[[], Awaitable[bool]],
        *,
        resumed: bool = False,
    ) -> None:
        """``serves``: whether Envoy can take the workload's requests. ``resumed``: an earlier run's configuration is served.

        Then peers hold this endpoint for healthy, and requests come: to be unhealthy first, while Envoy starts, would send them
        away just when it can take them.
        """
        self._resumed = resumed
        self._settings = settings
        self._channels = channels
        self._serves = serves
        self._serving = False
        self._health = HealthWatch(
            settings.app_address or "127.0.0.1",
            commands=settings.probe_commands,
            resumed=resumed,
        )
        self._since = 0.0
        self._lease = 0
        self._ttl_s = FIRST_TTL_S
        self._failures = 0
        self.registered = asyncio.Event()
        self.problem = "not registered yet"

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._health.run())
            group.create_task(self._renew())

    @property
    def failing(self) -> bool:
        """No Pilot has taken it when it tried last."""
        return self._failures > 0

    @property
    def _healthy(self) -> bool:
        """Envoy can serve, and the application says that it can."""
        return self._serving and self._health.healthy

    async def _renew(self) -> None:
        if self._resumed:
            await self._until_serving(RESUME_WAIT_S)
        while True:
            told = self._healthy
            self._health.changed.clear()
            try:
                answer = await self._stub().Register(
                    registry_pb2.RegisterRequest(workload=self._workload(), lease_id=self._lease),
                    timeout=timeout_s(self._failures, self._ttl_s),
                )
            except grpc.aio.AioRpcError as error:
                self._failed(error)
                again_s = pause_s(self._failures, self._ttl_s / 6)
                await asyncio.sleep(again_s * random.uniform(0.5, 1.5))  # noqa: S311  jitter, not a secret
                continue
            self._failures = 0
            if not self.registered.is_set():
                log.info(
                    "workload.registered",
                    healthy=told,
                    lease=answer.lease_id,
                    pilot=self._channels.address,
                )
            self._lease = answer.lease_id
            self._health.follow(
                answer.readiness_probe if answer.HasField("readiness_probe") else None
            )
            self._ttl_s = answer.ttl.ToTimedelta().total_seconds()
            third_s = self._ttl_s / 3
            if not self._serving:
                await self._until_serving(third_s)
                continue
            self.problem = ""
            self.registered.set()
            if told == self._healthy:
                await self._until_changed(third_s * random.uniform(0.8, 1.0))  # noqa: S311  jitter, not a secret

    async def _until_changed(self, longest_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                await self._health.changed.wait()

    async def _until_serving(self, longest_s: float) -> None:
        """Registered, but unhealthy, until Envoy has what Pilot made of the registration: nobody is sent here before."""
        loop = asyncio.get_running_loop()
        self._since = self._since or loop.time()
        deadline = loop.time() + longest_s
        while loop.time() < deadline and not self._serving:
            self._serving = await self._serves() or loop.time() - self._since > INBOUND_WAIT_S
            await asyncio.sleep(0.05)

    async def end(self) -> bool:
        """Take the workload out of every proxy's endpoints, before it stops answering; whether it is out.

        Of Pilots that do not answer each is asked once, all of them in the time of one call.
        """
        if not self._lease:
            return not self._resumed
        request = registry_pb2.DeregisterRequest(
            namespace=self._settings.namespace,
            name=self._settings.workload_name,
            lease_id=self._lease,
        )
        times = len(self._channels.addresses)
        for _ in range(times):
            try:
                await self._stub().Deregister(request, timeout=CALL_TIMEOUT_S / times)
            except grpc.aio.AioRpcError as error:
                log.warning(
                    "workload.not_deregistered",
                    reason=f"{error.code().name}: {error.details()}",
                    pilot=self._channels.address,
                    consequence="unless another Pilot is told, peers send requests until the lease lapses",
                )
                self._channels.next_address()
                continue
            return True
        return False

    def _stub(self) -> registry_pb2_grpc.RegistryServiceAsyncStub:
        return registry_pb2_grpc.RegistryServiceStub(self._channels.channel())

    def _workload(self) -> registry_pb2.Workload:
        settings = self._settings
        return registry_pb2.Workload(
            namespace=settings.namespace,
            name=settings.workload_name,
            address=settings.address,
            workload_group=settings.workload_group,
            labels=settings.labels,
            locality=settings.locality,
            unhealthy=not self._healthy,
        )

    def _failed(self, error: grpc.aio.AioRpcError) -> None:
        self._failures += 1
        problem = f"{error.code().name}: {error.details()}"
        if problem != self.problem:
            log.warning("workload.not_registered", reason=problem, pilot=self._channels.address)
        self.problem = problem
        if error.code() in MOVE_ON:
            self._channels.next_address()


def timeout_s(failures: int, ttl_s: float) -> float:
    """How long to wait for a Pilot: one that hangs may cost a fifth of the lease, so that there is time for others.

    Who has failed already is more patient: it may be that all are slow.
    """
    first_s = max(CALL_TIMEOUT_LEAST_S, ttl_s * CALL_TIMEOUT_TTLS)
    return min(CALL_TIMEOUT_S, max(first_s, ttl_s / 2), first_s * float(2 ** min(failures, 8)))


def pause_s(failures: int, most_s: float) -> float:
    """After a failure: longer each time, so that many who fail together let some of them succeed.

    Pause and call together stay below a TTL: so long Pilot waits for those whose leases lapsed in an outage.
    """
    return min(RETRY_S * float(2 ** min(failures - 1, 8)), most_s)
