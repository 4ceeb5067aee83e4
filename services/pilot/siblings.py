"""The other workers of this Pilot, and the other Pilots of the mesh: what each says of itself, joined to what this one says.

    FOLDER/0.sock, 1.sock ... each worker's ConfigService and AdminService, for whoever may enter the folder (0700)
    the other Pilots' mTLS ports (pilots.py), which answer for themselves and their workers

A worker that does not answer in time is left out: it is being started again, and its proxies are on their way to others. A
Pilot that does not is named to whoever asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import grpc
from google.protobuf.message import Message
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
ALONE: Final = "windward-alone"
"""Metadata of a question from another worker or Pilot: who has it answers without asking other Pilots."""
AS_PILOT: Final = ((ALONE, "1"),)


def asked_alone(context: grpc.aio.ServicerContext[Any, Any]) -> bool:
    """Whether a Pilot asks, which asks the others itself."""
    return any(key == ALONE for key, _ in context.invocation_metadata() or ())


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """What others say."""

    found: list[T]
    unanswered: tuple[str, ...] = ()
    """Addresses of Pilots that do not."""


class Siblings:
    """None, until ``beside`` says otherwise."""

    def __init__(self, folder: Path | None = None, number: int = 0) -> None:
        self._folder = folder
        self.number = number
        self._channels: dict[Path, grpc.aio.Channel] = {}
        self.pilots: Callable[[], Mapping[str, grpc.aio.Channel]] = dict
        """Address -> channel, of the other Pilots of the mesh."""

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

    def _everybody(self, *, alone: bool) -> list[tuple[str, grpc.aio.Channel]]:
        """(address, channel) of all others; workers, which are nobody's business, without an address."""
        workers = [("", channel) for channel in self._workers()]
        return workers if alone else [*workers, *self.pilots().items()]

    def _workers(self) -> list[grpc.aio.Channel]:
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
        self,
        method: Callable[[config_pb2_grpc.ConfigServiceAsyncStub], Callable[..., Awaitable[T]]],
        request: Message,
        *,
        alone: bool = False,
    ) -> Answers[T]:
        """The answers of those who have one. ``alone``: of workers only."""

        def ask(channel: grpc.aio.Channel) -> Awaitable[T]:
            stub: Any = config_pb2_grpc.ConfigServiceStub(channel)
            return method(stub)(request, timeout=DEADLINE_S, metadata=AS_PILOT)

        others = self._everybody(alone=alone)
        return await _answers([(address, ask(channel)) for address, channel in others])

    async def metrics(self, own: bytes) -> bytes:
        """Everybody's metrics, each with whose it is in the label ``worker``."""
        if self._folder is None:
            return own

        async def text(channel: grpc.aio.Channel) -> tuple[str, bytes]:
            stub: Any = admin_pb2_grpc.AdminServiceStub(channel)
            made = await stub.Metrics(admin_pb2.MetricsRequest(), timeout=DEADLINE_S)
            return made.worker, made.text

        answers = await _answers([("", text(channel)) for channel in self._workers()])
        return joined([(str(self.number), own), *answers.found])

    def reader(self, own: Reader, *, alone: bool = False) -> Reader:
        """Views of all: one's own rows first. ``alone``: of all workers."""

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
                found = await self._rows(view, query, left, alone=alone)
                if not any(part.rows for part in found):
                    raise
                for part in found:
                    yield part
                return
            if view in EVERYBODYS:
                for part in await self._rows(view, query, left, alone=alone):
                    if len(part.rows) > left:
                        yield Chunk(part.rows[:left], truncated=True)
                        return
                    left -= len(part.rows)
                    yield part

        return read

    async def _rows(
        self, view: str, query: Mapping[str, str], limit: int, *, alone: bool
    ) -> list[Chunk]:
        """What the others have, one chunk each."""
        request = admin_pb2.ReadRequest(view=view, query=query, limit=max(limit, 1))

        async def ask(channel: grpc.aio.Channel) -> Chunk:
            stub: Any = admin_pb2_grpc.AdminServiceStub(channel)
            rows: list[bytes] = []
            truncated = False
            async for part in stub.Read(request, timeout=DEADLINE_S, metadata=AS_PILOT):
                rows += part.rows
                truncated |= part.truncated
            return Chunk(tuple(rows), truncated)

        others = self._everybody(alone=alone)
        answers = await _answers([(address, ask(channel)) for address, channel in others])
        return answers.found


async def _answers(questions: list[tuple[str, Awaitable[T]]]) -> Answers[T]:
    found: list[T] = []
    unanswered: list[str] = []
    given = await asyncio.gather(*(asked for _, asked in questions), return_exceptions=True)
    for (address, _), answer in zip(questions, given, strict=True):
        if isinstance(answer, grpc.aio.AioRpcError):
            if answer.code() is not grpc.StatusCode.NOT_FOUND:
                log.info("pilot.unanswered", pilot=address or "a worker", reason=answer.details())
                unanswered += [address] if address else []
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found.append(answer)
    return Answers(found, tuple(unanswered))


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
    """An object's status at all of them: counts are added, times are the slowest one's."""
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
