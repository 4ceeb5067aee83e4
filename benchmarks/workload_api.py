"""The SPIFFE Workload API of a node agent, against a real Citadel: fetching, and following renewals of many workloads.

fetch      one client on an open connection, one call after the other: FetchX509SVID until its first answer; FetchJWTSVID of an
           audience that was asked for before
connect    the same with a connection a call, which the agent attests
follow     WORKLOADS identities, a user and a stream each; certificates of TTL_S are renewed at half of that. How long after
           the renewal its stream has it, and CPU of agent and Citadel a renewal: key, CSR, signature, push
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, time
from typing import Any

import grpc

from benchmarks.agent import cpu_of, pss_mb
from benchmarks.mesh import cpu_s
from benchmarks.rows import Row
from windward.api.spiffe.workload import workload_pb2
from windward.local.addresses import Mode
from windward.local.child import Child, ChildSpec
from windward.local.mesh import Mesh
from windward.local.parts import Options, identity
from windward.local.ready import wait_until

WORKLOADS, A_PROCESS = 100, 10
FIRST_UID = 52_000
TTL_S = 40
RENEWALS = 2
"""Of each workload, that are waited for."""
FETCHES, CONNECTIONS = 2000, 300
LATEST_S = 2.0
"""A stream that was not told so soon was not told."""
SKEW_S = 0.05
"""The agent writes its line before or after the stream has been told, in the same turn."""
HEADER = (("workload.spiffe.io", "true"),)
START_S = 120.0


def measure(workloads: int = WORKLOADS, fetches: int = FETCHES) -> dict[str, Any]:
    before = os.getloadavg()[0]
    figures = asyncio.run(_measure(workloads, fetches))
    return figures | {"load_before": round(before, 2), "load_after": round(os.getloadavg()[0], 2)}


async def _measure(workloads: int, fetches: int) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ww-")))
        folder.chmod(0o711)
        (folder / "topology.yaml").write_text("workloads: []\n")
        mesh = Mesh(
            folder / "run",
            folder / "topology.yaml",
            mode=Mode.LOOPBACK,
            options=Options(mixer=False),
            gateway_port=0,
        )
        stack.push_async_callback(mesh.down)
        await mesh.up()
        agent, socket = await _node(stack, folder, mesh, workloads)
        figures = await fetching(agent, socket, fetches)
        figures |= await following(agent, socket, mesh, workloads)
        return figures | {"pss_mb": round(pss_mb(agent.pid or 0), 1)}


async def _node(
    stack: AsyncExitStack, folder: Path, mesh: Mesh, workloads: int
) -> tuple[Child, Path]:
    """An agent with that many identities, and one for the user that measures."""
    users = {f"w{number}": FIRST_UID + number for number in range(workloads)}
    users["measuring"] = os.geteuid()
    state, entries = folder / "node", []
    state.mkdir(mode=0o711)
    for account, uid in users.items():
        token = state / f"{account}.token"
        token.touch(mode=0o600)
        token.write_text(await mesh.administrator.create_token(identity(account, "shop")))
        of_account = {"namespace": "shop", "serviceAccount": account, "tokenFile": str(token)}
        entries.append({**of_account, "uid": uid})
    (state / "entries.json").write_text(json.dumps({"entries": entries}))
    specs, ports = mesh.specs, mesh.specs.ports
    flags = {
        "--entries-file": str(state / "entries.json"),
        "--citadel-address": specs.control(ports.citadel_tls),
        "--citadel-mtls-address": specs.control(ports.citadel_mtls),
        "--trust-bundle-file": str(specs.trust_bundle_file),
        "--state-dir": str(state / "state"),
        "--workload-api-socket": str(state / "api.sock"),
        "--status-address": "127.0.0.1:0",
        "--certificate-ttl": f"{TTL_S}s",
    }
    words = [word for flag in flags.items() for word in flag]
    command = (sys.executable, "-m", "services.agent.workload_api.node", *words)
    agent = Child(ChildSpec("node", command, folder / "node.log"))
    await agent.start()
    stack.push_async_callback(agent.stop)

    async def served() -> bool:
        return len(list((state / "state" / "workload-api").glob("*.sock"))) == len(users) + 1

    await wait_until(served, agent, lambda: "not all identities are served", START_S)
    return agent, state / "api.sock"


# ---- fetching ---------------------------------------------------------------------------------------------------------


async def fetching(agent: Child, socket: Path, fetches: int) -> dict[str, Any]:
    target = f"unix://{socket}"
    async with grpc.aio.insecure_channel(target) as channel:

        async def svid() -> None:
            await _svid(channel)

        async def token() -> None:
            await channel.unary_unary(
                "/SpiffeWorkloadAPI/FetchJWTSVID",
                workload_pb2.JWTSVIDRequest.SerializeToString,
                workload_pb2.JWTSVIDResponse.FromString,
            )(workload_pb2.JWTSVIDRequest(audience=["bench"]), metadata=HEADER, timeout=20)

        await svid()
        await token()
        result = await _timed("fetch", svid, fetches, agent)
        result |= await _timed("jwt", token, fetches, agent)

    async def connected() -> None:
        async with grpc.aio.insecure_channel(target, _OWN_CONNECTION) as own:
            await _svid(own)

    return result | await _timed("connect", connected, CONNECTIONS, agent)


_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


async def _svid(channel: grpc.aio.Channel) -> None:
    call = channel.unary_stream(
        "/SpiffeWorkloadAPI/FetchX509SVID",
        workload_pb2.X509SVIDRequest.SerializeToString,
        workload_pb2.X509SVIDResponse.FromString,
    )(workload_pb2.X509SVIDRequest(), metadata=HEADER, timeout=20)
    answer: Any = await call.read()
    call.cancel()
    assert answer.svids


async def _timed(
    name: str, call: Callable[[], Awaitable[None]], times: int, agent: Child
) -> dict[str, float]:
    """Milliseconds as a waiting client sees them; milliseconds of the agent's CPU a call."""
    took, before = [], cpu_of(agent.pid or 0)
    for _ in range(times):
        began = perf_counter()
        await call()
        took.append((perf_counter() - began) * 1000)
    used = cpu_of(agent.pid or 0) - before
    return {
        f"{name}_p50_ms": round(median(took), 3),
        f"{name}_p99_ms": round(quantiles(took, n=100)[98], 3),
        f"{name}_cpu_ms": round(used / times * 1000, 3),
    }


# ---- following --------------------------------------------------------------------------------------------------------


async def following(agent: Child, socket: Path, mesh: Mesh, workloads: int) -> dict[str, Any]:
    told: dict[int, list[dict[str, Any]]] = {FIRST_UID + number: [] for number in range(workloads)}
    enough = asyncio.Event()
    clients = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.workload_streams",
            str(socket), str(FIRST_UID + at), str(min(A_PROCESS, workloads - at)),
            stdout=asyncio.subprocess.PIPE,
        )
        for at in range(0, workloads, A_PROCESS)
    ]  # fmt: skip

    async def read(client: asyncio.subprocess.Process) -> None:
        assert client.stdout is not None
        async for line in client.stdout:
            said = json.loads(line)
            told[said["uid"]].append(said)
            if min(map(len, told.values())) > RENEWALS:
                enough.set()

    try:
        async with asyncio.TaskGroup() as group, asyncio.timeout(START_S + TTL_S * RENEWALS):
            reading = [group.create_task(read(client)) for client in clients]
            while not all(told.values()):
                await asyncio.sleep(0.05)
            before = (cpu_of(agent.pid or 0), cpu_s(mesh, "citadel"), _renewals(agent))
            await enough.wait()
            await asyncio.sleep(LATEST_S)
            after = (cpu_of(agent.pid or 0), cpu_s(mesh, "citadel"), _renewals(agent))
            for task in reading:
                task.cancel()
    finally:
        for client in clients:
            client.terminate()
            await client.wait()
    renewed = len(after[2]) - len(before[2])
    return {
        "workloads": workloads,
        "renewals": renewed,
        "renewal_agent_cpu_ms": round((after[0] - before[0]) / renewed * 1000, 2),
        "renewal_citadel_cpu_ms": round((after[1] - before[1]) / renewed * 1000, 2),
        **_delivered(told, _renewals(agent), time()),
    }


def _renewals(agent: Child) -> list[tuple[str, float]]:
    """(identity, when), as the agent's log has them."""
    found = []
    for line in agent.spec.log.read_text().splitlines():
        if '"certificate.renewed"' in line:
            said = json.loads(line)
            at = datetime.fromisoformat(said["timestamp"]).timestamp()
            found.append((said["identity"], at))
    return found


def _delivered(
    told: dict[int, list[dict[str, Any]]], renewals: list[tuple[str, float]], until: float
) -> dict[str, Any]:
    """What streams were told up to a time, against what was renewed; certificates that were somebody else's."""
    late, missing, others = [], 0, 0
    for uid, said in told.items():
        own = identity(f"w{uid - FIRST_UID}", "shop")
        others += sum(item.get("spiffe_id") != own for item in said)
        times = [item["time"] for item in said]
        for name, at in renewals:
            if name != own or not times[0] < at < until - LATEST_S:
                continue
            soon = [time for time in times if -SKEW_S <= time - at <= LATEST_S]
            missing += not soon
            late += [max(0.0, soon[0] - at)] if soon else []
    return {
        "told_p50_ms": round(median(late) * 1000, 2),
        "told_p99_ms": round(quantiles(late, n=100)[98] * 1000, 2),
        "missing": missing,
        "others": others,
    }


def rows(figures: dict[str, Any]) -> list[Row]:
    cpu = f"CPU of the agent {figures['fetch_cpu_ms']} ms; with a connection a call {figures['connect_p50_ms']} ms"
    renewing = f"CPU a renewal: agent {figures['renewal_agent_cpu_ms']}, Citadel {figures['renewal_citadel_cpu_ms']} ms"
    return [
        Row("Workload API, FetchX509SVID, p50, ms", figures["fetch_p50_ms"], 2, cpu),
        Row("the same, p99, ms", figures["fetch_p99_ms"], 20),
        Row("Workload API, FetchJWTSVID of a known audience, p99, ms", figures["jwt_p99_ms"], 20),
        Row(
            "100 workloads: renewed -> its stream has it, p99, ms",
            figures["told_p99_ms"],
            250,
            renewing,
        ),
        Row("renewals of theirs that a stream was not told", figures["missing"], 0),
        Row("certificates of anybody else's that came", figures["others"], 0),
    ]
