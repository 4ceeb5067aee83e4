"""One small request: whole, bounded, from where it is told to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.asking.http import TooLarge, get
from tests.unit.agent.status.serving import answering, http


async def ask(port: int, **over):
    given = {"timeout_s": 2.0, "limit_bytes": 1000} | over
    return await get("127.0.0.1", port, "/x?y=1", {"host": "app:80", "a": "b"}, **given)


async def test_status_headers_and_body_come_back_and_ours_go_there():
    async with answering(http(418, b"tea", x_kind="Pot")) as served:
        answer = await ask(served.port, source="127.0.0.6")
    assert (answer.status, answer.headers["x-kind"], answer.body) == (418, "Pot", b"tea")
    assert served.heads[0].startswith("GET /x?y=1 HTTP/1.1\r\nhost: app:80\r\n")
    assert served.headers()["a"] == "b"
    assert served.peers == ["127.0.0.6"]


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=4))
async def test_a_body_in_chunks_is_one(parts):
    raw = b"".join(f"{len(part):x};ext\r\n".encode() + part + b"\r\n" for part in parts)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with answering(head + raw + b"0\r\n\r\n") as served:
        assert (await ask(served.port)).body == b"".join(parts)


async def test_without_a_length_the_end_is_the_end():
    async with answering(b"HTTP/1.0 200 OK\r\n\r\nall of it") as served:
        assert (await ask(served.port)).body == b"all of it"


@pytest.mark.parametrize(
    "answer",
    [
        http(200, b"x" * 1001),
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffff\r\n" + b"x" * 2000,
    ],
)
async def test_what_is_too_large_is_refused_or_cut_off(answer):
    async with answering(answer) as served:
        with pytest.raises(TooLarge):
            await ask(served.port)
        assert (await ask(served.port, cut=True)).body == b"x" * 1000


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 abc X\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 30000 + b"\r\n",
    ],
)
async def test_what_is_no_answer_is_an_error(answer):
    async with answering(answer) as served:
        with pytest.raises(OSError, match=r"does not answer with HTTP|reset|lost"):
            await ask(served.port)


async def test_silence_has_an_end():
    async with answering() as served:
        with pytest.raises(TimeoutError):
            await ask(served.port, timeout_s=0.05)
