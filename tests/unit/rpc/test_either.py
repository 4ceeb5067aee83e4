"""Plain and TLS on one port: clients that say nothing, say nonsense, or come too many; material that changes."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from tests.unit.rpc.pki import DNS, Authority
from tests.unit.rpc.test_http import send
from windward.process import FatalError
from windward.rpc import either
from windward.rpc.credentials import TlsMaterial
from windward.rpc.http import Request, Response, http_at

AUTHORITY = Authority()
OWN = AUTHORITY.material("pilot", DNS)
ASK = b"GET /who HTTP/1.1\r\n\r\n"


async def who(request: Request) -> Response:
    return Response(200, str(request.identity).encode())


@asynccontextmanager
async def serving(tls: Any = lambda: OWN, **more: Any):
    routes = {("GET", "/who"): who}
    async with http_at("127.0.0.1:0", routes, setting="--metrics-address", tls=tls, **more) as port:
        yield port


async def over_tls(port: int, roots: bytes = AUTHORITY.roots_pem, me: Any = None) -> bytes:
    context = ssl.create_default_context(cadata=roots.decode())
    if me is not None:
        context.load_cert_chain(me)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=DNS
    )
    writer.write(ASK)
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n\r\n")[2]


async def test_both_on_one_port(tmp_path):
    mine = AUTHORITY.material("reviews", namespace="shop")
    (tmp_path / "me.pem").write_bytes(mine.key_pem + b"\n" + mine.chain_pem)
    async with serving() as port:
        assert (await send(port, ASK))[2] == b"None"
        assert await over_tls(port) == b"None"
        named = await over_tls(port, me=tmp_path / "me.pem")
        assert named == b"spiffe://cluster.local/ns/shop/sa/reviews"


async def test_new_material_is_served_at_once():
    other = Authority()
    held: list[TlsMaterial | None] = [None]
    async with serving(lambda: held[0]) as port:
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await over_tls(port)
        assert (await send(port, ASK))[0] == 200
        for authority in (AUTHORITY, other):
            held[0] = authority.material("pilot", DNS)
            assert await over_tls(port, authority.roots_pem) == b"None"


async def test_silence_and_nonsense_end_their_own_connection_only(monkeypatch):
    monkeypatch.setattr(either, "FIRST_BYTE_S", 0.05)
    async with serving() as port:
        for raw in (b"", b"\x16", b"\x16\x03\x01\xff\xff" + b"\0" * 100, b"\x17\x03\x03\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(raw)
            if raw == b"\x16":
                writer.write_eof()
            try:
                answer = await asyncio.wait_for(reader.read(), 20)
            except ConnectionResetError:
                answer = b""
            assert answer[:12] in {b"", b"HTTP/1.1 400"} or answer[0] == 0x15  # a TLS alert
            writer.close()
        assert (await send(port, ASK))[0] == 200


async def test_one_too_many_is_turned_away(monkeypatch):
    monkeypatch.setattr(either, "MOST_CONNECTIONS", 2)
    async with serving() as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 20) == b""
        for _, other in (*held, (reader, writer)):
            other.close()


async def test_a_used_port_is_an_error_unless_it_is_shared():
    async with serving() as port:
        with pytest.raises(FatalError, match="--metrics-address"):
            async with http_at(
                f"127.0.0.1:{port}", {}, setting="--metrics-address", tls=lambda: OWN
            ):
                raise AssertionError
    async with (
        serving(shared=True) as port,
        http_at(
            f"127.0.0.1:{port}", {}, setting="--metrics-address", tls=lambda: OWN, shared=True
        ) as same,
    ):
        assert same == port


async def test_an_end_ends_connections():
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET")
    with suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
