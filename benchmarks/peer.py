"""The application that ``leaving`` calls: quick answers over HTTP/1.1, and gRPC streams that last as long as asked.

GET anything on BOOKSHOP_PORT -> 200 with PEER_NAME, or "ok"
/bench.Peer/Watch on the next but nine -> a byte each 100 ms, for the seconds asked
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import grpc

SERVICE, METHOD = "bench.Peer", "Watch"
GRPC_OFFSET = 10
BEAT_S = 0.1


def answer(name: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-length: {len(name)}\r\n\r\n{name}".encode()


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    said = answer(os.environ.get("PEER_NAME", "ok"))
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(said)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def watch(request: bytes, _: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
    for _beat in range(int(float(request) / BEAT_S)):
        yield b"."
        await asyncio.sleep(BEAT_S)


async def main() -> None:
    host, port = os.environ["BOOKSHOP_HOST"], int(os.environ["BOOKSHOP_PORT"])
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        METHOD: grpc.unary_stream_rpc_method_handler(watch)
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    server.add_insecure_port(f"{host}:{port + GRPC_OFFSET}")
    await server.start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with await asyncio.start_server(http, host, port):
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(main())
