"""The xDS proxy between a client in Envoy's place and servers in Pilot's."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from services.agent.xds_proxy.cache import Held
from services.agent.xds_proxy.proxy import POSITION_KEY, SERVICE, XdsProxy
from windward.rpc import server as servers
from windward.rpc.channel import ChannelSource
from windward.rpc.errors import ErrorInterceptor
from windward.xds.resource import CLUSTER, ENDPOINT

Request = discovery_pb2.DeltaDiscoveryRequest
Response = discovery_pb2.DeltaDiscoveryResponse


class FakePilot:
    """Queues of what it got and of what it is to send; ``address`` stays over a restart."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[Any] = asyncio.Queue()
        self.to_send: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.streams = 0
        self.metadata: dict[str, Any] = {}
        self.address = "127.0.0.1:0"

    async def start(self) -> FakePilot:
        self._server = servers.new_server()
        methods: dict[str, Any] = {
            "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(self.delta),
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, methods),)
        )
        port = servers.listen_plaintext(self._server, self.address, setting="--address")
        self.address = f"127.0.0.1:{port}"
        await self._server.start()
        return self

    async def stop(self, grace_s: float | None = None) -> None:
        await self._server.stop(grace_s)

    async def delta(self, requests, context):
        self.streams += 1
        self.metadata = dict(context.invocation_metadata())
        reading = asyncio.create_task(self._read(requests, Request))
        try:
            while (response := await self.to_send.get()) is not None:
                yield response
        finally:
            reading.cancel()

    async def _read(self, requests, kind) -> None:
        async for raw in requests:
            await self.got.put(kind.FromString(raw))

    async def push(self, type_url: str, nonce: str, **versions: str) -> None:
        response = Response(type_url=type_url, nonce=nonce)
        for name, version in versions.items():
            response.resources.add(name=name, version=version)
        await self.to_send.put(response.SerializeToString())


@pytest.fixture
async def pilot():
    made = await FakePilot().start()
    yield made
    await made.stop()


@pytest.fixture
async def connect(tmp_path):
    """Connects a client to a proxy for some Pilots, over a unix socket; gives the proxy and the client's channel."""
    opened: list[Any] = []

    async def make(*addresses: str) -> tuple[XdsProxy, Any]:
        channels = ChannelSource(addresses)
        proxy = XdsProxy(channels)
        server = servers.new_server(interceptors=[ErrorInterceptor()])
        server.add_generic_rpc_handlers((proxy.handlers(),))
        path = f"unix:{tmp_path}/xds.sock"
        servers.listen_plaintext(server, path, setting="--state-dir")
        await server.start()
        client = grpc.aio.insecure_channel(path)
        opened.append((client, server, channels))
        return proxy, client

    yield make
    for client, server, channels in opened:
        await client.close()
        await server.stop(None)
        await channels.close()


def delta_stream(client: Any) -> Any:
    return client.stream_stream(f"/{SERVICE}/DeltaAggregatedResources")()


async def send(stream: Any, type_url: str, *names: str, **more: Any) -> None:
    request = Request(type_url=type_url, resource_names_subscribe=names, **more)
    await stream.write(request.SerializeToString())


async def receive(stream: Any) -> Any:
    return Response.FromString(await stream.read())


async def accept(stream: Any) -> Any:
    response = await receive(stream)
    await send(stream, response.type_url, response_nonce=response.nonce)
    return response


async def test_requests_go_up_and_responses_come_down(pilot, connect):
    proxy, client = await connect(pilot.address)
    stream = delta_stream(client)
    await send(stream, CLUSTER, node={"id": "sidecar~1"})
    first = await pilot.got.get()
    assert (first.type_url, first.node.id) == (CLUSTER, "sidecar~1")
    assert proxy.connected
    await pilot.push(CLUSTER, "n1", a="1")
    await accept(stream)
    assert (await pilot.got.get()).response_nonce == "n1"
    await send(stream, ENDPOINT, "a")
    assert list((await pilot.got.get()).resource_names_subscribe) == ["a"]
    stream.cancel()


async def test_a_pilot_that_ends_the_stream_is_replaced_unseen(pilot, connect):
    proxy, client = await connect(pilot.address)
    stream = delta_stream(client)
    await send(stream, CLUSTER, node={"id": "sidecar~1"})
    await pilot.got.get()
    await pilot.push(CLUSTER, "n1", a="1")
    await accept(stream)
    await pilot.got.get()
    await pilot.to_send.put(None)
    again = await pilot.got.get()
    assert pilot.streams == 2
    assert proxy.counts.reconnects == 1
    assert again.node.id == "sidecar~1"
    assert dict(again.initial_resource_versions) == {"a": "1"}
    await pilot.push(CLUSTER, "n2", b="1")
    assert [item.name for item in (await receive(stream)).resources] == ["b"]
    stream.cancel()


async def test_one_that_leaves_keeps_its_clusters_and_goes_on_with_endpoints(pilot, connect):
    proxy, client = await connect(pilot.address)
    stream = delta_stream(client)
    await send(stream, CLUSTER, node={"id": "sidecar~1"})
    await send(stream, ENDPOINT, "a")
    await pilot.got.get()
    await pilot.got.get()
    await pilot.push(CLUSTER, "n1", a="1")
    await accept(stream)
    proxy.hold()
    await pilot.push(CLUSTER, "n2", b="1")
    await pilot.push(ENDPOINT, "n3", a="1")
    assert (await receive(stream)).type_url == ENDPOINT
    assert set(proxy.cache.of(CLUSTER).resources) == {"a"}
    stream.cancel()


async def test_a_late_answer_does_not_reach_the_next_pilot(pilot, connect):
    _, client = await connect(pilot.address)
    stream = delta_stream(client)
    await send(stream, CLUSTER)
    await pilot.got.get()
    await pilot.push(CLUSTER, "old", a="1")
    old = await receive(stream)
    await pilot.to_send.put(None)
    await pilot.got.get()
    await pilot.push(CLUSTER, "new", a="1")
    new = await receive(stream)
    await send(stream, CLUSTER, response_nonce=old.nonce)
    await send(stream, CLUSTER, response_nonce=new.nonce)
    assert (await pilot.got.get()).response_nonce == "new"
    stream.cancel()


async def test_the_next_of_several_pilots_takes_over(pilot, connect):
    other = await FakePilot().start()
    _, client = await connect(pilot.address, other.address)
    stream = delta_stream(client)
    await send(stream, CLUSTER, node={"id": "sidecar~1"})
    await pilot.got.get()
    await pilot.push(CLUSTER, "n1", a="1")
    await accept(stream)
    await pilot.got.get()
    await pilot.stop()
    again = await other.got.get()
    assert dict(again.initial_resource_versions) == {"a": "1"}
    await other.push(CLUSTER, "m1", b="1")
    assert [item.name for item in (await receive(stream)).resources] == ["b"]
    stream.cancel()
    await other.stop()


async def test_a_pilot_that_is_not_there_yet_is_waited_for(connect):
    pilot = await FakePilot().start()
    await pilot.stop()
    proxy, client = await connect(pilot.address)
    stream = delta_stream(client)
    await send(stream, CLUSTER, node={"id": "sidecar~1"})
    while proxy.counts.reconnects == 0:
        await asyncio.sleep(0.01)
    await pilot.start()
    assert (await pilot.got.get()).node.id == "sidecar~1"
    await pilot.push(CLUSTER, "n1", a="1")
    assert (await accept(stream)).type_url == CLUSTER
    stream.cancel()
    await pilot.stop()


async def test_a_client_that_goes_takes_its_upstream_along(pilot, connect):
    proxy, client = await connect(pilot.address)
    stream = delta_stream(client)
    await send(stream, CLUSTER)
    await pilot.got.get()
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert not proxy.connected


async def test_state_of_the_world_is_refused_with_what_to_set(connect):
    _, client = await connect("127.0.0.1:1")
    stream = client.stream_stream(f"/{SERVICE}/StreamAggregatedResources")()
    with pytest.raises(grpc.aio.AioRpcError, match="DELTA_GRPC") as refused:
        await stream.read()
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_what_is_no_request_is_refused(connect):
    _, client = await connect("127.0.0.1:1")
    stream = delta_stream(client)
    await stream.write(b"\x12\x05abc")
    with pytest.raises(grpc.aio.AioRpcError, match="not a discovery request") as refused:
        await stream.read()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_newest_downstream_wins(pilot, connect):
    _, client = await connect(pilot.address)
    first = delta_stream(client)
    await send(first, CLUSTER, node={"id": "sidecar~1"})
    await pilot.got.get()
    second = delta_stream(client)
    await send(second, CLUSTER, node={"id": "sidecar~1"})
    assert await first.read() is grpc.aio.EOF
    await pilot.got.get()
    await pilot.to_send.put(None)  # what the first one's stream at Pilot still waits for
    await pilot.push(CLUSTER, "n1", a="1")
    assert [item.name for item in (await accept(second)).resources] == ["a"]
    second.cancel()


async def test_an_envoy_that_comes_back_is_answered_with_no_pilot_at_all(connect):
    pilot = await FakePilot().start()
    proxy, client = await connect(pilot.address)
    stream = delta_stream(client)
    await send(stream, CLUSTER, node={"id": "sidecar~1"})
    await pilot.got.get()
    await pilot.push(CLUSTER, "n1", a="1", b="1")
    await accept(stream)
    await pilot.got.get()
    await pilot.stop()
    stream.cancel()
    again = delta_stream(client)
    await send(again, CLUSTER, node={"id": "sidecar~1"})
    assert [item.name for item in (await accept(again)).resources] == ["a", "b"]
    assert not proxy.connected
    assert proxy.counts.served_from_cache == 1
    await pilot.start()
    first = await pilot.got.get()
    assert dict(first.initial_resource_versions) == {"a": "1", "b": "1"}
    again.cancel()
    await pilot.stop()


async def test_pilot_is_told_the_newest_state_that_was_seen(pilot, connect):
    _, client = await connect(pilot.address)
    stream = delta_stream(client)
    await send(stream, CLUSTER, node={"id": "sidecar~1"})
    await pilot.got.get()
    assert POSITION_KEY not in pilot.metadata
    response = Response(type_url=CLUSTER, nonce="n1", system_version_info="41")
    await pilot.to_send.put(response.SerializeToString())
    await accept(stream)
    await pilot.got.get()
    await pilot.to_send.put(None)
    await pilot.got.get()
    assert pilot.metadata[POSITION_KEY] == "41"
    stream.cancel()


async def test_a_pilot_that_drains_is_left_before_it_ends_the_stream(connect):
    """GOAWAY is enough: the stream itself would go on for as long as the server's grace lasts."""
    pilot, other = await FakePilot().start(), await FakePilot().start()
    _, client = await connect(pilot.address, other.address)
    stream = delta_stream(client)
    await send(stream, CLUSTER, node={"id": "sidecar~1"})
    await pilot.got.get()
    stopping = asyncio.create_task(pilot.stop(3600))
    assert (await other.got.get()).node.id == "sidecar~1"
    await asyncio.wait_for(stopping, 30)
    await other.push(CLUSTER, "n1", a="1")
    await accept(stream)
    stream.cancel()
    await other.stop()


async def test_a_pilot_that_nobody_can_reach_is_passed_over(pilot, connect):
    proxy, client = await connect("127.0.0.1:1", pilot.address)
    stream = delta_stream(client)
    await send(stream, CLUSTER, node={"id": "sidecar~1"})
    assert (await pilot.got.get()).node.id == "sidecar~1"
    assert proxy.counts.reconnects == 1
    stream.cancel()


async def test_a_pilot_that_says_nonsense_is_left(pilot, connect):
    _, client = await connect(pilot.address)
    stream = delta_stream(client)
    await send(stream, CLUSTER, node={"id": "sidecar~1"})
    await pilot.got.get()
    await pilot.to_send.put(b"\x12\x05abc")
    assert (await pilot.got.get()).node.id == "sidecar~1"
    assert pilot.streams == 2
    stream.cancel()


async def test_after_a_refused_answer_from_the_cache_pilot_tells_all_again(pilot, connect):
    proxy, client = await connect(pilot.address)
    entry = Response()
    entry.resources.add(name="a", version="1")
    held = Held("1", entry.resources[0].SerializeToString())
    proxy.cache.accept(CLUSTER, {"a": held}, (), set())
    stream = delta_stream(client)
    await send(stream, CLUSTER, node={"id": "sidecar~1"})
    assert dict((await pilot.got.get()).initial_resource_versions) == {"a": "1"}
    nonce = (await receive(stream)).nonce
    await send(stream, CLUSTER, response_nonce=nonce, error_detail={"message": "no longer"})
    assert dict((await pilot.got.get()).initial_resource_versions) == {}
    assert proxy.counts.rejected == 1
    stream.cancel()
