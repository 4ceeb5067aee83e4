"""Health over gRPC, asked by hand of a real gRPC server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from hypothesis import given
from hypothesis import strategies as st

from services.agent.asking.grpc_health import PREFACE, frame, serving
from tests.unit.agent.status.serving import answering

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
OK_DATA = frame(0, 1, 1, b"\x00\x00\x00\x00\x02\x08\x01")


@pytest.fixture
async def server() -> AsyncIterator[tuple[int, health.aio.HealthServicer]]:
    made = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, made)
    port = made.add_insecure_port("127.0.0.1:0")
    await made.start()
    yield port, servicer
    await made.stop(None)


async def ask(port: int, service: str = "") -> bool:
    return await serving("127.0.0.1", port, service, timeout_s=5.0, source="127.0.0.6")


async def test_a_service_is_asked_by_its_name(server):
    port, servicer = server
    await servicer.set("", SERVING)
    await servicer.set("shop.Reviews", NOT_SERVING)
    assert await ask(port)
    assert not await ask(port, "shop.Reviews")
    assert not await ask(port, "unknown")
    await servicer.set("shop.Reviews", SERVING)
    assert await ask(port, "shop.Reviews")


async def test_a_server_without_health_is_not_serving():
    made = grpc.aio.server()
    port = made.add_insecure_port("127.0.0.1:0")
    await made.start()
    assert not await ask(port)
    await made.stop(None)


@pytest.mark.parametrize(
    ("answer", "healthy"),
    [
        (frame(4, 0, 0, b"") + frame(1, 4, 1, b"") + OK_DATA, True),
        (frame(6, 0, 0, b"12345678") + OK_DATA, True),
        (frame(0, 9, 1, b"\x02\x00\x00\x00\x00\x02\x08\x01zz"), True),
        (frame(0, 0, 1, b"\x00\x00\x00\x00\x02") + frame(0, 1, 1, b"\x08\x01"), True),
        (frame(0, 1, 3, b"\x00\x00\x00\x00\x02\x08\x01") + frame(1, 5, 1, b""), False),
        (frame(0, 1, 1, b"\x01\x00\x00\x00\x02\x08\x01"), False),
        (frame(1, 5, 1, b""), False),
        (frame(7, 0, 0, b"12345678"), False),
        (frame(3, 0, 1, b"1234"), False),
        (frame(6, 1, 0, b"12345678") * 64, False),
    ],
)
async def test_frames_are_read_as_they_come(answer, healthy):
    async with answering(answer) as served:
        assert await ask(served.port) is healthy
    assert served.heads[0].encode("latin-1").startswith(PREFACE)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x00"])
async def test_what_is_no_grpc_is_an_error(answer):
    async with answering(answer) as served:
        with pytest.raises(OSError, match=r"does not speak gRPC|a frame is too large|reset"):
            await ask(served.port)


@given(st.binary(max_size=200))
async def test_no_answer_breaks_it(answer):
    async with answering(answer) as served:
        with suppress(OSError):
            assert await ask(served.port) in {True, False}


async def test_silence_has_an_end_and_names_are_bounded():
    async with answering() as served:
        with pytest.raises(TimeoutError):
            await serving("127.0.0.1", served.port, "", timeout_s=0.05)
        with pytest.raises(ConnectionError, match="longer than 100"):
            await ask(served.port, "x" * 101)
