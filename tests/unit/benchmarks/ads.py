"""A scripted ADS server: it keeps what the fleet asks, and sends what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from envoy.service.discovery.v3 import discovery_pb2

from benchmarks.fleet.build import fleet_binary
from benchmarks.fleet.identities import Member, write_identities
from benchmarks.fleet.process import Fleet
from windward.xds.envelope import delta_response, sotw_response
from windward.xds.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE, Resource

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"


class Stream:
    """One stream as the server sees it."""

    def __init__(self, *, delta: bool) -> None:
        self.delta = delta
        self.requests: asyncio.Queue[Any] = asyncio.Queue()
        self.responses: asyncio.Queue[Any] = asyncio.Queue()
        self._nonce = 0

    async def request(self, type_url: str):
        """The next request, which must be of this type."""
        got = await asyncio.wait_for(self.requests.get(), 10)
        assert got.type_url == type_url, got
        return got

    def send(
        self,
        type_url: str,
        resources: Iterable[Resource] = (),
        removed: Iterable[str] = (),
        version: str = "1",
    ) -> str:
        self._nonce += 1
        nonce = f"n{self._nonce}"
        if self.delta:
            raw = delta_response(type_url, resources, removed, version, nonce)
        else:
            raw = sotw_response(type_url, resources, version, nonce)
        self.responses.put_nowait(raw)
        return nonce

    def end(self) -> None:
        self.responses.put_nowait(None)


class Server:
    def __init__(self) -> None:
        self.streams: asyncio.Queue[Any] = asyncio.Queue()

    async def stream(self) -> Stream:
        return await asyncio.wait_for(self.streams.get(), 10)

    async def delta(self, requests, _context):
        async for raw in self._serve(requests, discovery_pb2.DeltaDiscoveryRequest, delta=True):
            yield raw

    async def sotw(self, requests, _context):
        async for raw in self._serve(requests, discovery_pb2.DiscoveryRequest, delta=False):
            yield raw

    async def _serve(self, requests, message, *, delta):
        stream = Stream(delta=delta)
        self.streams.put_nowait(stream)

        async def read():
            async for raw in requests:
                stream.requests.put_nowait(message.FromString(raw))

        reading = asyncio.create_task(read())
        try:
            while (raw := await stream.responses.get()) is not None:
                yield raw
        finally:
            reading.cancel()


@asynccontextmanager
async def fleet_at(
    tmp_path: Path, *, streams: int = 1, sotw: bool = False, bodies: Path | None = None
) -> AsyncIterator[tuple[Server, Fleet]]:
    """A server and a plaintext fleet that is told to connect to it."""
    script = Server()
    server = grpc.aio.server()
    handlers: dict[str, Any] = {
        "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(script.delta),
        "StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(script.sotw),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with fleet(tmp_path, port, streams=streams, sotw=sotw, bodies=bodies) as made:
            made.say("connect")
            yield script, made
    finally:
        await server.stop(0)


def fleet(
    tmp_path: Path, port: int, *, streams: int = 1, sotw: bool = False, bodies: Path | None = None
) -> Fleet:
    members = [
        Member(f"app-{index}", "shop", f"account-{index}", f"10.0.0.{index + 1}", "app")
        for index in range(streams)
    ]
    return Fleet(
        port=port,
        streams=streams,
        nodes=write_identities(tmp_path / "fleet", members, None, "cluster.local"),
        roots=None,
        server_name="localhost",
        sotw=sotw,
        bodies=bodies,
        binary=fleet_binary(tls=False),
    )


# ---- resources ----------------------------------------------------------------------------------------------------------


def a_cluster(name: str, *, connect_s: int = 1) -> Resource:
    made = cluster_pb2.Cluster(name=name, type=cluster_pb2.Cluster.EDS)
    made.connect_timeout.FromSeconds(connect_s)
    return Resource(CLUSTER, name, made.SerializeToString())


def endpoints(name: str, address: str) -> Resource:
    made = endpoint_pb2.ClusterLoadAssignment(cluster_name=name)
    at = made.endpoints.add().lb_endpoints.add().endpoint.address.socket_address
    at.address, at.port_value = address, 80
    return Resource(ENDPOINT, name, made.SerializeToString())


def a_listener(name: str, route: str) -> Resource:
    manager = hcm.HttpConnectionManager(stat_prefix="x")
    manager.rds.route_config_name = route
    manager.rds.config_source.ads.SetInParent()
    made = listener_pb2.Listener(name=name)
    made.filter_chains.add().filters.add(name="hcm").typed_config.Pack(manager)
    return Resource(LISTENER, name, made.SerializeToString())


def a_route(name: str, *clusters: str) -> Resource:
    made = route_pb2.RouteConfiguration(name=name)
    for cluster in clusters:
        host = made.virtual_hosts.add(name=cluster, domains=[cluster])
        host.routes.add(match={"prefix": "/"}, route={"cluster": cluster})
    return Resource(ROUTE, name, made.SerializeToString())


async def bring_up(stream: Stream, address: str = "10.9.0.1") -> None:
    """One cluster ``a`` with its endpoints, one listener and its route, all ACKed."""
    await stream.request(CLUSTER)
    stream.send(CLUSTER, [a_cluster("a")])
    await stream.request(ENDPOINT)
    await stream.request(CLUSTER)
    stream.send(ENDPOINT, [endpoints("a", address)])
    await stream.request(ENDPOINT)
    await stream.request(LISTENER)
    stream.send(LISTENER, [a_listener("l", "r")])
    await stream.request(ROUTE)
    await stream.request(LISTENER)
    stream.send(ROUTE, [a_route("r", "a")])
    await stream.request(ROUTE)
