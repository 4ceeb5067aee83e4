"""``windward-pilot --workers``: processes that share ports, answer for one another, come back, and end together."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from benchmarks.fleet.identities import certificate
from benchmarks.lease_mesh import DELTA, DNS_NAME, objects
from benchmarks.xds.bench import Bench, split_identity
from benchmarks.xds.load import load_objects
from windward.api.admin.v1 import admin_pb2, admin_pb2_grpc
from windward.api.config.v1 import config_pb2, config_pb2_grpc
from windward.identity.names import ADMIN_ACCOUNT, ROOT_NAMESPACE, TRUST_DOMAIN
from windward.local.ready import http_get
from windward.rpc.channel import ChannelSource
from windward.rpc.credentials import TlsMaterial, TlsSource
from windward.xds.resource import CLUSTER

pytestmark = pytest.mark.timeout(120)
WAIT_S = 60
STREAMS = 24


def node(number: int) -> base_pb2.Node:
    return base_pb2.Node(id=f"sidecar~10.9.0.{number}~web-{number}.shop~shop.svc.cluster.local")


class Streams:
    """Clients on connections of their own, which come back when their worker dies."""

    def __init__(self, bench: Bench, group: asyncio.TaskGroup) -> None:
        self.answered = 0
        self._address = bench.at("plaintext")
        self._tasks = [group.create_task(self._follow(number)) for number in range(STREAMS)]

    def end(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _follow(self, number: int) -> None:
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
        ]
        async with grpc.aio.insecure_channel(self._address, options) as channel:
            while True:
                with suppress(grpc.aio.AioRpcError):
                    await self._stream(channel, number)
                await asyncio.sleep(0.1)

    async def _stream(self, channel: grpc.aio.Channel, number: int) -> None:
        call: Any = channel.stream_stream(DELTA)()
        first = discovery_pb2.DeltaDiscoveryRequest(node=node(number), type_url=CLUSTER)
        await call.write(first.SerializeToString())
        while (raw := await call.read()) is not grpc.aio.EOF:
            self.answered += 1
            nonce = discovery_pb2.DeltaDiscoveryResponse.FromString(raw).nonce
            ack = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER, response_nonce=nonce)
            await call.write(ack.SerializeToString())


class Asking:
    """An administrator, who reaches whichever worker the kernel says."""

    def __init__(self, bench: Bench, address: str = "") -> None:
        both = certificate(bench.root, TRUST_DOMAIN, ROOT_NAMESPACE, ADMIN_ACCOUNT)
        chain, key, roots = dict(split_identity(both, bench.root.pem)).values()
        source = TlsSource(TlsMaterial(chain_pem=chain, key_pem=key, roots_pem=roots))
        address = address or bench.at("mtls")
        self._channels = ChannelSource([address], server_name=DNS_NAME, source=source)

    async def close(self) -> None:
        await self._channels.close()

    async def proxies(self) -> list[config_pb2.ProxyStatus]:
        stub: Any = config_pb2_grpc.ConfigServiceStub(self._channels.channel())
        answer = await stub.ListProxies(config_pb2.ListProxiesRequest(), timeout=10)
        return list(answer.proxies)

    async def config(self, name: str) -> int:
        stub: Any = config_pb2_grpc.ConfigServiceStub(self._channels.channel())
        request = config_pb2.GetProxyConfigRequest(proxy=name)
        return len((await stub.GetProxyConfig(request, timeout=10)).resources)

    async def read(self, view: str, **query: str) -> list[dict[str, Any]]:
        stub: Any = admin_pb2_grpc.AdminServiceStub(self._channels.channel())
        request = admin_pb2.ReadRequest(view=view, query=query)
        parts = [part async for part in stub.Read(request, timeout=10)]
        return [msgspec.json.decode(row) for part in parts for row in part.rows]

    async def until(self, holds: Callable[[list[config_pb2.ProxyStatus]], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while True:
                with suppress(grpc.aio.AioRpcError):
                    if holds(await self.proxies()):
                        return
                await asyncio.sleep(0.1)


def workers(bench: Bench) -> dict[int, int]:
    """Number -> pid."""
    found = {}
    top = bench.pilot_pid
    for pid in Path(f"/proc/{top}/task/{top}/children").read_text().split():
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            for word in words:
                if word.startswith("--worker="):
                    found[int(word.rpartition(":")[2])] = int(pid)
    return found


@asynccontextmanager
async def running() -> AsyncIterator[tuple[Bench, Asking]]:
    async with AsyncExitStack() as stack:
        bench = await stack.enter_async_context(Bench(flags=("--workers", "2")))
        await load_objects(bench.store, objects(3))
        await bench.start_pilot()
        asking = Asking(bench)
        stack.push_async_callback(asking.close)
        async with asyncio.timeout(WAIT_S):
            while len(await asking.read("status")) < 2:
                await asyncio.sleep(0.05)
        yield bench, asking


def everybody(proxies: list[config_pb2.ProxyStatus]) -> bool:
    synced = all(kind.state == "SYNCED" for item in proxies for kind in item.types.values())
    return len({item.id for item in proxies}) == len(proxies) == STREAMS and synced


async def test_workers_share_streams_answer_for_one_another_and_come_back():
    async with running() as (bench, asking), asyncio.TaskGroup() as group:
        streams = Streams(bench, group)
        await asking.until(everybody)
        at = Counter(item.pilot.rpartition("#")[2] for item in await asking.proxies())
        assert at.keys() == {"0", "1"}, "the kernel spreads 24 connections over both"
        assert len(await asking.read("sync")) == STREAMS
        assert len(await asking.read("status")) == 2
        assert len(await asking.read("services")) == 3
        for number in range(0, STREAMS, 4):
            assert await asking.config(f"web-{number}") > 3
            assert len(await asking.read("config", proxy=f"web-{number}")) > 3
        _, text = await http_get("127.0.0.1", bench.ports["metrics"], "/metrics", timeout_s=10)
        for number in (0, 1):
            assert f'pilot_services{{worker="{number}"}} 3.0' in str(text)
        for number in (1, 0):
            before = workers(bench)
            os.kill(before[number], signal.SIGKILL)
            async with asyncio.timeout(WAIT_S):
                while workers(bench).get(number) in {None, before[number]}:
                    await asyncio.sleep(0.05)
            await asking.until(everybody)
            assert workers(bench)[1 - number] == before[1 - number]
        streams.end()


async def test_pilots_answer_for_one_another_and_for_their_workers():
    async with (
        running() as (bench, asking),
        AsyncExitStack() as stack,
        asyncio.TaskGroup() as group,
    ):
        streams = Streams(bench, group)
        _, address = await bench.another_pilot(stack)
        other = Asking(bench, address)
        stack.push_async_callback(other.close)
        for who in (asking, other):
            await who.until(everybody)
            async with asyncio.timeout(WAIT_S):
                while len(found := await who.read("status")) < 4:
                    await asyncio.sleep(0.05)
            pilots = [row["pilot"] for row in found]
            assert sorted(pilots) == sorted(
                f"{of}#{number}" for of in (bench.at("mtls"), address) for number in (0, 1)
            )
            assert sum(row["proxies"] for row in found) == STREAMS
        assert await other.config("web-3") > 3
        streams.end()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_workers_end_with_the_process_that_started_them(how):
    async with running() as (bench, _):
        pids = list(workers(bench).values())
        assert len(pids) == 2
        os.kill(bench.pilot_pid, how)
        async with asyncio.timeout(WAIT_S):
            while any(Path(f"/proc/{pid}").exists() for pid in pids):
                await asyncio.sleep(0.05)
