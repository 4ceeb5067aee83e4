"""The forwarder: bytes both ways, ends passed on, a dead target hurts one connection only."""

from __future__ import annotations

import asyncio

import pytest

from windward.local.addresses import free_port
from windward.local.forward import start_forwarder


async def test_bytes_and_ends_go_both_ways():
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read(100)).upper())
        writer.close()

    target = await asyncio.start_server(echo, "127.0.0.1", 0)
    forwarder = await start_forwarder("127.0.0.1", 0, target.sockets[0].getsockname()[:2])
    port = forwarder.sockets[0].getsockname()[1]
    for text in (b"one", b"two"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(text)
        assert await asyncio.wait_for(reader.read(), 5) == text.upper()
        writer.close()
        await writer.wait_closed()
    with pytest.raises(OSError, match="in use"):
        await start_forwarder("127.0.0.1", port, ("127.0.0.1", 1))
    forwarder.close()
    target.close()


async def test_a_target_that_is_not_there_ends_the_connection():
    forwarder = await start_forwarder("127.0.0.1", 0, ("127.0.0.1", free_port("127.0.0.1")))
    reader, writer = await asyncio.open_connection(*forwarder.sockets[0].getsockname()[:2])
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    await writer.wait_closed()
    forwarder.close()
