"""Several Pilots on one store: whoever moves between them never goes back, and all say the same, to the byte."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_pb2
from envoy.service.discovery.v3 import discovery_pb2

from services.pilot.due import Timing
from services.pilot.groups import Groups
from services.pilot.index import Index
from services.pilot.xds.connected import ConnectedProxies
from services.pilot.xds.limits import Limits
from services.pilot.xds.server import POSITION_KEY, DiscoveryServer
from tests.fakes.gate import Gate
from tests.unit.pilot.mesh import OPTIONS, direct, make, router, service_entry, sidecar, workload
from tests.unit.pilot.watched import watch
from windward import registration
from windward.config.object import ConfigObject
from windward.config.stored import Author, plan_changes, store_key
from windward.local.etcd import EtcdCluster, EtcdProcess
from windward.rpc.http2.server import Http2Server
from windward.store.errors import StoreError
from windward.store.keys import endpoint_key, endpoint_lease_key
from windward.store.open import open_store
from windward.store.protocol import Remove, Store, Transaction, Write
from windward.xds.resource import ROUTE, ResourceSet

pytestmark = pytest.mark.timeout(120)
METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
NODE = "sidecar~127.7.0.9~web.shop~shop.svc.cluster.local"
PROXIES = (sidecar(), sidecar("127.7.0.8", namespace="test"), direct("127.7.0.7"), router())
WAIT_S = 30


class Pilot:
    """Everything of a Pilot that has to do with the store and with streams, in this process."""

    def __init__(self, store: Store, behind_s: float) -> None:
        self.groups = Groups(OPTIONS)
        self.index = Index(store, self.groups, 3600.0, Timing(0.001, 0.001, 0.01))
        self.discovery = DiscoveryServer(
            self.groups, ConnectedProxies(), Limits(behind_s=behind_s, longest_age_s=0)
        )
        self.discovery.reach = self.index.reach
        self.address = ""


@asynccontextmanager
async def pilot(url: str, behind_s: float = 0.5) -> AsyncIterator[Pilot]:
    store = open_store(url)
    made = Pilot(store, behind_s)
    running = asyncio.create_task(made.index.run())
    server = Http2Server()
    server.add_behaviours(made.discovery.behaviours())
    port = server.listen_plaintext("127.0.0.1:0", setting="--plaintext-address")
    made.address = f"127.0.0.1:{port}"
    await server.start()
    try:
        await asyncio.wait_for(made.index.ready.wait(), WAIT_S)
        yield made
    finally:
        await server.stop(0)
        running.cancel()
        await asyncio.wait({running})
        await store.close()


def counter(number: int) -> ConfigObject[Any]:
    """A VirtualService that carries a number to those who follow routes."""
    http = [{"route": [{"destination": {"host": "reviews"}}], "timeout": f"{number}s"}]
    return make("VirtualService", "reviews", {"hosts": ["reviews"], "http": http})


async def write(store: Store, *objects: ConfigObject[Any], removed: Any = ()) -> int:
    """Again until it is stored."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                keys = [*(item.key for item in objects), *removed]
                present = {key: await store.get(store_key(key)) for key in keys}
                author = Author("test", datetime.now(UTC), "")
                plan = plan_changes(present, objects, removed, author)
                return await store.commit(plan.transaction) if plan.transaction else 0
            except StoreError:
                await asyncio.sleep(0.05)


class Mover:
    """A client of one stream at a time, which says at the next Pilot what the one before told it."""

    def __init__(self, *, says: bool = True) -> None:
        self.position = ""
        self.seen: list[int] = []
        self._says = says

    async def visit(self, pilot: Pilot, until: int = 0) -> grpc.StatusCode:
        """The first answer of a Pilot, and what follows until a number has come; how it went."""
        metadata = ((POSITION_KEY, self.position),) if self._says and self.position else ()
        async with grpc.aio.insecure_channel(pilot.address) as channel:
            call: Any = channel.stream_stream(METHOD)(metadata=metadata)
            node = base_pb2.Node(id=NODE)
            request = discovery_pb2.DeltaDiscoveryRequest(
                node=node, type_url=ROUTE, resource_names_subscribe=["9080"]
            )
            await call.write(request.SerializeToString())
            try:
                while True:
                    raw = await asyncio.wait_for(call.read(), WAIT_S)
                    response = discovery_pb2.DeltaDiscoveryResponse.FromString(raw)
                    self._take(response)
                    if self.seen[-1] >= until:
                        return grpc.StatusCode.OK
                    ack = discovery_pb2.DeltaDiscoveryRequest(
                        type_url=ROUTE, response_nonce=response.nonce
                    )
                    await call.write(ack.SerializeToString())
            except grpc.aio.AioRpcError as error:
                return error.code()
            finally:
                call.cancel()

    def _take(self, response: discovery_pb2.DeltaDiscoveryResponse) -> None:
        self.position = response.system_version_info
        routes = route_pb2.RouteConfiguration.FromString(response.resources[0].resource.value)
        (found,) = [
            entry.route.timeout.seconds
            for host in routes.virtual_hosts
            if host.name.startswith("reviews.")
            for entry in host.routes
        ]
        self.seen.append(found)


@asynccontextmanager
async def two(etcd: EtcdProcess) -> AsyncIterator[tuple[Store, Pilot, Pilot, Gate]]:
    """A Pilot, and another one whose way to the store may be shut."""
    store = open_store(etcd.url)
    await write(store, service_entry(), counter(1))
    port = int(etcd.endpoint.rpartition(":")[2])
    try:
        async with (
            Gate().before(port) as gate,
            pilot(etcd.url) as ahead,
            pilot(f"etcd://127.0.0.1:{gate.port}") as late,
        ):
            yield store, ahead, late, gate
    finally:
        await store.close()


async def test_a_pilot_that_lags_sends_on_who_has_seen_more(etcd: EtcdProcess):
    async with two(etcd) as (store, ahead, late, gate):
        mover, forgetful = Mover(), Mover(says=False)
        assert await mover.visit(late) is grpc.StatusCode.OK
        gate.shut()
        await write(store, counter(2))
        assert await mover.visit(ahead, until=2) is grpc.StatusCode.OK
        assert await mover.visit(late) is grpc.StatusCode.UNAVAILABLE
        assert await mover.visit(ahead) is grpc.StatusCode.OK
        assert mover.seen[-1] == 2
        await forgetful.visit(ahead, until=2)
        await forgetful.visit(late)
        assert forgetful.seen == [2, 1], "who does not say what it has seen goes back"
        gate.reopen()
        while await mover.visit(late) is not grpc.StatusCode.OK:
            assert mover.seen[-1] == 2
        assert mover.seen == sorted(mover.seen)


async def test_nobody_who_moves_goes_back_whatever_stalls(etcd: EtcdProcess):
    chance = random.Random(7)
    async with two(etcd) as (store, ahead, late, gate):
        mover, turns = Mover(), 25
        refused = 0
        for number in range(2, turns):
            await write(store, counter(number))
            if chance.random() < 0.3:
                gate.shut()
            elif chance.random() < 0.6:
                gate.reopen()
            if chance.random() < 0.5:
                code = await mover.visit(ahead, until=number)
            else:
                code = await mover.visit(late)
            refused += code is grpc.StatusCode.UNAVAILABLE
        gate.reopen()
        await mover.visit(ahead, until=turns - 1)
        assert mover.seen == sorted(mover.seen)
        assert refused > 0


async def test_pilots_that_have_seen_the_same_take_each_others_clients_with_the_store_away(
    etcd: EtcdProcess,
):
    """One of them started later, and knows the store by a later revision."""
    async with two(etcd) as (store, _, late, _), pilot(etcd.url) as new:
        await store.commit(Transaction((Write("/elsewhere", b""),)))
        async with pilot(etcd.url) as newest:
            await newest.index.reach.align()
            mark = newest.index.reach.published
            for other in (newest, new, late):
                await other.index.reach.until(mark, WAIT_S)
            mover = Mover()
            assert await mover.visit(newest) is grpc.StatusCode.OK
            etcd.pause()
            try:
                assert await mover.visit(late) is grpc.StatusCode.OK
                assert await mover.visit(new) is grpc.StatusCode.OK
            finally:
                etcd.resume()


async def contents(pilot: Pilot) -> list[dict[tuple[str, str], tuple[str, bytes, Any]]]:
    """What each proxy should have: bytes, version and origins."""
    found = []
    for proxy in PROXIES:
        view = await watch(pilot.groups, proxy)
        made: ResourceSet = view.current
        found.append(
            {
                (url, name): (item.version, item.body, item.origins)
                for url, named in made.by_type.items()
                for name, item in named.items()
            }
        )
        view.detach()
    return found


async def abreast(*pilots: Pilot) -> None:
    """All have everything that is in the store now."""
    await pilots[0].index.reach.mark()
    revision = await pilots[0].index.reach.mark()
    for one in pilots:
        position = type(one.index.reach.published)(revision, revision)
        await one.index.reach.until(position, WAIT_S)


async def shake(store: Store, chance: random.Random, present: dict[str, Any]) -> None:
    """One random change of objects or of workloads."""
    name = chance.choice(["reviews", "ratings", "details"])
    turn = chance.randrange(6)
    if turn == 0 and name in present:
        await write(store, removed=[present.pop(name).key])
    elif turn <= 2:
        protocol = chance.choice(["HTTP", "TCP", "GRPC"])
        port = {"number": 9080, "name": "p", "protocol": protocol}
        present[name] = service_entry(name, ports=[port], exportTo=chance.choice([[], ["."]]))
        await write(store, present[name])
    elif turn == 3:
        rule = {"host": name, "subsets": [{"name": "v1", "labels": {"version": "v1"}}]}
        await write(store, make("DestinationRule", name, rule))
    elif turn == 4:
        await write(store, counter(chance.randrange(1, 9)))
    else:
        item = workload(f"{name}-v{chance.randrange(3)}", f"127.7.1.{chance.randrange(1, 9)}")
        place = (item.namespace, item.name)
        record, lease = endpoint_key(*place), endpoint_lease_key(*place)
        if chance.random() < 0.3:
            await store.commit(Transaction((Remove(record), Remove(lease))))
        else:
            held = (await store.grant(3600)).id
            both = (Write(record, registration.encode(item)), Write(lease, b"", held))
            await store.commit(Transaction(both))


async def test_every_replica_has_the_same_bytes_whatever_it_went_through(etcd: EtcdProcess):
    """Those that were there all the time, one that stalled, and one that starts in the end."""
    chance = random.Random(11)
    present: dict[str, Any] = {}
    async with two(etcd) as (store, one, other, gate):
        views = [await watch(one.groups, proxy) for proxy in PROXIES]
        for number in range(60):
            if number % 20 == 10:
                gate.shut()
            if number % 20 == 15:
                gate.reopen()
            await shake(store, chance, present)
        async with pilot(etcd.url) as fresh:
            await abreast(one, other, fresh)
            expected = await contents(fresh)
            assert await contents(one) == await contents(other) == expected
            told = {p.groups.snapshot.position for p in (one, other, fresh)}
            assert told == {str(fresh.index.reach.published)}
        assert sum(map(len, expected)) > 30
        for view in views:
            view.detach()


async def test_an_earlier_state_again_has_the_bytes_that_it_had(etcd: EtcdProcess):
    async with two(etcd) as (store, one, other, _):
        earlier = [service_entry("ratings", ports=[{"number": 81, "name": "p", "protocol": "TCP"}])]
        await write(store, *earlier, counter(3))
        await abreast(one, other)
        before = await contents(one)
        await write(store, service_entry("ratings"), counter(7))
        await abreast(one, other)
        assert await contents(one) != before
        await write(store, *earlier, counter(3))
        await abreast(one, other)
        assert await contents(one) == await contents(other) == before


@pytest.fixture
async def cluster() -> AsyncIterator[EtcdCluster]:
    folder = Path(tempfile.mkdtemp(prefix="ww-etcds-"))
    made = EtcdCluster(folder)
    await made.start()
    yield made
    await made.stop()
    shutil.rmtree(folder, ignore_errors=True)


async def test_pilots_go_on_while_one_of_three_etcds_hangs(cluster: EtcdCluster):
    """Each of them in turn, so that it is what a Pilot talks to, and the leader, sooner or later."""
    store = open_store(cluster.url)
    await write(store, service_entry(), counter(1))
    async with pilot(cluster.url, WAIT_S) as one, pilot(cluster.url, WAIT_S) as other:
        mover, number = Mover(), 1
        for member in cluster.members:
            member.pause()
            for _ in range(3):
                number += 1
                await write(store, counter(number))
                for at in (one, other):
                    assert await mover.visit(at, until=number) is grpc.StatusCode.OK
            member.resume()
        await abreast(one, other)
        assert await contents(one) == await contents(other)
        assert mover.seen == sorted(mover.seen)
        assert mover.seen[-1] == number
    await store.close()
