"""The caller and the upstream that real Envoys stand between, here without an Envoy: mTLS is ours."""

import asyncio
import ssl
from datetime import UTC, datetime

import pytest

from benchmarks.fleet.identities import certificate, write_secret
from benchmarks.xds.upstream import Caller, Upstream
from services.citadel.authority.root import load_or_create
from windward.local.addresses import free_port
from windward.store.memory import MemoryStore


async def a_root():
    return await load_or_create(
        MemoryStore(), b"k" * 32, "cluster.local", 3600.0, lambda: datetime.now(UTC)
    )


async def test_an_upstream_says_its_address_to_callers_with_a_certificate_only(tmp_path):
    root = await a_root()
    write_secret(tmp_path / "me.pem", certificate(root, "cluster.local", "shop", "me"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname = False
    tls.load_verify_locations(cadata=root.pem.decode())
    port = free_port("127.0.0.1")
    async with Upstream(root, "cluster.local", "shop", "probe", tmp_path / "up") as upstream:
        await upstream.listen_at("127.0.0.1", port)
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await ask(port, tls)
        tls.load_cert_chain(tmp_path / "me.pem")
        assert await ask(port, tls) == b"127.0.0.1"


async def ask(port, tls):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    try:
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        return await reader.readexactly(9)
    finally:
        writer.close()


async def test_a_caller_waits_for_the_address_and_counts_what_fails():
    answers = [b"503 Unavailable", b"200 OK", None, b"200 OK"]
    bodies = [b"", b"old", b"", b"new"]

    async def serve(reader, writer):
        while answers:
            await reader.readuntil(b"\r\n\r\n")
            answer, body = answers.pop(0), bodies.pop(0)
            if answer is None:
                break
            writer.write(b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (answer, len(body), body))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    caller = Caller("127.0.0.1", server.sockets[0].getsockname()[1], "x")
    try:
        assert await caller.until("new", 10) > 0
        assert caller.failures == 2
    finally:
        caller.close()
        server.close()
