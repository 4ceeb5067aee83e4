"""The acceptor: bytes both ways with back-pressure, limits, and a socket that is its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.agent.workload_api.acceptor import Acceptor, Destination, Limits
from services.agent.workload_api.peer import Peer
from windward.process import FatalError

WAIT_S = 20.0
LARGE = bytes(range(256)) * 16 * 1024  # 4 MiB: more than sockets and buffers hold


class Running:
    def __init__(self, folder: Path, registry: CollectorRegistry) -> None:
        self.path = folder / "api.sock"
        self._registry = registry

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.path))

    async def echoed(self, text: bytes = b"hello") -> bytes:
        """Empty when the connection was closed instead."""
        reader, writer = await self.connect()
        try:
            async with asyncio.timeout(WAIT_S):
                writer.write(text)
                return await reader.readexactly(len(text))
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        finally:
            writer.close()

    def decided(self, decision: str) -> float:
        name = "windward_agent_workload_api_connections_total"
        return self._registry.get_sample_value(name, {"decision": decision}) or 0.0


@asynccontextmanager
async def accepting(
    folder: Path, *, known: bool = True, limits: Limits | None = None
) -> AsyncIterator[Running]:
    """Before a server that says everything back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(echo, folder / "private.sock")
    destination = Destination(str(folder / "private.sock"), known)
    registry = CollectorRegistry()
    running = Running(folder, registry)

    def decide(_: Peer) -> Destination:
        return destination

    async with server, Acceptor(running.path, decide, registry, limits).serving():
        yield running


async def test_much_goes_through_unchanged_though_the_reader_is_late(tmp_path: Path):
    async with accepting(tmp_path) as running:
        reader, writer = await running.connect()
        writer.write(LARGE)
        sending = asyncio.create_task(writer.drain())
        async with asyncio.timeout(WAIT_S):
            assert await reader.readexactly(len(LARGE)) == LARGE
            await sending
        writer.close()
        assert running.decided("known") == 1


async def until(done: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(WAIT_S):
        return await done.read()


@pytest.mark.parametrize(
    "limits",
    [Limits(all=2), Limits(of_user=2), Limits(of_process=2)],
    ids=["all", "of a user", "of a process"],
)
async def test_more_connections_than_allowed_are_closed(tmp_path: Path, limits: Limits):
    async with accepting(tmp_path, limits=limits) as running:
        held = [await running.connect() for _ in range(2)]
        for reader, writer in held:
            writer.write(b"x")
            await reader.readexactly(1)
        assert await running.echoed() == b""
        assert running.decided("over_limit") == 1
        held[0][1].close()
        async with asyncio.timeout(WAIT_S):
            while not await running.echoed():
                await asyncio.sleep(0)
        held[1][1].close()


@pytest.mark.parametrize("known", [True, False])
async def test_those_without_an_identity_have_a_share_of_their_own(tmp_path: Path, known: bool):
    limits = Limits(without_identity=1)
    async with accepting(tmp_path, known=known, limits=limits) as running:
        reader, writer = await running.connect()
        writer.write(b"x")
        await reader.readexactly(1)
        assert await running.echoed() == (b"hello" if known else b"")
        writer.close()


async def test_a_destination_that_is_not_there_closes_the_connection(tmp_path: Path):
    registry = CollectorRegistry()
    running = Running(tmp_path, registry)
    nowhere = Destination(str(tmp_path / "nowhere.sock"), known=True)
    async with Acceptor(running.path, lambda _: nowhere, registry).serving():
        assert await running.echoed() == b""


async def test_the_end_closes_connections_and_takes_the_socket_away(tmp_path: Path):
    async with accepting(tmp_path) as running:
        reader, writer = await running.connect()
        writer.write(b"x")
        await reader.readexactly(1)
    assert await until(reader) == b""
    assert not running.path.exists()
    writer.close()


async def test_a_socket_that_was_left_is_replaced_and_one_in_use_is_not(tmp_path: Path):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "api.sock"))
    async with accepting(tmp_path) as running:
        assert running.path.stat().st_mode & 0o777 == 0o666
        assert await running.echoed() == b"hello"
        again = Acceptor(running.path, lambda _: Destination("", known=False), CollectorRegistry())
        with pytest.raises(FatalError, match="another process serves there"):
            async with again.serving():
                pass
        assert await running.echoed() == b"hello"


async def test_a_path_that_cannot_be_listened_on_is_named(tmp_path: Path):
    file = tmp_path / "file"
    file.touch()
    for path, reason in (
        (file / "api.sock", "Not a directory|File exists"),
        (file, "in use"),
        (tmp_path / ("x" * 108), "at most 107 bytes"),
    ):
        acceptor = Acceptor(path, lambda _: Destination("", known=False), CollectorRegistry())
        with pytest.raises(FatalError, match=reason):
            async with acceptor.serving():
                pass
