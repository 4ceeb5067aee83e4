import asyncio

from benchmarks.requests import Ended, Requests


async def load(answers: list[bytes], path: str = "/") -> tuple[list[Ended], list[bytes], Requests]:
    """As many requests as there are answers, each connection's server giving them in turn."""
    heard: list[Ended] = []
    asked: list[bytes] = []
    left = iter(answers)
    stop = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                asked.append(await reader.readuntil(b"\r\n\r\n"))
                answer = next(left, b"")
                if not answer:
                    break
                writer.write(answer)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    def hear(ended: Ended) -> None:
        heard.append(ended)
        if len(heard) >= len(answers):
            stop.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        requests = Requests("127.0.0.1", port, 200.0, path=path, heard=hear)
        await requests.run(stop)
    return heard, asked, requests


async def test_each_request_is_told_with_who_answered():
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na"
    heard, asked, requests = await load([answer] * 3, path="/solo")
    assert {(one.said, one.body, one.good) for one in heard[:3]} == {("200", "a", True)}
    assert all(one.sent <= one.ended for one in heard)
    assert asked[0].startswith(b"GET /solo HTTP/1.1\r\n")
    assert requests.sent == len(heard)


async def test_a_failure_says_status_and_text_or_what_broke():
    refused = (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"
    )
    heard, _, requests = await load([refused, b""])
    assert {one.said for one in heard[:2]} == {"503 no", "IncompleteReadError"}
    assert not any(one.good for one in heard)
    assert requests.failed["503 no"] == 1
