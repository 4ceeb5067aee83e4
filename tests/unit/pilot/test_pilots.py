"""Pilots that know of one another by the store, and answer for all of them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from services.pilot import pilots as module
from services.pilot.admin.service import AdminService
from services.pilot.admin.views import Chunk
from services.pilot.api.access import Access
from services.pilot.api.config import ConfigService
from services.pilot.model.proxy import Proxy
from services.pilot.pilots import Pilots, host_of
from services.pilot.siblings import Siblings
from services.pilot.xds.connected import Connected, ConnectedProxies
from tests.unit.pilot_api.callers import TRUST_DOMAIN, a_ref, a_service_entry, an_apply
from tests.unit.rpc.pki import Authority
from tests.unit.xds.meshes import StillView, a_set, deltas
from windward.api.admin.v1 import admin_pb2, admin_pb2_grpc
from windward.api.config.v1 import config_pb2, config_pb2_grpc
from windward.identity.names import ADMIN_ACCOUNT, CONTROL_PLANE_DNS, PILOT_ACCOUNT, ROOT_NAMESPACE
from windward.rpc.channel import ChannelSource
from windward.rpc.credentials import TlsSource
from windward.rpc.http2.server import Http2Server
from windward.store.keys import pilot_key
from windward.store.memory import MemoryStore
from windward.store.protocol import Transaction, Write
from windward.xds.resource import CLUSTER, Origin, Resource
from windward.xds.stream import DeltaRequest, DeltaStream

WAIT_S = 20
MESH = Authority()
DNS = CONTROL_PLANE_DNS[PILOT_ACCOUNT]
ORIGIN = Origin("networking.istio.io", "ServiceEntry", "shop", "a")
REF = a_ref("ServiceEntry", "a")


def a_proxy(name: str) -> Connected:
    """It has accepted a cluster that comes of an object."""
    proxy = Proxy.from_node(f"sidecar~10.0.0.1~{name}.shop~shop.svc.cluster.local", {}, None)
    stream = DeltaStream(a_set(3, Resource(CLUSTER, "outbound|80||a", b"body", (ORIGIN,))))
    stream.request(DeltaRequest(CLUSTER))
    for response in deltas(stream.take()):
        stream.request(DeltaRequest(CLUSTER, nonce=response.nonce))
    stream.take()
    return Connected(proxy, stream, datetime(2026, 1, 1, tzinfo=UTC), StillView(stream.current))


class APilot:
    """What of one answers for others; a proxy of its name is connected."""

    def __init__(self, name: str, store: MemoryStore) -> None:
        connected = ConnectedProxies()
        connected.add(a_proxy(name))
        self.name = name
        self.siblings = Siblings()
        access, source = Access(TRUST_DOMAIN), TlsSource(material(PILOT_ACCOUNT, DNS))
        made: Any = Http2Server()
        self.server: Http2Server = made
        config = ConfigService(store, access, connected, name, None, self.siblings)
        config_pb2_grpc.add_ConfigServiceServicer_to_server(config, made)
        read, alone = self.siblings.reader(self._own), self.siblings.reader(self._own, alone=True)
        admin = AdminService(read, access, lambda: b"", "", alone)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(admin, made)
        port = self.server.listen_mtls("127.0.0.1:0", source, setting="--mtls-address")
        self.address = f"127.0.0.1:{port}"
        self.others = Pilots(store, self.address, source)
        self.siblings.pilots = self.others.channels
        self._running: asyncio.Task[None] | None = None

    async def _own(self, *_: Any) -> AsyncGenerator[Chunk, None]:
        yield Chunk((self.name.encode(),))

    async def start(self) -> None:
        await self.server.start()
        self._running = asyncio.create_task(self.others.run())

    async def leave(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
            self._running = None
        await self.others.leave()

    async def knows(self, *others: APilot) -> None:
        async with asyncio.timeout(WAIT_S):
            while set(self.others.channels()) != {other.address for other in others}:
                await asyncio.sleep(0)


def material(account: str, *names: str) -> Any:
    return MESH.material(account, *names, namespace=ROOT_NAMESPACE)


@asynccontextmanager
async def mesh(*names: str) -> AsyncIterator[tuple[MemoryStore, list[APilot], Any]]:
    """A store with one object, these Pilots, and an administrator's channel to the first of them."""
    async with AsyncExitStack() as stack:
        store = MemoryStore()
        pilots = [APilot(name, store) for name in names]
        for pilot in pilots:
            await pilot.start()
            stack.push_async_callback(pilot.server.stop, 0)
            stack.push_async_callback(pilot.leave)
        for pilot in pilots:
            await pilot.knows(*(other for other in pilots if other is not pilot))
        source = TlsSource(material(ADMIN_ACCOUNT))
        channels = ChannelSource([pilots[0].address], server_name=DNS, source=source)
        stack.push_async_callback(channels.close)
        config: Any = config_pb2_grpc.ConfigServiceStub(channels.channel())
        await config.Apply(an_apply(a_service_entry("a")))
        yield store, pilots, channels.channel()


async def test_each_answers_for_all_and_counts_nobody_twice():
    async with mesh("one", "two", "three") as (_, _, channel):
        config: Any = config_pb2_grpc.ConfigServiceStub(channel)
        found = await config.ListProxies(config_pb2.ListProxiesRequest())
        assert sorted(item.pilot for item in found.proxies) == ["one", "three", "two"]
        assert not found.unanswered
        status = await config.GetObjectStatus(config_pb2.GetRequest(ref=REF))
        assert (status.proxies, status.acked, list(status.unanswered)) == (3, 3, [])
        request = config_pb2.GetProxyConfigRequest(proxy="two")
        (resource,) = (await config.GetProxyConfig(request)).resources
        assert resource.name == "outbound|80||a"
        admin: Any = admin_pb2_grpc.AdminServiceStub(channel)
        parts = [part async for part in admin.Read(admin_pb2.ReadRequest(view="sync"))]
        rows = [row for part in parts for row in part.rows]
        assert rows[0] == b"one"
        assert sorted(rows) == [b"one", b"three", b"two"]


async def test_who_does_not_answer_is_named_and_who_has_left_is_asked_no_more():
    async with mesh("one", "two") as (_, (one, two), channel):
        config: Any = config_pb2_grpc.ConfigServiceStub(channel)
        await two.server.stop(0)
        found = await config.ListProxies(config_pb2.ListProxiesRequest())
        assert ([item.pilot for item in found.proxies], list(found.unanswered)) == (
            ["one"],
            [two.address],
        )
        status = await config.GetObjectStatus(config_pb2.GetRequest(ref=REF))
        assert (status.proxies, list(status.unanswered)) == (1, [two.address])
        await two.leave()
        await one.knows()
        assert not (await config.ListProxies(config_pb2.ListProxiesRequest())).unanswered


async def test_who_was_forgotten_by_the_store_comes_back(monkeypatch):
    monkeypatch.setattr(module, "TTL_S", 0.03)
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    async with mesh("one", "two") as (store, (one, two), _):
        (before,) = (await store.list(pilot_key(two.address))).entries
        await store.revoke(before.lease)
        async with asyncio.timeout(WAIT_S):
            while not (now := (await store.list(pilot_key(two.address))).entries):
                await asyncio.sleep(0)
        assert now[0].lease != before.lease
        await one.knows(two)


async def test_who_is_no_pilot_is_told_nothing():
    """What somebody wrote into the list is an address, and whoever answers there has to be a Pilot."""
    async with mesh("one") as (store, (one,), channel):
        stranger = Http2Server()
        source = TlsSource(Authority().material(PILOT_ACCOUNT, DNS, namespace=ROOT_NAMESPACE))
        port = stranger.listen_mtls("127.0.0.1:0", source, setting="--mtls-address")
        await stranger.start()
        address = f"127.0.0.1:{port}"
        await store.commit(Transaction((Write(pilot_key(address), b""),)))
        async with asyncio.timeout(WAIT_S):
            while address not in one.others.channels():
                await asyncio.sleep(0)
        config: Any = config_pb2_grpc.ConfigServiceStub(channel)
        found = await config.ListProxies(config_pb2.ListProxiesRequest())
        assert list(found.unanswered) == [address]
        assert [item.pilot for item in found.proxies] == ["one"]
        await stranger.stop(0)


@pytest.mark.parametrize(
    ("listening", "store", "host"),
    [
        ("127.0.0.9:15012", ("127.0.0.1", 2379), "127.0.0.9"),
        ("pilot-0.pilot.svc:15012", ("127.0.0.1", 2379), "pilot-0.pilot.svc"),
        ("[2001:db8::1]:15012", None, "[2001:db8::1]"),
        ("0.0.0.0:15012", ("127.0.0.1", 2379), "127.0.0.1"),
        ("[::]:15012", ("::1", 2379), "[::1]"),
        (":15012", ("localhost", 2379), "127.0.0.1"),
        ("0.0.0.0:15012", None, "127.0.0.1"),
        ("0.0.0.0:15012", ("no such host", 2379), socket.gethostname()),
    ],
)
async def test_how_others_reach_a_pilot(listening: str, store: tuple[str, int] | None, host: str):
    assert await host_of(listening, store) == host
