import asyncio
import json
import shutil
from contextlib import asynccontextmanager

import pytest

from benchmarks.fleet.build import CannotBuild
from benchmarks.steady.build import steady_binary
from windward.local.addresses import free_port

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


async def load(port: int, *, rate: int, connections: int, seconds: float) -> dict[str, float]:
    words = ("127.0.0.1", port, "x", rate, connections, 0, seconds)
    process = await asyncio.create_subprocess_exec(
        str(steady_binary()), "load", *map(str, words), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    read: dict[str, float] = json.loads(said)
    return read


@asynccontextmanager
async def serving(answer):
    """A server whose n-th request of a connection is answered by ``answer(n)``; None closes."""

    async def serve(reader, writer):
        number = 0
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                made = await answer(number)
                if made is None:
                    break
                writer.write(made)
                number += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_client_and_server_understand_one_another_and_keep_the_rate():
    port = free_port("127.0.0.1")
    server = await asyncio.create_subprocess_exec(
        str(steady_binary()), "serve", "127.0.0.1", str(port), "1024"
    )
    try:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except ConnectionError:
                await asyncio.sleep(0.01)
        writer.close()
        seen = await load(port, rate=200, connections=4, seconds=0.5)
    finally:
        server.kill()
        await server.wait()
    assert (seen["requests"], seen["failed"], seen["rate"]) == (100, 0, 200.0)
    assert 0 < seen["due_p50_us"] <= seen["due_p90_us"] <= seen["due_p99_us"]


async def test_it_may_be_told_to_end():
    heard = asyncio.Event()

    async def answer(number):
        if number == 20:
            heard.set()
        return HEAD + b"ok"

    async with serving(answer) as port:
        words = ("127.0.0.1", port, "x", 200, 1, 0, 600)
        process = await asyncio.create_subprocess_exec(
            str(steady_binary()), "load", *map(str, words), stdout=asyncio.subprocess.PIPE
        )
        await asyncio.wait_for(heard.wait(), 30)
        process.terminate()
        said, _ = await process.communicate()
    seen = json.loads(said)
    assert seen["requests"] == seen["sent"] >= 21
    assert (seen["failed"], process.returncode) == (0, 0)


async def test_an_answer_that_is_no_200_and_a_closed_connection_have_failed_and_the_next_is_sent():
    async def answer(number):
        bad = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
        return (HEAD + b"ok", bad, None)[number]

    async with serving(answer) as port:
        seen = await load(port, rate=60, connections=1, seconds=0.5)
    assert (seen["requests"], seen["failed"]) == (30, 20)


async def test_what_waits_for_a_busy_connection_is_late_from_when_it_was_due():
    async def answer(_):
        await asyncio.sleep(0.1)
        return HEAD + b"ok"

    async with serving(answer) as port:
        seen = await load(port, rate=50, connections=1, seconds=0.2)
    assert seen["failed"] == 0
    assert seen["due_p90_us"] > 2 * seen["sent_p90_us"]


def test_without_a_compiler_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(CannotBuild, match="apt-get install gcc"):
        steady_binary(tmp_path)
