"""Reading views: which there are, what is refused, and that no answer is too large or holds the loop."""

from __future__ import annotations

import asyncio

import grpc
import msgspec
import pytest
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from services.pilot.admin import views
from services.pilot.admin.views import VIEWS, read
from tests.unit.pilot.mesh import service_entry, sidecar
from tests.unit.pilot_admin.world import running
from windward.rpc.errors import RefusedError
from windward.xds.resource import CLUSTER, SECRET, Resource


async def test_every_view_reads_an_empty_mesh():
    async with running() as world:
        await world.follow(sidecar())
        for name in VIEWS:
            query = {"proxy": sidecar().name} if name == "config" else {}
            assert isinstance(await world.read(name, **query), list)


@pytest.mark.parametrize(
    ("view", "query", "limit", "code", "words"),
    [
        ("nothing", {}, 0, "NOT_FOUND", "one of sync"),
        ("sync", {"colour": "red"}, 0, "INVALID_ARGUMENT", "its filters: proxy, namespace"),
        ("sync", {"proxy": "x" * 1001}, 0, "INVALID_ARGUMENT", "that length"),
        ("status", {"proxy": "x"}, 0, "INVALID_ARGUMENT", "its filters: none"),
        ("services", {}, 100_001, "INVALID_ARGUMENT", "at most 100000 rows"),
        ("services", {}, -1, "INVALID_ARGUMENT", "at most 100000 rows"),
        ("config", {}, 0, "NOT_FOUND", "say which proxy"),
        ("config", {"proxy": "nobody"}, 0, "NOT_FOUND", "no proxy 'nobody' is connected"),
    ],
)
async def test_what_is_asked_for_wrongly_is_refused(view, query, limit, code, words):
    async with running() as world:
        with pytest.raises(RefusedError, match=words) as caught:
            await world.read(view, limit, **query)
        assert caught.value.code is grpc.StatusCode[code]


async def test_more_rows_than_asked_for_are_cut_off_and_that_is_said():
    async with running() as world:
        await world.put(*(service_entry(f"s{number}") for number in range(5)))
        chunks = [chunk async for chunk in read(world.observed, "services", {}, 3)]
        assert sum(len(chunk.rows) for chunk in chunks) == 3
        assert [chunk.truncated for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        whole = [chunk async for chunk in read(world.observed, "services", {}, 5)]
        assert sum(len(chunk.rows) for chunk in whole) == 5
        assert not any(chunk.truncated for chunk in whole)


async def test_an_answer_has_an_end(monkeypatch):
    async with running() as world:
        await world.put(*(service_entry(f"s{number}") for number in range(50)))
        monkeypatch.setattr(views, "MOST_BYTES", 2000)
        monkeypatch.setattr(views, "CHUNK_BYTES", 500)
        chunks = [chunk async for chunk in read(world.observed, "services", {}, 0)]
        size = sum(len(row) for chunk in chunks for row in chunk.rows)
        assert 2000 < size < 3000
        assert chunks[-1].truncated
        assert len(chunks) > 2


async def test_others_run_between_slices(monkeypatch):
    async with running() as world:
        await world.put(*(service_entry(f"s{number}") for number in range(50)))
        monkeypatch.setattr(views, "SLICE_S", 0.0)
        turns, reading = 0, asyncio.ensure_future(world.read("services"))
        while not reading.done():
            turns += 1
            await asyncio.sleep(0)
        assert len(await reading) == 50
        assert turns >= 50


async def test_a_long_resource_is_the_same_json_as_a_short_one(monkeypatch):
    async with running() as world:
        await world.put(*(service_entry(f"s{number}") for number in range(20)))
        follower = await world.follow(sidecar())
        follower.answer()
        ways = []
        for inline, long in ((10**9, 10**9), (0, 10**9), (0, 0)):
            monkeypatch.setattr(views, "INLINE_BYTES", inline)
            monkeypatch.setattr(views, "LONG_BYTES", long)
            ways.append(await world.read("config", proxy=follower.proxy.name, type="route"))
        assert ways[0] == ways[1] == ways[2]
        hosts = ways[0][0]["body"]["virtualHosts"]
        assert {item["name"] for item in hosts} > {"s0.shop.svc.cluster.local:9080"}


def test_a_private_key_is_not_shown():
    secret = secret_pb2.Secret(name="kubernetes://shop")
    secret.tls_certificate.certificate_chain.inline_bytes = b"chain"
    secret.tls_certificate.private_key.inline_bytes = b"very secret"
    shown = msgspec.json.decode(
        views._envoy_json(Resource(SECRET, "a", secret.SerializeToString()))
    )
    assert shown["tlsCertificate"]["privateKey"] == {"inlineString": "[redacted]"}
    assert "certificateChain" in shown["tlsCertificate"]


def test_a_message_of_an_unknown_type_has_no_json():
    unknown = Resource("type.googleapis.com/nobody.Knows", "a", b"x")
    garbage = Resource(CLUSTER, "a", b"\xff")
    assert views._envoy_json(unknown) == views._envoy_json(garbage) == b"null"
    assert msgspec.json.decode(views._envoy_json(unknown)) is None
