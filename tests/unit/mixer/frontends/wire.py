"""Mixer's front ends behind a real gRPC server on a free loopback port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from windward.registration import RegisteredWorkload
from windward.rpc.http2.server import Http2Server


def a_workload(name: str, address: str, version: str = "v1") -> RegisteredWorkload:
    return RegisteredWorkload(
        namespace="harbour",
        name=name,
        address=address,
        workload_group=name,
        service_account=f"{name}-account",
        labels={"app": name, "version": version},
    )


@asynccontextmanager
async def served(
    add: Callable[[Any, grpc.aio.Server], None], servicer: Any
) -> AsyncIterator[grpc.aio.Channel]:
    server: Any = Http2Server()
    add(servicer, server)
    port = server.listen_plaintext("127.0.0.1:0", setting="--grpc-address")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)
