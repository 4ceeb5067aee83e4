"""The truth: real Envoys with real agents among the fleet; one endpoint changes, and their data path must serve it.

    bench: write -> fleet: ACK of every simulated sidecar
                 -> caller -> Envoy's http_proxy port -> (mTLS) -> an upstream that says its address, every 5 ms

The agents run without interception, each on a loopback address of its own; their Envoys hold all N services.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from time import monotonic, monotonic_ns

from benchmarks.fleet.identities import certificate, write_secret
from benchmarks.xds import probe
from benchmarks.xds.bench import READY_S, Bench, split_identity
from benchmarks.xds.load import LEASE_S, load_objects, load_workloads, registered
from benchmarks.xds.scene import Figures, Scene, Wish, bodies_file, measured, percentile
from benchmarks.xds.upstream import Caller, Upstream
from windward.identity.names import TRUST_DOMAIN
from windward.local.addresses import free_port
from windward.local.child import Child, ChildSpec
from windward.local.parts import ADMIN_PORT, HTTP_PROXY_PORT, STATUS_PORT
from windward.local.ready import wait_http
from windward.registration import RegisteredWorkload
from windward.store.protocol import Transaction

ENVOYS = 2
NAMESPACE, NAME, PORT = "ns-000", "probe", 8999
HOST = f"{NAME}.{NAMESPACE}.svc.cluster.local"
SERVED_S = 10.0
PAUSE_S = 0.2


def service_entry() -> dict[str, object]:
    port = {"number": PORT, "name": "http", "protocol": "HTTP", "targetPort": PORT}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "hosts": [HOST],
            "ports": [port],
            "location": "MESH_INTERNAL",
            "resolution": "STATIC",
            "exportTo": ["*"],
            "workloadSelector": {"labels": {"app": NAME}},
        },
    }


def workload(address: str, port: int) -> RegisteredWorkload:
    return RegisteredWorkload(
        namespace=NAMESPACE,
        name=f"{NAME}-0",
        address=address,
        workload_group=NAME,
        service_account=NAME,
        labels={"app": NAME},
        ports={"http": port},
    )


def upstream_address(change: int) -> str:
    return f"127.88.{change >> 7}.{100 + (change & 127)}"


class _Probe:
    """The service that changes, the Envoys that call it."""

    def __init__(
        self, made: Scene, upstream: Upstream, port: int, lease: int, callers: list[Caller]
    ) -> None:
        self._made = made
        self._upstream = upstream
        self._port = port
        self._lease = lease
        self._callers = callers
        self._change = 0
        self.served_ms: list[float] = []

    async def move(self) -> None:
        """One change, until every simulated sidecar has ACKed it and every Envoy serves it."""
        self._change += 1
        address = upstream_address(self._change)
        await self._upstream.listen_at(address, self._port)
        number = await self._made.fleet.expect("eds", f"outbound|{PORT}||{HOST}", address)
        began = monotonic_ns()
        writes = registered(workload(address, self._port), self._lease)
        await self._made.bench.store.commit(Transaction(writes))
        wrote = monotonic_ns()
        self._made.fleet.wrote(number, began, wrote)
        seen = await asyncio.gather(*(caller.until(address, SERVED_S) for caller in self._callers))
        await self._made.fleet.acked(number, self._made.wish.ack_timeout_s)
        self.served_ms += [(at - wrote) / 1e6 for at in seen]

    async def run(self) -> int:
        self.served_ms.clear()
        for caller in self._callers:
            caller.failures = 0
        for _ in range(self._made.wish.changes):
            await self.move()
            await asyncio.sleep(PAUSE_S)
        return self._made.wish.changes

    def figures(self) -> Figures:
        return {
            "served_p50_ms": percentile(self.served_ms, 50),
            "served_p99_ms": percentile(self.served_ms, 99),
            "served_max_ms": round(max(self.served_ms), 2),
            "served_count": len(self.served_ms),
            "failed_requests": sum(caller.failures for caller in self._callers),
        }


async def envoys(wish: Wish) -> Figures:
    """``streams`` proxies in all, two of them real."""
    people = wish.population
    async with AsyncExitStack() as stack:
        bench = await stack.enter_async_context(
            Bench(checkout=wish.checkout, flags=wish.pilot_flags)
        )
        await load_workloads(bench.store, people)
        objects = await load_objects(bench.store, [*people.objects(), service_entry()])
        ready_s = await bench.start_pilot()
        members = people.members()[: max(1, wish.streams - ENVOYS)]
        fleet = await stack.enter_async_context(
            bench.fleet(
                members, plaintext=wish.plaintext, sotw=wish.sotw, bodies=bodies_file(bench)
            )
        )
        made = Scene(wish, bench, fleet)
        began = monotonic()
        fleet.say("connect")
        synced_ns = await fleet.synced(wish.sync_timeout_s)
        upstream = await stack.enter_async_context(
            Upstream(bench.root, TRUST_DOMAIN, NAMESPACE, NAME, bench.folder / "upstream")
        )
        envoys_began = monotonic()
        callers = [await _envoy(stack, bench, number) for number in range(ENVOYS)]
        lease = (await bench.store.grant(LEASE_S)).id
        tried = _Probe(made, upstream, free_port("127.0.0.1"), lease, callers)
        await tried.move()
        live_s = monotonic() - envoys_began
        await made.quiet()
        made.facts = {
            "envoys": ENVOYS,
            "objects": objects,
            "ready_s": round(ready_s, 2),
            "all_synced_s": round(synced_ns / 1e9 - began, 2),
            "envoys_live_s": round(live_s, 2),
            "rss_idle_mb": round(probe.rss_mb(bench.pilot_pid), 1),
        }
        figures = await measured(made, tried.run)
        return figures | tried.figures()


async def _envoy(stack: AsyncExitStack, bench: Bench, number: int) -> Caller:
    """A real agent with its Envoy, ready; a caller through it."""
    address, name = f"127.77.{number}.1", f"envoy-{number}"
    state = bench.folder / name
    identity = state / "identity"
    identity.mkdir(parents=True, mode=0o700)
    pem = certificate(bench.root, TRUST_DOMAIN, NAMESPACE, name)
    for file, content in split_identity(pem, bench.root.pem):
        write_secret(identity / file, content)
    flags = {
        "--citadel-address": bench.at("citadel_tls"),
        "--citadel-mtls-address": bench.at("citadel_mtls"),
        "--pilot-address": bench.at("mtls"),
        "--trust-bundle-file": str(bench.roots_file),
        "--token-file": str(bench.folder / "no-token"),
        "--state-dir": str(state),
        "--namespace": NAMESPACE,
        "--service-account": name,
        "--workload-name": name,
        "--address": address,
        "--app-address": address,
        "--interception": "none",
        "--admin-address": f"{address}:{ADMIN_PORT}",
        "--status-address": f"{address}:{STATUS_PORT}",
        "--log-level": "warning",
    }
    spec: ChildSpec = bench.service("agent", flags, name=name)
    agent = Child(spec)
    await agent.start()
    stack.push_async_callback(agent.stop)
    await wait_http(agent, address, STATUS_PORT, timeout_s=READY_S)
    caller = Caller(address, HTTP_PROXY_PORT, f"{HOST}:{PORT}")
    stack.callback(caller.close)
    return caller
