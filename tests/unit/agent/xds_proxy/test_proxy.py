"""The xDS proxy between a client in Envoy's place and servers in Pilot's."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from services.agent.xds_proxy.proxy import SERVICE, XdsProxy
from windward.rpc import server as servers
from windward.rpc.channel import ChannelSource
from windward.rpc.errors import ErrorInterceptor
from windward.xds.resource import CLUSTER, ENDPOINT, LISTENER

Request = discovery_pb2.DeltaDiscoveryRequest
Response = discovery_pb2.DeltaDiscoveryResponse


class FakePilot:
    """Queues of what it got and of what it is to send; ``address`` stays over a restart."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[Any] = asyncio.Queue()
        self.to_send: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.streams = 0
        self.address = "127.0.0.1:0"

    async def start(self) -> FakePilot:
        self._server = servers.new_server()
        methods: dict[str, Any] = {
            "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(self.delta),
            "StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(self.whole),
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, methods),)
        )
        port = servers.listen_plaintext(self._server, self.address, setting="--address")
        self.address = f"127.0.0.1:{port}"
        await self._server.start()
        return self

    async def stop(self) -> None:
        await self._server.stop(None)

    async def delta(self, requests, _):
        self.streams += 1
        reading = asyncio.create_task(self._read(requests, Request))
        try:
            while (response := await self.to_send.get()) is not None:
                yield response
        finally:
            reading.cancel()

    async def whole(self, requests, _):
        async for raw in requests:
            request = discovery_pb2.DiscoveryRequest.FromString(raw)
            await self.got.put(request)
            yield discovery_pb2.DiscoveryResponse(
                type_url=request.type_url, version_info="1", nonce="n"
            ).SerializeToString()

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


async def test_requests_go_up_and_responses_come_down(pilot, connect):
    proxy, client = await connect(pilot.address)
    stream = delta_stream(client)
    await send(stream, CLUSTER, node={"id": "sidecar~1"})
    first = await pilot.got.get()
    assert (first.type_url, first.node.id) == (CLUSTER, "sidecar~1")
    assert proxy.connected
    await pilot.push(CLUSTER, "n1", a="1")
    assert (await receive(stream)).nonce == "n1"
    await send(stream, CLUSTER, response_nonce="n1")
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
    await receive(stream)
    await send(stream, CLUSTER, response_nonce="n1")
    await pilot.got.get()
    await pilot.to_send.put(None)
    again = await pilot.got.get()
    assert pilot.streams == 2
    assert proxy.reconnects == 1
    assert again.node.id == "sidecar~1"
    assert dict(again.initial_resource_versions) == {"a": "1"}
    await pilot.push(CLUSTER, "n2", b="1")
    assert (await receive(stream)).nonce == "n2"
    stream.cancel()


async def test_a_late_answer_does_not_reach_the_next_pilot(pilot, connect):
    _, client = await connect(pilot.address)
    stream = delta_stream(client)
    await send(stream, CLUSTER)
    await pilot.got.get()
    await pilot.push(CLUSTER, "old", a="1")
    await receive(stream)
    await pilot.to_send.put(None)
    await pilot.got.get()
    await pilot.push(CLUSTER, "new", a="1")
    await receive(stream)
    await send(stream, CLUSTER, response_nonce="old")
    await send(stream, CLUSTER, response_nonce="new")
    assert (await pilot.got.get()).response_nonce == "new"
    stream.cancel()


async def test_the_next_of_several_pilots_takes_over(pilot, connect):
    other = await FakePilot().start()
    _, client = await connect(pilot.address, other.address)
    stream = delta_stream(client)
    await send(stream, CLUSTER, node={"id": "sidecar~1"})
    await pilot.got.get()
    await pilot.push(CLUSTER, "n1", a="1")
    await receive(stream)
    await send(stream, CLUSTER, response_nonce="n1")
    await pilot.got.get()
    await pilot.stop()
    again = await other.got.get()
    assert dict(again.initial_resource_versions) == {"a": "1"}
    await other.push(LISTENER, "m1", l="1")
    assert (await receive(stream)).type_url == LISTENER
    stream.cancel()
    await other.stop()


async def test_a_pilot_that_is_not_there_yet_is_waited_for(connect):
    pilot = await FakePilot().start()
    await pilot.stop()
    proxy, client = await connect(pilot.address)
    stream = delta_stream(client)
    await send(stream, CLUSTER, node={"id": "sidecar~1"})
    while proxy.reconnects == 0:
        await asyncio.sleep(0.01)
    await pilot.start()
    assert (await pilot.got.get()).node.id == "sidecar~1"
    await pilot.push(CLUSTER, "n1", a="1")
    assert (await receive(stream)).nonce == "n1"
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


async def test_state_of_the_world_passes_through(pilot, connect):
    _, client = await connect(pilot.address)
    stream = client.stream_stream(f"/{SERVICE}/StreamAggregatedResources")()
    await stream.write(discovery_pb2.DiscoveryRequest(type_url=CLUSTER).SerializeToString())
    response = discovery_pb2.DiscoveryResponse.FromString(await stream.read())
    assert (response.type_url, response.nonce) == (CLUSTER, "n")
    stream.cancel()


async def test_state_of_the_world_ends_with_its_pilot(connect):
    pilot = await FakePilot().start()
    await pilot.stop()
    _, client = await connect(pilot.address)
    stream = client.stream_stream(f"/{SERVICE}/StreamAggregatedResources")()
    await stream.write(discovery_pb2.DiscoveryRequest(type_url=CLUSTER).SerializeToString())
    with pytest.raises(grpc.aio.AioRpcError) as gone:
        await stream.read()
    assert gone.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "Pilot has gone" in (gone.value.details() or "")
