"""The small HTTP server: routes, bounds, and requests that are none."""

from __future__ import annotations

import asyncio

import pytest

from windward.process import FatalError
from windward.rpc.http import HEAD_LIMIT_BYTES, Request, Response, http_at, serve_http


@pytest.fixture
async def port():
    async def show(request: Request) -> Response:
        return Response(
            200, f"{request.method} {request.path} {dict(request.query)} {request.peer}".encode()
        )

    async def refuse(_: Request) -> Response:
        return Response(503, b"", "application/json")

    routes = {("GET", "/show"): show, ("POST", "/show"): show, ("GET", "/refuse"): refuse}
    server = await serve_http("127.0.0.1", 0, routes)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def send(port: int, raw: bytes) -> tuple[int, dict[str, str], bytes]:
    """One exchange, to the end of the connection; status 0 for none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    try:
        answer = await asyncio.wait_for(reader.read(), 20)
    except ConnectionResetError:
        answer = b""
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in rest)
    return (int(first.split(" ")[1]) if first else 0), headers, body


async def test_a_route_answers_with_length_and_end(port):
    status, headers, body = await send(port, b"GET /show?a=1&b=2&a=3 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status == 200
    assert body == b"GET /show {'a': ['1', '3'], 'b': ['2']} 127.0.0.1"
    assert headers["content-length"] == str(len(body))
    assert headers["connection"] == "close"


async def test_status_and_type_are_the_handlers(port):
    status, headers, body = await send(port, b"GET /refuse HTTP/1.0\r\n\r\n")
    assert (status, headers["content-type"], body) == (503, "application/json", b"")


async def test_a_body_is_not_read(port):
    raw = b"POST /show HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n"
    assert (await send(port, raw))[0] == 200


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /nothing HTTP/1.1", 404),
        (b"DELETE /show HTTP/1.1", 405),
        (b"GET /show/ HTTP/1.1", 404),
        (b"GET /../show HTTP/1.1", 404),
        (b"GET /show", 400),
        (b"GET /show FTP/1.1", 400),
        (b"GET  /show HTTP/1.1", 400),
        (b"\xff\xfe\x00", 400),
        (b"", 400),
    ],
)
async def test_what_is_no_request_of_ours(port, line, status):
    assert (await send(port, line + b"\r\n\r\n"))[0] == status


async def test_a_head_over_the_limit_is_cut_off_and_the_next_served(port):
    raw = b"GET /show HTTP/1.1\r\nX: " + bytes(2 * HEAD_LIMIT_BYTES)
    assert (await send(port, raw))[0] == 0
    assert (await send(port, b"GET /show HTTP/1.1\r\n\r\n"))[0] == 200


async def test_a_caller_that_goes_away_is_forgotten(port):
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /sh")
    writer.close()
    assert (await send(port, b"GET /show HTTP/1.1\r\n\r\n"))[0] == 200


async def test_a_slow_caller_is_cut_off(port, monkeypatch):
    monkeypatch.setattr("windward.rpc.http.READ_TIMEOUT_S", 0.05)
    assert (await send(port, b"GET /show HTTP/1.1\r\n"))[0] == 0


async def test_a_taken_port_is_an_error(port):
    with pytest.raises(OSError, match="address already in use"):
        await serve_http("127.0.0.1", port, {})


async def test_headers_and_target_reach_the_handler_and_others_their_answer():
    seen: list[Request] = []

    async def note(request: Request) -> Response:
        seen.append(request)
        return Response(204)

    server = await serve_http("127.0.0.1", 0, {("GET", "/a"): note}, otherwise=note)
    port = server.sockets[0].getsockname()[1]
    async with server:
        for line in ("GET /a?x=1", "GET /other", "POST /a"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"{line} HTTP/1.1\r\nX-One: 1\r\nx-one: 2\r\nbad\r\n\r\n".encode())
            await reader.read()
            writer.close()
            await writer.wait_closed()
    assert [request.target for request in seen] == ["/a?x=1", "/other"]
    assert seen[0].headers == {"x-one": "1, 2"}


async def test_a_port_without_a_host_is_of_both_families():
    async with http_at(":0", {}, setting="--at") as port:
        for host in ("127.0.0.1", "::1"):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET /none HTTP/1.1\r\n\r\n")
            assert b" 404 " in await reader.readline()
            await reader.read()
            writer.close()
            await writer.wait_closed()


async def test_a_port_may_be_at_loopback_too():
    async def who(request: Request) -> Response:
        return Response(200, str(request.local).encode())

    async def asked(host: str, port: int) -> bytes:
        reader, writer = await asyncio.open_connection(host, port, local_addr=(host, 0))
        writer.write(b"GET /who HTTP/1.1\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer.rpartition(b"\n")[2]

    routes = {("GET", "/who"): who}
    async with http_at("127.0.0.9:0", routes, setting="--at", loopback=True) as port:
        assert await asked("127.0.0.9", port) == b"False"
        assert await asked("127.0.0.1", port) == b"True"
    async with http_at("127.0.0.1:0", routes, setting="--at") as port:
        with pytest.raises(FatalError, match=f"--at 127.0.0.9:{port}: .*in use"):
            async with http_at(f"127.0.0.9:{port}", routes, setting="--at", loopback=True):
                raise AssertionError("it was served")
        # What was opened before that is closed.
        async with http_at(f"127.0.0.9:{port}", routes, setting="--at"):
            pass
