"""Real etcd and real Pilots, agents' own registrations, and an ADS client that counts the endpoints it is told.

N Registration (services/agent) over mTLS -> Pilots -> etcd;  Pilots -> Watcher: how few healthy endpoints, ever
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from time import monotonic
from typing import Any, Self

import grpc
from envoy.config.core.v3 import health_check_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.service.discovery.v3 import discovery_pb2

from benchmarks.fleet.identities import Member, certificate, node
from benchmarks.xds.bench import Bench, split_identity
from benchmarks.xds.load import load_objects
from services.agent.registration import Registration
from services.agent.settings import Settings
from windward.identity.names import CONTROL_PLANE_DNS, PILOT_ACCOUNT, TRUST_DOMAIN
from windward.local.child import Child
from windward.rpc.channel import ChannelSource
from windward.rpc.credentials import TlsMaterial, TlsSource
from windward.store.keys import ENDPOINT_LEASES
from windward.xds import resource as xds

NAMESPACE, ACCOUNT, GROUP = "shop", "reviews", "reviews"
AGENTS_A_SERVICE = 50
AGENTS_A_CONNECTION = 25
WAIT_S = 120.0
HEALTHY = frozenset({health_check_pb2.UNKNOWN, health_check_pb2.HEALTHY})
DELTA = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
DNS_NAME = CONTROL_PLANE_DNS[PILOT_ACCOUNT]


def host(service: int) -> str:
    return f"reviews-{service}.shop.svc.cluster.local"


def cluster(service: int) -> str:
    return f"outbound|9080||{host(service)}"


def objects(services: int) -> list[dict[str, Any]]:
    """A group for all agents, and the services that select some of them each."""
    group = {"metadata": {"labels": {"team": GROUP}}, "template": {"serviceAccount": ACCOUNT}}
    made = [_object("WorkloadGroup", GROUP, group)]
    for service in range(services):
        spec = {
            "hosts": [host(service)],
            "ports": [{"number": 9080, "name": "http", "protocol": "HTTP"}],
            "location": "MESH_INTERNAL",
            "resolution": "STATIC",
            "workloadSelector": {"labels": {"app": f"reviews-{service}"}},
        }
        made.append(_object("ServiceEntry", f"reviews-{service}", spec))
    return made


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }


class Channels(ChannelSource):
    """Agents that share a connection to each Pilot, each with its own idea of which one answers."""

    def __init__(
        self, addresses: Sequence[str], source: TlsSource, shared: dict[str, grpc.aio.Channel]
    ) -> None:
        super().__init__(addresses, server_name=DNS_NAME, source=source)
        self._shared = shared

    def channel(self) -> grpc.aio.Channel:
        if self.address not in self._shared:
            self._shared[self.address] = self._make()
        return self._shared[self.address]


class LeaseMesh:
    """Use as an async context manager: everything is up, every agent registered, and the watcher has all of them."""

    def __init__(self, *, agents: int, ttl_s: float, pilots: int = 1) -> None:
        self._count = agents
        self._ttl_s = ttl_s
        self._pilots = pilots
        self._exits = AsyncExitStack()
        self.bench = Bench(
            flags=("--endpoint-ttl", f"{ttl_s:g}s", "--outbound-traffic-policy", "ALLOW_ANY")
        )
        self.pilots: list[Child] = []
        self.addresses: list[str] = []
        self.agents: list[Registration] = []
        self._running: list[asyncio.Task[None]] = []
        self._connections: list[dict[str, grpc.aio.Channel]] = []
        self.watcher: Watcher

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.bench)
            services = -(-self._count // AGENTS_A_SERVICE)
            await load_objects(self.bench.store, objects(services))
            for _ in range(self._pilots):
                await self._start_pilot(stack)
            both = certificate(self.bench.root, TRUST_DOMAIN, NAMESPACE, ACCOUNT)
            parts = dict(split_identity(both, self.bench.root.pem))
            chain, key, roots = parts.values()
            self._source = TlsSource(TlsMaterial(chain_pem=chain, key_pem=key, roots_pem=roots))
            stack.push_async_callback(self._close_channels)
            group = await stack.enter_async_context(_Tasks())
            self._start_agents(group)
            self.watcher = Watcher(self.addresses, self._source, services)
            group.start(self.watcher.run())
            async with asyncio.timeout(WAIT_S):
                await asyncio.gather(*(agent.registered.wait() for agent in self.agents))
            await self.watcher.until(lambda: self.watcher.healthy == self._count)
            self.watcher.reset()
            self._exits = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    async def _start_pilot(self, stack: AsyncExitStack) -> None:
        child, address = await self.bench.another_pilot(stack, {"--log-level": "info"})
        self.pilots.append(child)
        self.addresses.append(address)

    async def _close_channels(self) -> None:
        for shared in self._connections:
            for channel in shared.values():
                await channel.close()

    def _start_agents(self, group: _Tasks) -> None:
        """Spread over the Pilots, as agents are."""
        for number in range(self._count):
            if number % AGENTS_A_CONNECTION == 0:
                self._connections.append({})
            shared = self._connections[-1]
            first = number % len(self.addresses)
            addresses = self.addresses[first:] + self.addresses[:first]
            agent = Registration(
                self._settings(number, addresses),
                Channels(addresses, self._source, shared),
                _serves,
            )
            self.agents.append(agent)
            self._running.append(group.start(agent.run()))

    def _settings(self, number: int, addresses: Sequence[str]) -> Settings:
        folder = Path(self.bench.folder)
        return Settings(
            citadel_address=self.bench.at("citadel_tls"),
            citadel_mtls_address=self.bench.at("citadel_mtls"),
            trust_bundle_file=str(self.bench.roots_file),
            token_file=str(folder / "no-token"),
            state_dir=str(folder),
            pilot_address=tuple(addresses),
            namespace=NAMESPACE,
            service_account=ACCOUNT,
            workload_name=f"reviews-{number:04d}",
            address=f"10.7.{number >> 8}.{number & 255}",
            workload_group=GROUP,
            labels={"app": f"reviews-{number // AGENTS_A_SERVICE}"},
        )

    async def stop_agent(self, number: int) -> None:
        """As if it were killed: it renews no more, and says nothing."""
        self._running[number].cancel()
        await asyncio.wait({self._running[number]})

    # ---- what can be seen ---------------------------------------------------------------------------------------------

    async def leases(self) -> dict[str, int]:
        """Workload -> the lease that it lives on, as the store says."""
        listing = await self.bench.store.list(ENDPOINT_LEASES)
        return {entry.key.rpartition("/")[2]: entry.lease for entry in listing.entries}

    async def watch_leases(self, seconds: float) -> tuple[int, float]:
        """(fewest leases seen, seconds until the last time that one was missing)."""
        began, fewest, missing_s = monotonic(), self._count, 0.0
        while monotonic() - began < seconds:
            held = len(await self.leases())
            fewest = min(fewest, held)
            if held < self._count:
                missing_s = monotonic() - began
            await asyncio.sleep(0.1)
        return fewest, missing_s

    async def until_leased(self) -> dict[str, int]:
        """Wait until every agent holds a lease in the store."""
        async with asyncio.timeout(WAIT_S):
            while len(held := await self.leases()) < self._count:
                await asyncio.sleep(0.05)
        return held


class Watcher:
    """A sidecar's ADS stream that asks for the services' endpoints, and comes back when it breaks."""

    def __init__(self, addresses: Sequence[str], source: TlsSource, services: int) -> None:
        self._channels = ChannelSource(addresses, server_name=DNS_NAME, source=source)
        self._clusters = [cluster(service) for service in range(services)]
        self._told = asyncio.Event()
        self._healthy: dict[str, int] = {}
        self._listed: dict[str, int] = {}
        self.reset()

    @property
    def healthy(self) -> int:
        return sum(self._healthy.values())

    @property
    def listed(self) -> int:
        """Endpoints, healthy or not."""
        return sum(self._listed.values())

    def reset(self) -> None:
        """Count anew from here on."""
        self.fewest = self.healthy
        self.responses = 0

    async def run(self) -> None:
        try:
            while True:
                with suppress(grpc.aio.AioRpcError):
                    await self._stream()
                self._channels.next_address()
                await asyncio.sleep(0.2)
        finally:
            await self._channels.close()

    async def _stream(self) -> None:
        call = self._channels.channel().stream_stream(
            DELTA,
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
        )()
        member = Member("watcher", NAMESPACE, ACCOUNT, "10.8.0.1", "watcher")
        request = discovery_pb2.DeltaDiscoveryRequest(
            type_url=xds.ENDPOINT, resource_names_subscribe=self._clusters
        )
        request.node.ParseFromString(node(member))
        await call.write(request)
        while True:
            answer: Any = await call.read()
            if answer is grpc.aio.EOF:
                return
            self._take(answer)
            ack = discovery_pb2.DeltaDiscoveryRequest(
                type_url=xds.ENDPOINT, response_nonce=answer.nonce
            )
            await call.write(ack)

    def _take(self, answer: Any) -> None:
        self.responses += 1
        for name in answer.removed_resources:
            self._healthy[name] = self._listed[name] = 0
        for item in answer.resources:
            made = endpoint_pb2.ClusterLoadAssignment.FromString(item.resource.value)
            points = [point for place in made.endpoints for point in place.lb_endpoints]
            self._listed[item.name] = len(points)
            self._healthy[item.name] = sum(point.health_status in HEALTHY for point in points)
        self.fewest = min(self.fewest, self.healthy)
        self._told.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not holds():
                await self.next()

    async def next(self) -> None:
        """Wait for the next response."""
        self._told.clear()
        await self._told.wait()


async def _serves() -> bool:
    return True


class _Tasks:
    """Tasks that end with their block; one that fails is told by ``until`` conditions that do not come true."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.append(task)
        return task

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


def lost(mesh: LeaseMesh, of: int) -> int:
    """The most endpoints that were missing at any time."""
    return of - mesh.watcher.fewest
