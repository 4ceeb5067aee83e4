from __future__ import annotations

import asyncio
import socket

import grpc

from services.pilot.wakeups import drained, join_wakeups


def test_what_is_left_over_is_read_with_the_first_byte():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        handled: list[bytes] = []
        joined = drained(ours, lambda: handled.append(ours.recv(1)))
        theirs.send(b"12345")
        joined()
        theirs.send(b"6")
        joined()
        assert handled == [b"5", b"6"]
        ours.setblocking(False)
        try:
            left = ours.recv(1)
        except BlockingIOError:
            left = b""
        assert left == b""


async def test_grpcs_own_handler_is_found_and_calls_go_on():
    async def echo(request: bytes, _: object) -> bytes:
        return request

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("windward.test.Echo", {"Call": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    assert join_wakeups(asyncio.get_running_loop())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/windward.test.Echo/Call"
        )
        said = await asyncio.gather(*(call(str(number).encode()) for number in range(200)))
    assert said == [str(number).encode() for number in range(200)]
    await server.stop(None)


def test_a_loop_that_is_not_as_known_is_left_alone():
    loop = asyncio.new_event_loop()
    try:
        assert not join_wakeups(loop)
    finally:
        loop.close()
