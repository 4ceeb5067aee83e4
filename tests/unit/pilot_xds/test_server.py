"""ADS calls: who may open one, what ends one, and that no input does worse than end its own call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.rpc import status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from services.pilot import metrics
from services.pilot.model.position import Position
from services.pilot.reach import Reach
from services.pilot.xds.limits import Limits
from services.pilot.xds.requests import LONGEST_NAME, MOST_NAMES
from services.pilot.xds.server import LONGEST_NODE
from tests.unit.pilot_xds.streams import (
    IDENTITY,
    NODE_ID,
    WAIT_S,
    Ads,
    Call,
    FakeCall,
    a_certificate,
)
from tests.unit.xds.meshes import a_resource, a_set, names
from windward.rpc.errors import RefusedError
from windward.rpc.http2.server import Http2Server
from windward.store.errors import Unavailable
from windward.store.memory import MemoryStore
from windward.xds.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE, TYPE_PREFIX


def a_node(node_id: str = NODE_ID, **metadata: Any) -> base_pb2.Node:
    node = base_pb2.Node(id=node_id)
    node.metadata.update({"SERVICE_ACCOUNT": "reviews", **metadata})
    return node


def an_error(text: str) -> status_pb2.Status:
    return status_pb2.Status(code=3, message=text)


async def responses(call: Call) -> AsyncIterator[Any]:
    while (response := await call.next()) is not None:
        yield response


async def test_a_delta_call_gets_its_resources_and_every_change():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a"), a_resource(CLUSTER, "b")))
    async with ads.delta() as call:
        call.send(node=a_node(), type_url=CLUSTER)
        first = await call.next()
        assert names(first) == ["a", "b"]
        call.send(type_url=CLUSTER, response_nonce=first.nonce)
        ads.source.publish(a_set(2, a_resource(CLUSTER, "a"), a_resource(CLUSTER, "b", "2")))
        assert names(await call.next()) == ["b"]


async def test_a_state_of_the_world_call_gets_the_same():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")))
    async with ads.sotw() as call:
        call.send(node=a_node(), type_url=CLUSTER)
        first = await call.next()
        call.send(type_url=CLUSTER, response_nonce=first.nonce, version_info=first.version_info)
        ads.source.publish(a_set(2, a_resource(CLUSTER, "a", "2")))
        second = await call.next()
        assert [resource.value for resource in second.resources] == [b"2"]


async def test_a_slow_reader_gets_the_newest_state_only():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a", "1")))
    async with ads.delta() as call:
        call.send(node=a_node(), type_url=CLUSTER)
        await call.next()
        for version in range(2, 100):
            ads.source.publish(a_set(version, a_resource(CLUSTER, "a", str(version))))
        bodies = [(await call.next()).resources[0].resource.value for _ in range(2)]
        assert bodies == [b"2", b"99"], "what there was room for, then the newest"


async def test_an_ended_call_leaves_nothing_behind():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")))
    async with ads.delta() as call:
        call.send(node=a_node(), type_url=CLUSTER)
        await call.next()
        assert len(ads.connected) == ads.source.views == 1
        call.end()
        assert await call.next() is None
    assert len(ads.connected) == ads.source.views == 0


async def test_a_call_without_a_request_is_no_proxy():
    ads = Ads(a_set(1))
    async with ads.delta() as call:
        call.end()
        assert await call.next() is None
    assert ads.source.attached == []


async def test_a_drain_ends_calls():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")))
    async with ads.delta() as call:
        call.send(node=a_node(), type_url=CLUSTER)
        await call.next()
        await ads.server.drain()
        assert await call.next() is None
    error = await refusal(ads, FakeCall(), first_request(a_node()))
    assert error.code is grpc.StatusCode.UNAVAILABLE


async def test_a_call_ends_with_its_peers_certificate():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")))
    expired = FakeCall(IDENTITY, a_certificate(valid_for=timedelta(hours=-1)))
    async with ads.delta(expired) as call:
        call.send(node=a_node(), type_url=CLUSTER)
        await call.next()
        assert await call.next() is None


async def test_a_certificate_that_is_good_for_long_ends_nothing():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")))
    valid = FakeCall(IDENTITY, a_certificate(valid_for=timedelta(days=400)))
    async with ads.delta(valid) as call:
        call.send(node=a_node(), type_url=CLUSTER)
        await call.next()
        ads.source.publish(a_set(2, a_resource(CLUSTER, "a", "2")))
        assert await call.next() is not None


# ---- who --------------------------------------------------------------------------------------------------------------


async def refusal(ads: Ads, at: FakeCall, raw: bytes) -> RefusedError:
    async with ads.delta(at) as call:
        call.send_raw(raw)
        with pytest.raises(RefusedError) as caught:
            await call.next()
    assert len(ads.connected) == ads.source.views == 0
    return caught.value


def first_request(node: base_pb2.Node, **fields: Any) -> bytes:
    request = discovery_pb2.DeltaDiscoveryRequest(node=node, **{"type_url": CLUSTER, **fields})
    return request.SerializeToString()


async def test_a_node_that_its_certificate_confirms_is_served():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")))
    async with ads.delta(FakeCall(IDENTITY)) as call:
        call.send(node=a_node(), type_url=CLUSTER)
        assert names(await call.next()) == ["a"]
    assert str(ads.source.attached[0].identity) == IDENTITY


@pytest.mark.parametrize(
    "identity",
    [
        "spiffe://cluster.local/ns/other/sa/reviews",
        "spiffe://cluster.local/ns/shop/sa/ratings",
        "spiffe://cluster.local/ns/shop/sa/reviews/extra",
        "spiffe://cluster.local/shop/reviews",
        "spiffe://cluster.local",
    ],
)
async def test_a_node_that_its_certificate_contradicts_is_denied(identity):
    error = await refusal(Ads(a_set(1)), FakeCall(identity), first_request(a_node()))
    assert error.code is grpc.StatusCode.PERMISSION_DENIED
    assert identity in error.message


async def test_the_node_of_a_later_request_changes_nothing():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a"), a_resource(ROUTE, "r")))
    async with ads.delta(FakeCall(IDENTITY)) as call:
        call.send(node=a_node(), type_url=CLUSTER)
        first = await call.next()
        call.send(type_url=CLUSTER, response_nonce=first.nonce)
        other = a_node("sidecar~10.9.9.9~evil.other~other.svc.cluster.local")
        call.send(node=other, type_url=ROUTE, resource_names_subscribe=["r"])
        await call.next()
        (connected,) = ads.connected
        assert connected.proxy.id == NODE_ID
    assert len(ads.source.attached) == 1


@pytest.mark.parametrize("node_id", ["", "reviews", "a~b~c~d", "sidecar~10.0.0.1~nodot~d", "~~~"])
async def test_a_node_id_of_another_form_is_denied(node_id):
    error = await refusal(Ads(a_set(1)), FakeCall(), first_request(a_node(node_id)))
    assert error.code is grpc.StatusCode.PERMISSION_DENIED


# ---- bad input --------------------------------------------------------------------------------------------------------


async def test_an_oversized_node_is_refused():
    node = a_node(PADDING="x" * LONGEST_NODE)
    error = await refusal(Ads(a_set(1)), FakeCall(), first_request(node))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert str(LONGEST_NODE) in error.message


@pytest.mark.parametrize(
    "type_url", ["", "Cluster", "type.example.com/envoy.config.cluster.v3.Cluster"]
)
async def test_a_type_that_is_no_type_url_is_refused(type_url):
    error = await refusal(Ads(a_set(1)), FakeCall(), first_request(a_node(), type_url=type_url))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_unknown_type_is_answered_with_silence():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")))
    async with ads.delta() as call:
        call.send(node=a_node(), type_url=TYPE_PREFIX + "example.Unknown")
        call.send(type_url=CLUSTER)
        assert (await call.next()).type_url == CLUSTER


async def test_too_many_names_are_refused():
    many = [str(number) for number in range(MOST_NAMES + 1)]
    raw = first_request(a_node(), resource_names_subscribe=many)
    error = await refusal(Ads(a_set(1)), FakeCall(), raw)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "field", ["resource_names_subscribe", "resource_names_unsubscribe", "initial_resource_versions"]
)
async def test_a_name_that_is_too_long_is_refused(field):
    long = "n" * (LONGEST_NAME + 1)
    fields: Any = {field: {long: "1"} if field.startswith("initial") else [long]}
    error = await refusal(Ads(a_set(1)), FakeCall(), first_request(a_node(), **fields))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"longer than {LONGEST_NAME}" in error.message


async def test_names_of_all_types_are_counted_together():
    ads = Ads(a_set(1))
    async with ads.delta() as call:
        call.send(node=a_node(), type_url=ROUTE, resource_names_subscribe=["r"])
        await call.next()
        half = [str(number) for number in range(MOST_NAMES // 2)]
        for type_url in (ROUTE, ENDPOINT):
            call.send(type_url=type_url, resource_names_subscribe=half)
        with pytest.raises(RefusedError) as caught:
            [_ async for _ in responses(call)]
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_too_many_names_in_many_requests_are_refused_as_well():
    ads = Ads(a_set(1))
    async with ads.delta() as call:
        call.send(node=a_node(), type_url=ROUTE, resource_names_subscribe=["r"])
        await call.next()
        half = MOST_NAMES // 2
        for start in (0, half):
            names = [str(number) for number in range(start, start + half)]
            call.send(type_url=ROUTE, resource_names_subscribe=names)
        with pytest.raises(RefusedError) as caught:
            [_ async for _ in responses(call)]
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("raw", [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x1a\x01\xff"])
async def test_garbage_is_refused(raw):
    error = await refusal(Ads(a_set(1)), FakeCall(), raw)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_garbage_later_ends_its_call_alone():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")))
    async with ads.delta() as good, ads.delta() as broken:
        for call in (good, broken):
            call.send(node=a_node(), type_url=CLUSTER)
            await call.next()
        broken.send_raw(b"\xff")
        with pytest.raises(RefusedError):
            await broken.next()
        ads.source.publish(a_set(2, a_resource(CLUSTER, "a", "2")))
        assert names(await good.next()) == ["a"]
        assert len(ads.connected) == 1


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_answered(raw):
    async def once() -> None:
        ads = Ads(a_set(1, a_resource(CLUSTER, "a")))
        async with ads.delta() as call:
            call.send(node=a_node(), type_url=CLUSTER)
            await call.next()
            call.send_raw(raw)
            call.end()
            try:
                while await call.next() is not None:
                    pass
            except RefusedError as error:
                assert error.code is grpc.StatusCode.INVALID_ARGUMENT  # noqa: PT017
        assert len(ads.connected) == 0

    asyncio.run(once())


async def test_a_pilot_that_is_not_ready_says_so():
    ads = Ads(a_set(1), Limits(ready_s=0.01))
    ads.server.ready = asyncio.Event()
    error = await refusal(ads, FakeCall(), first_request(a_node()))
    assert error.code is grpc.StatusCode.UNAVAILABLE


async def test_who_comes_while_the_store_is_read_waits():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")))
    ads.server.ready = asyncio.Event()
    async with ads.delta() as call:
        call.send(node=a_node(), type_url=CLUSTER)
        answer = asyncio.ensure_future(call.next())
        await asyncio.sleep(0.01)
        assert ads.source.attached == []
        ads.server.ready.set()
        assert names(await answer) == ["a"]


# ---- status -----------------------------------------------------------------------------------------------------------


def rejects() -> float:
    found = metrics.REGISTRY.get_sample_value("pilot_total_xds_rejects", {"type": "cds"})
    return found or 0.0


async def test_a_refusal_is_kept_and_counted():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")))
    before = rejects()
    async with ads.delta() as call:
        call.send(node=a_node(), type_url=CLUSTER)
        first = await call.next()
        call.send(type_url=CLUSTER, response_nonce=first.nonce, error_detail=an_error("ring size"))
        call.send(type_url=LISTENER)
        await call.next()
        (connected,) = ads.connected
        assert connected.stream.types[CLUSTER].last_error == "ring size"
    assert rejects() == before + 1


async def test_a_refusal_without_words_is_a_refusal():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")))
    async with ads.sotw() as call:
        call.send(node=a_node(), type_url=CLUSTER)
        first = await call.next()
        call.send(type_url=CLUSTER, response_nonce=first.nonce, error_detail=an_error(""))
        call.send(type_url=LISTENER)
        await call.next()
        (connected,) = ads.connected
        assert connected.stream.types[CLUSTER].state == "ERROR"


ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


@asynccontextmanager
async def over_grpc(ads: Ads) -> AsyncIterator[grpc.aio.Channel]:
    """The same behaviours behind a real server, asked by grpcio: errors arrive as statuses."""
    server = Http2Server()
    server.add_behaviours(ads.server.behaviours())
    port = server.listen_plaintext("127.0.0.1:0", setting="--plaintext-address")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


async def test_over_grpc_bytes_and_statuses_arrive():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")))
    async with over_grpc(ads) as channel:
        call: Any = channel.stream_stream(ADS)(timeout=WAIT_S)
        await call.write(first_request(a_node()))
        response = discovery_pb2.DeltaDiscoveryResponse.FromString(await call.read())
        assert names(response) == ["a"]
        refused: Any = channel.stream_stream(ADS)(timeout=WAIT_S)
        await refused.write(first_request(a_node("nobody")))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await refused.read()
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        await ads.server.drain()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


async def test_a_call_that_the_client_drops_leaves_nothing_behind():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")))
    async with over_grpc(ads) as channel:
        call: Any = channel.stream_stream(ADS)(timeout=WAIT_S)
        await call.write(first_request(a_node()))
        await call.read()
        assert len(ads.connected) == ads.source.views == 1
        call.cancel()
        async with asyncio.timeout(WAIT_S):
            while len(ads.connected) or ads.source.views:
                await asyncio.sleep(0.001)


# ---- coming from another Pilot ----------------------------------------------------------------------------------------


def behind(ads: Ads, *, at: Position) -> Reach:
    """The server is at a position of a store that it cannot reach."""
    reach = ads.server.reach = Reach(Away())
    reach.advance(at)
    return reach


class Away(MemoryStore):
    async def commit(self, transaction: Any) -> int:
        del transaction
        raise Unavailable("etcd is away")


async def test_who_has_seen_more_elsewhere_is_sent_on():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")))
    behind(ads, at=Position(7, 7))
    async with ads.delta(FakeCall(windward_position="8.7")) as call:
        call.send(node=a_node(), type_url=CLUSTER)
        with pytest.raises(RefusedError, match="try another one") as caught:
            await call.next()
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert ads.source.attached == []


@pytest.mark.parametrize("said", ["7.7", "3.2", "57", "nonsense", ""])
async def test_who_has_not_is_served(said):
    """An agent that remembers what an earlier version of Pilot said, in other words, among them."""
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")))
    behind(ads, at=Position(7, 7))
    async with ads.delta(FakeCall(windward_position=said)) as call:
        call.send(node=a_node(), type_url=CLUSTER)
        assert names(await call.next()) == ["a"]


async def test_who_comes_while_it_catches_up_waits():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")))
    reach = ads.server.reach = Reach(MemoryStore())
    async with ads.delta(FakeCall(windward_position="8.7")) as call:
        call.send(node=a_node(), type_url=CLUSTER)
        answer = asyncio.ensure_future(call.next())
        await asyncio.sleep(0.01)
        assert ads.source.attached == []
        reach.advance(Position(8, 8))
        assert names(await answer) == ["a"]
