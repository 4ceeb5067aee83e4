"""Keeping the workload registered: at whichever Pilot answers, every third of the lease, for as long as it lives."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import grpc

from services.agent.settings import Settings
from windward.api.registry.v1 import registry_pb2, registry_pb2_grpc
from windward.rpc.channel import ChannelSource
from windward.telemetry.logging import get_logger

log = get_logger()
CALL_TIMEOUT_S = 3.0
RETRY_S = 0.5
MOVE_ON = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


class Registration:
    """``run`` registers and renews; ``registered`` is set after the first success; ``end`` takes the workload out."""

    def __init__(self, settings: Settings, channels: ChannelSource) -> None:
        self._settings = settings
        self._channels = channels
        self._lease = 0
        self.registered = asyncio.Event()
        self.problem = "not registered yet"

    async def run(self) -> None:
        while True:
            try:
                answer = await self._stub().Register(
                    registry_pb2.RegisterRequest(workload=self._workload(), lease_id=self._lease),
                    timeout=CALL_TIMEOUT_S,
                )
            except grpc.aio.AioRpcError as error:
                self._failed(error)
                await asyncio.sleep(RETRY_S * random.uniform(0.5, 1.5))  # noqa: S311  jitter, not a secret
                continue
            if not self.registered.is_set():
                log.info("workload.registered", lease=answer.lease_id, pilot=self._channels.address)
            self._lease = answer.lease_id
            self.problem = ""
            self.registered.set()
            third = answer.ttl.ToTimedelta().total_seconds() / 3
            await asyncio.sleep(third * random.uniform(0.8, 1.0))  # noqa: S311  jitter, not a secret

    async def end(self) -> None:
        """Take the workload out of every proxy's endpoints, before it stops answering."""
        if not self._lease:
            return
        request = registry_pb2.DeregisterRequest(
            namespace=self._settings.namespace, name=self._settings.workload_name, lease_id=self._lease
        )
        with suppress(grpc.aio.AioRpcError):
            await self._stub().Deregister(request, timeout=CALL_TIMEOUT_S)

    def _stub(self) -> registry_pb2_grpc.RegistryServiceAsyncStub:
        return registry_pb2_grpc.RegistryServiceStub(self._channels.channel())  # type: ignore[return-value]

    def _workload(self) -> registry_pb2.Workload:
        settings = self._settings
        return registry_pb2.Workload(
            namespace=settings.namespace,
            name=settings.workload_name,
            address=settings.address,
            workload_group=settings.workload_group,
            labels=settings.labels,
        )

    def _failed(self, error: grpc.aio.AioRpcError) -> None:
        problem = f"{error.code().name}: {error.details()}"
        if problem != self.problem:
            log.warning("workload.not_registered", reason=problem, pilot=self._channels.address)
        self.problem = problem
        if error.code() in MOVE_ON:
            self._channels.next_address()
