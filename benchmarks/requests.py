"""Requests at a steady rate over kept connections, each told of when it has ended."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

LANES = 32
ANSWER_S = 10.0
HTTP_OK = "200"


@dataclass(frozen=True, slots=True)
class Ended:
    """One request: times of the event loop's clock (monotonic, seconds), and what came of it."""

    sent: float
    ended: float
    said: str
    """``200``; another status with its text; or the name of what broke."""
    body: str = ""

    @property
    def good(self) -> bool:
        return self.said == HTTP_OK


class Requests:
    """GETs of one path; every answer that is not 200 is counted by what it was.

    At most LANES at a time: on a machine that cannot carry the rate, the rate falls instead of a queue growing.
    """

    def __init__(
        self,
        host: str,
        port: int,
        rate: float,
        *,
        path: str = "/",
        heard: Callable[[Ended], None] = lambda _: None,
    ) -> None:
        self._host, self._port, self._rate = host, port, rate
        self._request = f"GET {path} HTTP/1.1\r\nHost: peer\r\n\r\n".encode()
        self._heard = heard
        self._due = 0.0
        self.sent = 0
        self.failed: Counter[str] = Counter()

    async def run(self, stop: asyncio.Event) -> None:
        self._due = asyncio.get_running_loop().time()
        await asyncio.gather(*(self._lane(stop) for _ in range(LANES)))

    async def _lane(self, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not stop.is_set():
            self._due = max(self._due + 1 / self._rate, loop.time() - 0.1)
            await asyncio.sleep(self._due - loop.time())
            self.sent += 1
            sent, body = loop.time(), ""
            try:
                async with asyncio.timeout(ANSWER_S):
                    streams = streams or await asyncio.open_connection(self._host, self._port)
                    status, body, keep = await self._get(*streams)
            except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                status, keep = type(error).__name__, False
            if status != HTTP_OK:
                self.failed[status] += 1
            self._heard(Ended(sent, loop.time(), status, body))
            if not keep and streams is not None:
                streams[1].close()
                streams = None
        if streams is not None:
            streams[1].close()

    async def _get(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[str, str, bool]:
        """(status, with what was said if it is not 200; the body; whether the connection stays)."""
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        body = (await reader.readexactly(length)).decode(errors="replace")
        status = head.split(b" ", 2)[1].decode()
        said = status if status == HTTP_OK else f"{status} {body[:200]}"
        return said, body, b"connection: close" not in head
