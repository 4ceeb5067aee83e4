"""The fleet as a child process: commands in, events out. The line protocol stands in fleet.c."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from pathlib import Path
from typing import Any, Self

from benchmarks.fleet.build import fleet_binary

EXIT_S = 5.0


class FleetError(Exception):
    """The fleet ended, or did not do in time what was asked; says what was last seen."""


class Fleet:
    """Use as an async context manager."""

    def __init__(
        self,
        *,
        port: int,
        streams: int,
        nodes: Path,
        roots: Path | None,
        server_name: str,
        sotw: bool = False,
        bodies: Path | None = None,
        binary: Path | None = None,
    ) -> None:
        self.streams = streams
        words = [
            str(binary or fleet_binary(tls=roots is not None)),
            "--port",
            str(port),
            "--streams",
            str(streams),
        ]
        words += ["--nodes", str(nodes), "--server-name", server_name]
        words += ["--roots", str(roots)] if roots else []
        words += ["--sotw"] if sotw else []
        words += ["--bodies", str(bodies)] if bodies else []
        self._command = words
        self._process: asyncio.subprocess.Process
        self._reading: asyncio.Task[None]
        self._answers: dict[str, deque[asyncio.Future[dict[str, Any]]]] = {}
        self._acked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._ended = False

    async def __aenter__(self) -> Self:
        ready = self._answer("ready")
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        self._reading = asyncio.create_task(self._read())
        await self._within(ready, 20, "start")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), EXIT_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await asyncio.gather(self._reading, return_exceptions=True)

    # ---- commands ---------------------------------------------------------------------------------------------------

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(line.encode() + b"\n")

    async def synced(self, timeout_s: float) -> int:
        """When every stream had all that it asked for, in ns of the monotonic clock. Raises FleetError."""
        answer = self._answer("synced")
        self.say("sync")
        return int((await self._within(answer, timeout_s, "sync"))["at_ns"])

    async def expect(self, kind: str, name: str, marker: str) -> int:
        """Announce a change: the resource, and a text that only its new bytes have. Returns the expectation's number."""
        answer = self._answer("expecting")
        self.say(f"expect {kind} {name} {marker}")
        number = int((await self._within(answer, 10, "expect"))["id"])
        self._acked[number] = asyncio.get_running_loop().create_future()
        return number

    def wrote(self, number: int, began_ns: int, returned_ns: int) -> None:
        self.say(f"wrote {number} {began_ns} {returned_ns}")

    async def acked(self, number: int, timeout_s: float) -> float:
        """Milliseconds from the write's return to the last stream's ACK. Raises FleetError."""
        try:
            return float((await self._within(self._acked[number], timeout_s, "ack"))["last_ms"])
        finally:
            self._acked.pop(number, None)

    async def report(self) -> dict[str, Any]:
        answer = self._answer("report")
        self.say("report")
        return await self._within(answer, 30, "report")

    # ---- events -----------------------------------------------------------------------------------------------------

    def _answer(self, event: str) -> asyncio.Future[dict[str, Any]]:
        if self._ended:
            raise FleetError("the fleet has ended")
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers.setdefault(event, deque()).append(future)
        return future

    async def _within(
        self, future: asyncio.Future[dict[str, Any]], timeout_s: float, what: str
    ) -> dict[str, Any]:
        try:
            return await asyncio.wait_for(asyncio.shield(future), timeout_s)
        except TimeoutError:
            if what == "report":
                raise FleetError(f"no report from the fleet within {timeout_s:.0f} s") from None
            seen = await self.report()
            raise FleetError(
                f"{what}: not done after {timeout_s:.0f} s; {seen['connected']} of {self.streams} connected, "
                f"{seen['synced']} in sync, {seen['waiting']} changes outstanding; {seen['last_error']}"
            ) from None

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            event = json.loads(line)
            name = event["event"]
            if name == "acked":
                future = self._acked.get(event["id"])
            else:
                queue = self._answers.get(name)
                future = queue.popleft() if queue else None
            if future is not None and not future.done():
                future.set_result(event)
        self._ended = True
        ended = FleetError("the fleet has ended")
        waiting = [*self._acked.values(), *(f for q in self._answers.values() for f in q)]
        for future in waiting:
            if not future.done():
                future.set_exception(ended)
                future.exception()
