"""``windward-agent wait``."""

from __future__ import annotations

import pytest

from services.agent.wait import ask, main, wait
from windward.rpc.http import Response, serve_http


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("needed", "said", "asked"), [(1, "", 1), (4, "", 4), (1000, "not yet", 121)]
)
def test_it_asks_every_half_second_for_a_minute(needed, said, asked):
    clock, asks = Clock(), []

    def problem() -> str:
        asks.append(clock.now)
        return "" if len(asks) == needed else "not yet"

    assert wait(problem, 60.0, 0.5, clock=clock, sleep=clock.sleep) == said
    assert len(asks) == asked


async def test_ready_is_200_and_the_reason_is_told():
    import asyncio

    answers = [Response(503, b"Envoy is not LIVE\n"), Response(500), Response(200, b"ready\n")]

    async def ready(_):
        return answers.pop(0)

    server = await serve_http("127.0.0.1", 0, {("GET", "/healthz/ready"): ready})
    port = server.sockets[0].getsockname()[1]
    async with server:
        for said in ("Envoy is not LIVE", "status 500", ""):
            assert await asyncio.to_thread(ask, "127.0.0.1", port, "/healthz/ready", 1.0) == said
    assert "refused" in ask("127.0.0.1", port, "/", 1.0)


def test_the_exit_status_and_the_last_reason(capsys, unused_tcp_port):
    url = f"http://127.0.0.1:{unused_tcp_port}/healthz/ready"
    assert main(["--url", url, "--timeout-s", "0.01", "--period-s", "0.01"]) == 1
    assert "not ready after 0.01 s: 127.0.0.1" in capsys.readouterr().err


def test_a_bad_url_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--url", "ftp://x"])
    assert "must be http://host:port/path" in capsys.readouterr().err
