"""A request that names thousands, beside others of its stream: taken in in turns, in order, and bounded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from services.pilot.xds import session
from services.pilot.xds.session import MOST_KEPT
from tests.unit.pilot_xds.streams import NODE_ID, WAIT_S, Ads, Call, FakeCall
from tests.unit.xds.meshes import a_resource, a_set
from windward.rpc.errors import RefusedError
from windward.xds.resource import CLUSTER, ENDPOINT

MANY = [f"name-{number}" for number in range(20_000)]


def a_node() -> base_pb2.Node:
    node = base_pb2.Node(id=NODE_ID)
    node.metadata.update({"SERVICE_ACCOUNT": "reviews"})
    return node


async def begun(call: Call) -> None:
    """The stream is open, and its first response answered."""
    call.send(node=a_node(), type_url=CLUSTER)
    call.send(type_url=CLUSTER, response_nonce=(await call.next()).nonce)


async def rest(call: Call) -> None:
    """Until the server ends the call."""
    while await call.next() is not None:
        pass


def of(ads: Ads) -> Any:
    (connected,) = ads.connected
    return connected.stream


async def test_a_long_request_lets_others_have_their_turn(monkeypatch: pytest.MonkeyPatch):
    """However short a slice is, what comes meanwhile waits, and all of it is answered in order."""
    monkeypatch.setattr(session, "SLICE_S", 0.0)
    ads = Ads(a_set(1, a_resource(CLUSTER, "a"), a_resource(ENDPOINT, "name-7")))
    async with ads.delta(FakeCall(window=100)) as call:
        await begun(call)
        call.send(type_url=ENDPOINT, resource_names_subscribe=MANY)
        call.send(type_url=ENDPOINT, resource_names_unsubscribe=MANY[10:])
        ads.source.publish(a_set(2, a_resource(CLUSTER, "a", "2")))
        assert len(of(ads).types) == 1, "nothing of it is taken in while its sender has the loop"
        assert of(ads).current.version == 1, (
            "nothing else is done with the stream before it is whole"
        )
        async with asyncio.timeout(WAIT_S):
            while ENDPOINT not in of(ads).types or of(ads).current.version == 1:
                await asyncio.sleep(0)
        assert sorted(of(ads).types[ENDPOINT].subscription.names) == sorted(MANY[:10])
        assert {(await call.next()).type_url for _ in range(2)} == {CLUSTER, ENDPOINT}


async def test_what_waits_for_a_long_request_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(session, "SLICE_S", 0.0)
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")))
    async with ads.delta() as call:
        await begun(call)
        long = discovery_pb2.DeltaDiscoveryRequest(
            type_url=ENDPOINT, resource_names_subscribe=MANY
        ).SerializeToString()
        for _ in range(MOST_KEPT // len(long) + 2):
            call.send_raw(long)
        with pytest.raises(RefusedError, match="more requests than can be taken in"):
            await rest(call)


async def test_a_stream_that_ends_leaves_its_long_request(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(session, "SLICE_S", 0.0)
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")))
    async with ads.delta() as call:
        await begun(call)
        stream = of(ads)
        call.send(type_url=ENDPOINT, resource_names_subscribe=MANY)
        call.end()
        assert await call.next() is None
        for _ in range(10):
            await asyncio.sleep(0)
        assert ENDPOINT not in stream.types
    assert len(list(ads.connected)) == 0


async def test_a_bad_request_behind_a_long_one_ends_the_stream():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")))
    async with ads.delta() as call:
        await begun(call)
        call.send(type_url=ENDPOINT, resource_names_subscribe=MANY)
        call.send_raw(b"\xff")
        with pytest.raises(RefusedError, match="not a discovery request"):
            await rest(call)


async def test_short_responses_that_take_long_to_make_are_sent_in_turns_too(
    monkeypatch: pytest.MonkeyPatch,
):
    """As those are that say of thousands of names that they do not exist."""
    monkeypatch.setattr(session, "SLICE_S", 0.0)
    mesh = a_set(1, *(a_resource(CLUSTER, f"c{number}") for number in range(1000)))
    ads, at = Ads(mesh), FakeCall(window=100)
    async with ads.delta(at) as call:
        call.send(node=a_node(), type_url=CLUSTER)
        await call.next()
        others = at.responses.qsize()
        assert others < 4, "five responses of 200 clusters, of which each is a turn"
        for _ in range(4):
            await call.next()
