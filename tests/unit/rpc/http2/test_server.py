"""The server as grpcio's client sees it: all four kinds of methods, statuses, deadlines, certificates, drains; and slow peers."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.unit.rpc.http2.peer import Peer
from tests.unit.rpc.pki import DNS, METHOD, SERVICE, Authority, echo
from windward.process import FatalError
from windward.rpc import server as servers
from windward.rpc.credentials import TlsSource
from windward.rpc.errors import denied
from windward.rpc.http2 import frames
from windward.rpc.http2 import server as http2
from windward.rpc.http2.call import Call
from windward.rpc.http2.server import Http2Server
from windward.rpc.peer import peer_expiry, peer_identity

WAIT_S = 20.0
BIG = 3_000_000
AUTHORITY = Authority()


class Echo:
    """Every kind of method over bytes, each a different way."""

    async def one(self, request: bytes, context: Any) -> bytes:
        if request == b"refuse":
            raise denied("not you")
        if request == b"fail":
            raise ZeroDivisionError
        if request == b"abort":
            await context.abort(grpc.StatusCode.DATA_LOSS, "gone", (("why", "because"),))
        if request == b"set":
            context.set_code(grpc.StatusCode.ABORTED)
            context.set_details("set by hand")
        if request == b"wait":
            await asyncio.sleep(WAIT_S)
        if request == b"left":
            assert context.time_remaining() is not None
        return request

    async def many(self, request: bytes, _: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield bytes(100_000) + str(number).encode()

    async def joined(self, requests: AsyncIterator[bytes], _: Any) -> bytes:
        return b"".join([request async for request in requests])

    async def each(self, requests: AsyncIterator[bytes], context: Any) -> None:
        async for request in requests:
            await context.write(request)


def service(made: Echo) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "One": grpc.unary_unary_rpc_method_handler(made.one),
            "Many": grpc.unary_stream_rpc_method_handler(made.many),
            "Joined": grpc.stream_unary_rpc_method_handler(made.joined),
            "Each": grpc.stream_stream_rpc_method_handler(made.each),
        },
    )


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[tuple[Http2Server, Any]]:
    server = Http2Server(**options)
    server.add_generic_rpc_handlers((service(Echo()),))
    port = server.listen_plaintext("127.0.0.1:0", setting="--here")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield server, channel
    finally:
        await server.stop(None)


def secure(port: int, authority: Authority, account: str = "client") -> Any:
    mine = authority.material(account)
    credentials = grpc.ssl_channel_credentials(AUTHORITY.roots_pem, mine.key_pem, mine.chain_pem)
    options = [("grpc.ssl_target_name_override", DNS)]
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options)


async def test_the_four_kinds_of_methods():
    async with running() as (_, channel):
        one: Any = channel.unary_unary(f"/{SERVICE}/One")
        assert await one(bytes(BIG), timeout=WAIT_S) == bytes(BIG)
        many: Any = channel.unary_stream(f"/{SERVICE}/Many")
        got = [item async for item in many(b"30", timeout=WAIT_S)]
        assert [item[100_000:] for item in got] == [str(number).encode() for number in range(30)]
        joined: Any = channel.stream_unary(f"/{SERVICE}/Joined")
        parts = [bytes((number,)) * 50_000 for number in range(40)]
        assert await joined(iter(parts), timeout=WAIT_S) == b"".join(parts)
        each: Any = channel.stream_stream(f"/{SERVICE}/Each")
        assert [item async for item in each(iter(parts), timeout=WAIT_S)] == parts


async def test_calls_at_once_on_one_connection():
    async with running() as (_, channel):
        one: Any = channel.unary_unary(f"/{SERVICE}/One")
        sent = [str(number).encode() * 5000 for number in range(200)]
        assert await asyncio.gather(*(one(item, timeout=WAIT_S) for item in sent)) == sent


@pytest.mark.parametrize("packing", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_requests_may_be_packed(packing):
    async with running() as (_, channel):
        one: Any = channel.unary_unary(f"/{SERVICE}/One")
        assert await one(bytes(5000), timeout=WAIT_S, compression=packing) == bytes(5000)


@pytest.mark.parametrize(
    ("request_", "code", "details"),
    [
        (b"refuse", grpc.StatusCode.PERMISSION_DENIED, "not you"),
        (b"abort", grpc.StatusCode.DATA_LOSS, "gone"),
        (b"set", grpc.StatusCode.ABORTED, "set by hand"),
        (b"fail", grpc.StatusCode.INTERNAL, "internal error, request id"),
        (bytes(4 * 1024 * 1024 + 1), grpc.StatusCode.RESOURCE_EXHAUSTED, "a request of 4194305"),
    ],
)
async def test_what_goes_wrong_is_a_status(request_, code, details):
    async with running() as (_, channel):
        one: Any = channel.unary_unary(f"/{SERVICE}/One")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await one(request_, timeout=WAIT_S)
        assert caught.value.code() is code
        assert str(caught.value.details()).startswith(details)
        if request_ == b"abort":
            assert ("why", "because") in tuple(caught.value.trailing_metadata())
        assert await one(b"next", timeout=WAIT_S) == b"next"


async def test_a_method_that_is_not_served():
    async with running() as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/no.Such/Method")(b"", timeout=WAIT_S)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_deadline_is_kept_by_the_server_too():
    ended = asyncio.Event()

    async def waits(_: Call) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with running() as (server, channel):
        server.add_behaviours({"/windward.test.Echo/Wait": waits})
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/windward.test.Echo/Wait")(b"", timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(ended.wait(), WAIT_S)
        assert await channel.unary_unary(f"/{SERVICE}/One")(b"left", timeout=WAIT_S) == b"left"


async def test_a_client_that_cancels_ends_its_behaviour():
    began, ended = asyncio.Event(), asyncio.Event()

    async def waits(call: Call) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            assert call.gone
            ended.set()

    async with running() as (server, channel):
        server.add_behaviours({"/windward.test.Echo/Wait": waits})
        call = channel.unary_unary("/windward.test.Echo/Wait")(b"")
        asked = asyncio.ensure_future(call)
        await asyncio.wait_for(began.wait(), WAIT_S)
        call.cancel()
        await asyncio.wait_for(ended.wait(), WAIT_S)
        await asyncio.wait({asked})


async def test_health_and_reflection():
    async with running() as (server, channel):
        health = servers.add_standard_services(server, [SERVICE])
        await servers.set_serving(health, [SERVICE])
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=WAIT_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="no"), timeout=WAIT_S)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=WAIT_S)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await health.enter_graceful_shutdown()
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        reflected: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflected.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=WAIT_S
        )
        (listed,) = [item async for item in asked]
        assert SERVICE in {item.name for item in listed.list_services_response.service}


# ---- who calls --------------------------------------------------------------------------------------------------------


async def who(_: bytes, context: Any) -> bytes:
    """The caller as the certificate has it."""
    assert "x509_pem_cert" not in context.auth_context(), "what a certificate says is read once"
    family = context.peer().partition(":")[0]
    return f"{peer_identity(context)} {peer_expiry(context)} {family}".encode()


async def test_the_caller_is_who_the_certificate_says():
    source = TlsSource(AUTHORITY.material("pilot", DNS))
    server = Http2Server()
    server.add_generic_rpc_handlers((echo(who),))
    mtls = server.listen_mtls("127.0.0.1:0", source, setting="--mtls")
    tls = server.listen_tls("127.0.0.1:0", source, setting="--tls")
    await server.start()
    proved = f"spiffe://cluster.local/ns/default/sa/client {AUTHORITY.validity.not_after} ipv4"
    try:
        for port, caller in ((mtls, proved), (tls, "None None ipv4")):
            async with secure(port, AUTHORITY) as channel:
                assert await channel.unary_unary(METHOD)(b"", timeout=WAIT_S) == caller.encode()
        async with secure(mtls, Authority()) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(METHOD)(b"", timeout=WAIT_S)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        await server.stop(None)


async def test_a_new_certificate_and_new_roots_hold_from_the_next_handshake_on():
    source, after = TlsSource(AUTHORITY.material("pilot", DNS)), Authority()
    server = Http2Server()
    server.add_generic_rpc_handlers((echo(who),))
    port = server.listen_mtls("127.0.0.1:0", source, setting="--mtls")
    await server.start()
    try:
        async with secure(port, AUTHORITY) as old, secure(port, after) as new:
            call: Any = old.unary_unary(METHOD)
            assert await call(b"", timeout=WAIT_S)
            with pytest.raises(grpc.aio.AioRpcError):
                await new.unary_unary(METHOD)(b"", timeout=WAIT_S)
            mine = AUTHORITY.material("pilot", DNS)
            source.replace(type(mine)(mine.chain_pem, mine.key_pem, after.roots_pem))
            assert await call(b"", timeout=WAIT_S), "a connection outlives its handshake's roots"
            answer = await new.unary_unary(METHOD)(b"", timeout=WAIT_S, wait_for_ready=True)
            assert answer.startswith(b"spiffe://")
    finally:
        await server.stop(None)


async def test_ports():
    server, other = Http2Server(), Http2Server()
    port = server.listen_plaintext("127.0.0.1:0", setting="--here")
    await server.start()
    with pytest.raises(FatalError, match=f"--there 127.0.0.1:{port}: in use"):
        other.listen_plaintext(f"127.0.0.1:{port}", setting="--there")
    for bad in ("127.0.0.1:http", "127.0.0.1:70000", "localhost"):
        with pytest.raises(FatalError, match="--there"):
            other.listen_plaintext(bad, setting="--there")
    with pytest.raises(FatalError, match="loopback only"):
        other.listen_plaintext("0.0.0.0:0", setting="--there")
    await asyncio.gather(server.stop(None), other.stop(None))


async def test_workers_share_a_port():
    one, other = Http2Server(shared=True), Http2Server(shared=True)
    port = one.listen_plaintext("127.0.0.1:0", setting="--here")
    assert other.listen_plaintext(f"127.0.0.1:{port}", setting="--here") == port
    await asyncio.gather(one.stop(None), other.stop(None))


async def test_a_unix_socket_takes_the_place_of_one_that_is_left(tmp_path):
    path = tmp_path / "pilot.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    server = Http2Server()
    server.add_generic_rpc_handlers((echo(who),))
    server.listen_plaintext(f"unix:{path}", setting="--here")
    await server.start()
    channel: Any
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        assert await channel.unary_unary(METHOD)(b"", timeout=WAIT_S) == b"None None unix"
    await server.stop(None)
    (tmp_path / "file").write_text("precious")
    other = Http2Server()
    with pytest.raises(FatalError):
        other.listen_plaintext(f"unix:{tmp_path / 'file'}", setting="--here")
    await other.stop(None)
    assert (tmp_path / "file").read_text() == "precious"


# ---- ends -------------------------------------------------------------------------------------------------------------


async def test_a_stop_lets_calls_end_within_its_grace():
    go = asyncio.Event()

    async def waits(call: Call) -> None:
        await go.wait()
        call.send(b"done")

    async with running() as (server, channel):
        server.add_behaviours({"/windward.test.Echo/Wait": waits})
        call = channel.unary_unary("/windward.test.Echo/Wait")(b"", timeout=WAIT_S)
        asked = asyncio.ensure_future(call)
        await asyncio.sleep(0)
        while not server.calls:
            await asyncio.sleep(0.001)
        stopping = asyncio.ensure_future(server.stop(WAIT_S))
        await asyncio.sleep(0)
        go.set()
        assert await asked == b"done"
        await asyncio.wait_for(stopping, WAIT_S)


async def test_a_stop_ends_what_does_not():
    async def waits(_: Call) -> None:
        await asyncio.Event().wait()

    async with running() as (server, channel):
        server.add_behaviours({"/windward.test.Echo/Wait": waits})
        asked = asyncio.ensure_future(channel.unary_unary("/windward.test.Echo/Wait")(b""))
        while not server.calls:
            await asyncio.sleep(0.001)
        await asyncio.wait_for(server.stop(0.01), WAIT_S)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asked
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


# ---- peers that do not behave -----------------------------------------------------------------------------------------


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What is said until the server ends the connection."""
    async with asyncio.timeout(WAIT_S):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize("said", [b"", frames.PREFACE[:10]])
async def test_who_says_nothing_is_let_go(monkeypatch, said):
    monkeypatch.setattr(http2, "BEGIN_S", 0.05)
    monkeypatch.setattr(http2, "SWEEP_S", 0.02)
    server = Http2Server()
    port = server.listen_plaintext("127.0.0.1:0", setting="--here")
    await server.start()
    reader, writer = await connected(port)
    writer.write(said)
    await ended(reader)
    writer.close()
    assert not server.connections
    await server.stop(None)


async def test_who_shakes_no_hands_is_let_go(monkeypatch):
    monkeypatch.setattr(http2, "BEGIN_S", 0.05)
    monkeypatch.setattr(http2, "SWEEP_S", 0.02)
    server = Http2Server()
    source = TlsSource(AUTHORITY.material("pilot", DNS))
    port = server.listen_mtls("127.0.0.1:0", source, setting="--mtls")
    await server.start()
    for said in (b"", b"\x16\x03\x01\x00\x05", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        reader, writer = await connected(port)
        writer.write(said)
        await ended(reader)
        writer.close()
    assert not server.connections
    await server.stop(None)


async def test_who_does_not_answer_pings_is_let_go_and_who_is_idle_too(monkeypatch):
    for name, seconds in (("QUIET_S", 0.05), ("PONG_S", 0.05), ("SWEEP_S", 0.02)):
        monkeypatch.setattr(http2, name, seconds)
    server = Http2Server()
    port = server.listen_plaintext("127.0.0.1:0", setting="--here")
    await server.start()
    reader, writer = await connected(port)
    writer.write(frames.PREFACE + frames.settings({}))
    assert frames.frame(frames.PING, 0, 0, b"windward") in await ended(reader)
    writer.close()
    monkeypatch.setattr(http2, "IDLE_S", 0.05)
    reader, writer = await connected(port)
    writer.write(frames.PREFACE + frames.settings({}))
    assert frames.goaway(0, frames.Code.NO_ERROR, "idle") in await ended(reader)
    writer.close()
    await server.stop(None)


async def test_who_reads_nothing_makes_no_more_than_a_window_be_kept():
    sending: list[int] = []

    async def sends(call: Call) -> None:
        done = asyncio.Event()

        def more() -> None:
            while call.room:
                call.send(bytes(100_000))
                sending.append(1)

        call.follow(lambda _: None, done.set, more)
        more()
        await done.wait()

    server = Http2Server()
    server.add_behaviours({METHOD: sends})
    port = server.listen_plaintext("127.0.0.1:0", setting="--here")
    await server.start()
    peer = Peer(begin=False)
    reader, writer = await connected(port)
    large = frames.settings({frames.INITIAL_WINDOW_SIZE: frames.LARGEST_WINDOW})
    writer.write(frames.PREFACE + large + frames.window_update(0, 1 << 30))
    writer.write(frames.frame(frames.HEADERS, frames.END_HEADERS, 1, peer.block()))
    before = -1
    async with asyncio.timeout(WAIT_S):
        while not sending or before != len(sending):
            before = len(sending)
            await asyncio.sleep(0.05)
    (transport,) = server.connections
    assert transport.full
    assert len(sending) < 200, "the kernel's buffers and ours"
    while before * 2 > len(sending):
        await asyncio.wait_for(reader.read(1 << 20), WAIT_S)
    writer.close()
    await server.stop(None)


@pytest.mark.parametrize("refused", [True, False])
async def test_what_a_connection_held_is_freed_with_it(refused):
    """Without the collector: what Pilot sets aside of long-lived objects is freed by its reference counts alone."""

    async def behaves(call: Call) -> None:
        if refused:
            raise denied("not you")
        call.send(await call.receive() or b"")

    async with running() as (server, channel):
        server.add_behaviours({"/windward.test.Echo/Any": behaves})
        gc.disable()
        try:
            with suppress(grpc.aio.AioRpcError):
                await channel.unary_unary("/windward.test.Echo/Any")(b"x", timeout=WAIT_S)
            (transport,) = server.connections
            held = weakref.ref(transport.connection)
            del transport
            await channel.close()
            async with asyncio.timeout(WAIT_S):
                while server.connections:
                    await asyncio.sleep(0.001)
            await asyncio.sleep(0)
            assert held() is None
        finally:
            gc.enable()


async def test_what_a_call_that_never_ran_held_is_freed_with_it():
    async def behaves(_: Call) -> None:
        raise AssertionError

    server = Http2Server()
    server.add_behaviours({METHOD: behaves})
    port = server.listen_plaintext("127.0.0.1:0", setting="--here")
    await server.start()
    opened = frames.frame(frames.HEADERS, frames.END_HEADERS, 1, Peer(begin=False).block())
    _, writer = await connected(port)
    gc.disable()
    try:
        ended = frames.reset(1, frames.Code.CANCEL)
        writer.write(frames.PREFACE + frames.settings({}) + opened + ended)
        async with asyncio.timeout(WAIT_S):
            while not any(it.connection and it.connection.begun for it in server.connections):
                await asyncio.sleep(0.001)
            (held,) = [weakref.ref(it.connection) for it in server.connections]
            writer.close()
            while server.connections or server.calls:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        assert held() is None
    finally:
        gc.enable()
        await server.stop(None)
