"""The other workers of this Pilot: what each says of itself, joined to what this one says.

    FOLDER/0.sock, 1.sock ... each worker's ConfigService and AdminService, for whoever may enter the folder (0700)

A worker that does not answer in time is left out: it is being started again, and its proxies are on their way to others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import grpc
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from services.pilot.admin.views import DEFAULT_ROWS, Chunk, Reader
from windward.api.admin.v1 import admin_pb2, admin_pb2_grpc
from windward.api.config.v1 import config_pb2, config_pb2_grpc
from windward.rpc.errors import RefusedError
from windward.telemetry.logging import get_logger

log = get_logger()
DEADLINE_S = 2.0
T = TypeVar("T")
EVERYBODYS = frozenset({"sync", "connections", "scopes", "events", "refusals", "status"})
"""Views that differ from worker to worker; the others are of the mesh, which all have the same."""
LIMIT_BYTES = 64 * 1024 * 1024


class Siblings:
    """None, until ``beside`` says otherwise."""

    def __init__(self, folder: Path | None = None, number: int = 0) -> None:
        self._folder = folder
        self.number = number
        self._channels: dict[Path, grpc.aio.Channel] = {}

    @classmethod
    def beside(cls, worker: str) -> Siblings:
        """Of the setting --worker."""
        folder, _, number = worker.rpartition(":")
        return cls(Path(folder), int(number)) if folder else cls()

    @property
    def address(self) -> str:
        """Where this worker answers the others; empty when it is alone."""
        return f"unix:{self._folder}/{self.number}.sock" if self._folder else ""

    def claim(self) -> str:
        """The address, free of what an earlier process of this number has left there."""
        Path(self.address.removeprefix("unix:")).unlink(missing_ok=True)
        return self.address

    def _others(self) -> list[grpc.aio.Channel]:
        if self._folder is None:
            return []
        found = []
        for path in sorted(self._folder.glob("*.sock")):
            if path.stem != str(self.number):
                if path not in self._channels:
                    options = [("grpc.max_receive_message_length", LIMIT_BYTES)]
                    self._channels[path] = grpc.aio.insecure_channel(f"unix:{path}", options)
                found.append(self._channels[path])
        return found

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()

    async def ask_config(
        self, question: Callable[[config_pb2_grpc.ConfigServiceAsyncStub], Awaitable[T]]
    ) -> list[T]:
        """The answers of those who have one."""
        stubs: list[Any] = [config_pb2_grpc.ConfigServiceStub(item) for item in self._others()]
        return await _answers([question(stub) for stub in stubs])

    async def metrics(self, own: bytes) -> bytes:
        """Everybody's metrics, each with whose it is in the label ``worker``."""
        stubs: list[Any] = [admin_pb2_grpc.AdminServiceStub(item) for item in self._others()]
        if self._folder is None:
            return own

        async def text(stub: Any) -> tuple[str, bytes]:
            made = await stub.Metrics(admin_pb2.MetricsRequest(), timeout=DEADLINE_S)
            return made.worker, made.text

        answers = await _answers([text(stub) for stub in stubs])
        return joined([(str(self.number), own), *answers])

    def reader(self, own: Reader) -> Reader:
        """Views of all: one's own rows first."""

        async def read(view: str, query: Mapping[str, str], limit: int) -> AsyncGenerator[Chunk]:
            left = limit or DEFAULT_ROWS
            try:
                async for chunk in own(view, query, limit):
                    left -= len(chunk.rows)
                    yield chunk
                    if chunk.truncated:
                        return
            except RefusedError as error:
                if view != "config" or error.code is not grpc.StatusCode.NOT_FOUND:
                    raise
                found = await self._rows(view, query, left)
                if not any(part.rows for part in found):
                    raise
                for part in found:
                    yield part
                return
            if view in EVERYBODYS:
                for part in await self._rows(view, query, left):
                    if len(part.rows) > left:
                        yield Chunk(part.rows[:left], truncated=True)
                        return
                    left -= len(part.rows)
                    yield part

        return read

    async def _rows(self, view: str, query: Mapping[str, str], limit: int) -> list[Chunk]:
        """What the others have, one chunk each."""
        request = admin_pb2.ReadRequest(view=view, query=query, limit=max(limit, 1))

        async def ask(stub: Any) -> Chunk:
            rows: list[bytes] = []
            truncated = False
            async for part in stub.Read(request, timeout=DEADLINE_S):
                rows += part.rows
                truncated |= part.truncated
            return Chunk(tuple(rows), truncated)

        stubs = [admin_pb2_grpc.AdminServiceStub(item) for item in self._others()]
        return await _answers([ask(stub) for stub in stubs])


async def _answers(questions: list[Any]) -> list[Any]:
    found = []
    for answer in await asyncio.gather(*questions, return_exceptions=True):
        if isinstance(answer, grpc.aio.AioRpcError):
            if answer.code() is not grpc.StatusCode.NOT_FOUND:
                log.info("workers.unanswered", reason=answer.details())
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found.append(answer)
    return found


def joined(texts: list[tuple[str, bytes]]) -> bytes:
    """Prometheus texts of several workers as one: every sample with its worker's label."""
    families: dict[str, Metric] = {}
    for worker, text in texts:
        for family in text_string_to_metric_families(text.decode()):
            known = families.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            for sample in family.samples:
                known.samples.append(sample._replace(labels={**sample.labels, "worker": worker}))

    class Joined(CollectorRegistry):
        def collect(self) -> Any:
            return iter(families.values())

    return generate_latest(Joined())


def summed(
    status: config_pb2.ObjectStatus, others: list[config_pb2.ObjectStatus]
) -> config_pb2.ObjectStatus:
    """An object's status at all workers: counts are added, times are the slowest worker's."""
    for other in others:
        status.proxies += other.proxies
        status.acked += other.acked
        status.rejections.extend(other.rejections)
        known = {(item.type_url, item.name, item.version) for item in status.refusals}
        status.refusals.extend(
            item for item in other.refusals if (item.type_url, item.name, item.version) not in known
        )
        if other.HasField("push"):
            push, more = status.push, other.push
            if not push.HasField("at"):
                push.CopyFrom(more)
                continue
            push.proxies += more.proxies
            push.accepted += more.accepted
            push.resources = max(push.resources, more.resources)
            push.p50_ms = max(push.p50_ms, more.p50_ms)
            push.p99_ms = max(push.p99_ms, more.p99_ms)
    return status
