"""What several workers say, as one answer: metrics, statuses, views cut off where one asks for no more."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from services.pilot.admin.views import Chunk
from services.pilot.siblings import Siblings, joined, summed
from windward.api.config.v1 import config_pb2
from windward.rpc.errors import RefusedError, not_found


def exposed(value: float) -> bytes:
    registry = CollectorRegistry()
    Gauge("things", "How many", ["of"], registry=registry).labels('a"b').set(value)
    Counter("done", "Done", registry=registry).inc(value)
    Histogram("took", "Seconds", buckets=(1, 2), registry=registry).observe(value)
    return generate_latest(registry)


def test_every_sample_has_its_worker_and_every_family_stands_once():
    lines = joined([("0", exposed(1)), ("1", exposed(2))]).decode().splitlines()
    types = [line for line in lines if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    assert {"# TYPE things gauge", "# TYPE done_total counter", "# TYPE took histogram"} <= set(
        types
    )
    for worker, value in (("0", 1.0), ("1", 2.0)):
        assert f'things{{of="a\\"b",worker="{worker}"}} {value}' in lines
        assert f'done_total{{worker="{worker}"}} {value}' in lines
        assert f'took_sum{{worker="{worker}"}} {value}' in lines
    assert 'took_bucket{le="1.0",worker="1"} 0.0' in lines


async def test_a_pilot_alone_has_no_label_and_asks_nobody():
    alone = Siblings.beside("")
    assert alone.address == ""
    assert await alone.metrics(b"things 1.0\n") == b"things 1.0\n"
    request = config_pb2.ListProxiesRequest()
    answers: Any = await alone.ask_config(lambda _: pytest.fail("nobody is there"), request)
    assert answers.found == []
    assert Siblings.beside("/run/x:3").address == "unix:/run/x/3.sock"


def test_counts_are_added_and_times_are_the_slowest_workers():
    push = config_pb2.Push(proxies=2, accepted=1, resources=3, p50_ms=5, p99_ms=6)
    push.at.FromSeconds(5)
    refusal = config_pb2.Refusal(type_url="t", name="n", version="v")
    one = config_pb2.ObjectStatus(proxies=2, acked=1, push=push, refusals=[refusal])
    other = config_pb2.ObjectStatus(proxies=3, acked=3, rejections=["x: no"], refusals=[refusal])
    other.push.CopyFrom(config_pb2.Push(proxies=3, accepted=3, resources=1, p50_ms=9, p99_ms=1))
    made = summed(one, [other])
    assert (made.proxies, made.acked, list(made.rejections)) == (5, 4, ["x: no"])
    assert (made.push.proxies, made.push.accepted, made.push.resources) == (5, 4, 3)
    assert (made.push.p50_ms, made.push.p99_ms) == (9, 6)
    assert len(made.refusals) == 1
    assert summed(config_pb2.ObjectStatus(), [one]).push == one.push
    assert not summed(config_pb2.ObjectStatus(), [config_pb2.ObjectStatus()]).HasField("push")


class Beside(Siblings):
    """Others who have these rows."""

    def __init__(self, *rows: bytes) -> None:
        super().__init__()
        self._given = Chunk(rows)

    async def _rows(self, *_: Any, **how: Any) -> list[Chunk]:
        assert how == {"alone": False}
        return [self._given]


async def own(view: str, query: Mapping[str, str], limit: int) -> AsyncGenerator[Chunk, None]:
    del query, limit
    if view == "config":
        raise not_found("not here")
    if view == "nothing":
        raise not_found("no view")
    yield Chunk((b"1", b"2"))


async def rows(siblings: Siblings, view: str, limit: int = 0) -> tuple[list[bytes], bool]:
    chunks = [chunk async for chunk in siblings.reader(own)(view, {}, limit)]
    return [row for chunk in chunks for row in chunk.rows], any(c.truncated for c in chunks)


async def test_rows_of_all_are_one_answer_and_no_longer_than_asked_for():
    assert await rows(Beside(b"3", b"4"), "sync") == ([b"1", b"2", b"3", b"4"], False)
    assert await rows(Beside(b"3", b"4"), "sync", 3) == ([b"1", b"2", b"3"], True)
    assert await rows(Beside(b"3"), "services") == ([b"1", b"2"], False)


async def test_a_proxy_of_another_worker_is_found_there():
    assert await rows(Beside(b"3"), "config") == ([b"3"], False)
    for siblings, view in ((Beside(), "config"), (Beside(b"3"), "nothing")):
        with pytest.raises(RefusedError) as caught:
            await rows(siblings, view)
        assert caught.value.code is grpc.StatusCode.NOT_FOUND
