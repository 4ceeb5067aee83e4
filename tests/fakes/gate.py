"""A TCP relay that can be shut: connections through it stay open, and nothing passes until it is opened again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Gate:
    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    def shut(self) -> None:
        self._open.clear()

    def reopen(self) -> None:
        self._open.set()

    @asynccontextmanager
    async def before(self, port: int) -> AsyncIterator[Gate]:
        """Relay to a port of loopback while the block lasts."""

        async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                there, onward = await asyncio.open_connection("127.0.0.1", port)
                for source, sink in ((reader, onward), (there, writer)):
                    task = asyncio.create_task(self._pass_on(source, sink))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

        server = await asyncio.start_server(connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._open.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()
