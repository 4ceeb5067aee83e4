"""A server that answers one way, for tests of what asks it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Served:
    port: int = 0
    heads: list[str] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)

    def headers(self, number: int = -1) -> dict[str, str]:
        pairs = (line.partition(":") for line in self.heads[number].split("\r\n")[1:] if line)
        return {name.lower(): value.strip() for name, _, value in pairs}


@asynccontextmanager
async def answering(*answers: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[Served]:
    """Answers in order, the last one for ever; connections are closed after each. Empty: never answers."""
    served = Served()
    writers: list[asyncio.StreamWriter] = []

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        served.peers.append(writer.get_extra_info("peername")[0])
        head = await reader.read(65536)
        number = len(served.heads)
        served.heads.append(head.decode("latin-1"))
        if answers:
            writer.write(answers[min(number, len(answers) - 1)])
        else:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0, ssl=tls)
    served.port = server.sockets[0].getsockname()[1]
    async with server:
        yield served
    for writer in writers:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def http(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    named = {"content-length": str(len(body))} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in named.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body
