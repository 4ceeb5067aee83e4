"""What two sidecars add to requests at a fixed rate: against no proxy at all, and against two bare Envoys with mTLS.

    none       client --------------------------------> server      a veth pair and a bridge between them, as everywhere
    bare       client -> Envoy ------- mTLS ------> Envoy -> server      static configuration, the mesh's own certificates
    alone      as windward, Mixer stopped meanwhile (SIGSTOP): the proxies without Mixer's own work on the same cores
    windward   client -> iptables -> Envoy - mTLS -> Envoy -> server     telemetry on, no rule of Mixer's
    checked    the same, with a rule of Mixer's for the service: each request is asked about

The same client and server (``steady.c``), HTTP/1.1, 16 connections, an open loop; all variants up all the time, measured in
turn, ``rounds`` times. Figures are medians of the rounds: latency from when a request was due; CPU of all proxies and
of Mixer (the client, the server and the kernel's part of both left out).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.agent import children, cpu_of
from benchmarks.bare import bare_config
from benchmarks.chaos.scene import SERVICE
from benchmarks.mesh import pid, until_acked
from benchmarks.rows import Row
from benchmarks.steady.build import steady_binary
from services.agent.envoy.process import find_envoy
from windward.client.certificates import CERTIFICATE_FILE, KEY_FILE, ROOTS_FILE
from windward.local import addresses, network
from windward.local.addresses import Mode, Plan
from windward.local.child import Child, ChildSpec
from windward.local.mesh import Mesh
from windward.local.ready import wait_until

RATE, CONNECTIONS, BYTES = 1000, 16, 1024
WARM_S, ROUND_S, ROUNDS = 2.0, 8.0, 5
VARIANTS = ("none", "bare", "alone", "windward", "checked")
DIFFERENCES = (("windward", "none"), ("windward", "bare"), ("alone", "bare"), ("checked", "none"))
PORT = 9080
STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: bookshop}
spec: {mtls: {mode: STRICT}}
"""
WORKLOAD = (
    "- {{name: {name}, group: {name}, service_account: {name}, port: 9080, "
    "command: [{binary}, serve, 0.0.0.0, '9080', '{bytes}']}}\n"
)
RULE = """
apiVersion: config.istio.io/v1alpha2
kind: handler
metadata: {name: refuse, namespace: bookshop}
spec: {compiledAdapter: denier}
---
apiVersion: config.istio.io/v1alpha2
kind: instance
metadata: {name: refuse, namespace: bookshop}
spec: {compiledTemplate: checknothing}
---
apiVersion: config.istio.io/v1alpha2
kind: rule
metadata: {name: refuse, namespace: bookshop}
spec:
  match: request.path == "/never"
  actions: [{handler: refuse, instances: [refuse]}]
"""


def write_topology(folder: Path, binary: Path) -> Path:
    """The mesh as files: who calls, who is called."""
    (folder / "mesh").mkdir()
    services = (
        SERVICE.format(name=name, address=f"240.240.0.{number}")
        for number, name in enumerate(("caller", "callee"), 10)
    )
    (folder / "mesh" / "latency.yaml").write_text("".join(services) + STRICT)
    lines = (
        WORKLOAD.format(name=name, binary=binary, bytes=BYTES) for name in ("caller", "callee")
    )
    path = folder / "topology.yaml"
    path.write_text("config: mesh\nworkloads:\n" + "".join(lines))
    return path


def measure(rounds: int = ROUNDS) -> dict[str, Any]:
    before = os.getloadavg()[0]
    figures = asyncio.run(_measure(rounds))
    return figures | {"load_before": round(before, 2), "load_after": round(os.getloadavg()[0], 2)}


async def _measure(rounds: int) -> dict[str, Any]:
    binary = steady_binary()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ww-")))
        mesh = Mesh(
            folder / "run", write_topology(folder, binary), mode=Mode.NAMESPACES, gateway_port=0
        )
        stack.push_async_callback(mesh.down)
        await mesh.up()
        plan, bare = await _bare(stack, folder / "bare", mesh, binary)
        made: list[dict[str, Any]] = []
        for number in range(rounds):
            made += [await _one(mesh, plan, bare, name, number, binary) for name in VARIANTS]
    return {
        "rate": RATE,
        "connections": CONNECTIONS,
        "rounds": rounds,
        **summary(made),
        "raw": made,
    }


async def _bare(
    stack: AsyncExitStack, folder: Path, mesh: Mesh, binary: Path
) -> tuple[Plan, tuple[Child, ...]]:
    """Two namespaces without interception, a server in one, a bare Envoy in each."""
    folder.mkdir()
    names = ("caller", "callee")
    identifier = addresses.mesh_id(folder)
    plan = addresses.plan_namespaces(identifier, names, addresses.networks_in_use())
    stack.push_async_callback(network.tear_down, identifier)
    await network.bring_up(plan, ())
    callee = plan.place("callee")
    server = ChildSpec(
        "server",
        (str(binary), "serve", "0.0.0.0", str(PORT), str(BYTES)),
        folder / "server.log",
        namespace=callee.namespace,
    )
    specs = [server]
    for name in names:
        identity = mesh.specs.state(name)
        files = tuple(
            str(next(identity.rglob(file))) for file in (CERTIFICATE_FILE, KEY_FILE, ROOTS_FILE)
        )
        config = bare_config(name, callee.address, files)
        (folder / f"{name}.json").write_text(json.dumps(config))
        command = (
            find_envoy(""), "-c", str(folder / f"{name}.json"),
            "--concurrency", "1", "--disable-hot-restart", "-l", "warning",
        )  # fmt: skip
        log = folder / f"{name}.log"
        specs.append(ChildSpec(name, command, log, namespace=plan.place(name).namespace))
    children_ = tuple(Child(spec) for spec in specs)
    for child in children_:
        await child.start()
        stack.push_async_callback(child.stop)

    async def serves() -> bool:
        return not (await _load(plan.place("caller").namespace, "127.0.0.1", PORT, binary, 0.1))[
            "failed"
        ]

    await wait_until(serves, children_[1], lambda: "bare Envoys do not serve", 20.0)
    return plan, children_[1:]


async def _one(
    mesh: Mesh, plan: Plan, bare: Sequence[Child], name: str, number: int, binary: Path
) -> dict[str, Any]:
    """One variant once: latencies, and CPU-seconds a thousand requests/s and second."""
    if name == "checked":
        await until_acked(mesh, (await mesh.administrator.apply_text(RULE)).revision)
    agents = [pid(mesh, workload) for workload in ("caller", "callee")]
    groups = {
        "none": {},
        "bare": {"envoy": [child.pid or 0 for child in bare]},
    }.get(
        name,
        {
            "envoy": [child for agent in agents for child in children(agent)[:1]],
            "agent": agents,
            "mixer": [pid(mesh, "mixer")],
            "pilot": [pid(mesh, "pilot")],
        },
    )
    before = {key: sum(map(cpu_of, group)) for key, group in groups.items()}
    if name in {"none", "bare"}:
        place = plan.place("caller").namespace
        target = plan.place("callee").address if name == "none" else "127.0.0.1"
    else:
        place, target = mesh.plan.place("caller").namespace, "240.240.0.11"
    with _stopped(pid(mesh, "mixer")) if name == "alone" else nullcontext():
        seen = await _load(place, target, PORT, binary, ROUND_S)
        used = {
            f"{key}_cpu": (sum(map(cpu_of, group)) - before[key]) / (seen["sent"] / RATE)
            for key, group in groups.items()
        }
    if name == "alone":
        await asyncio.sleep(WARM_S)  # Mixer reads what has waited for it
    if name == "checked":
        stored = await mesh.administrator.list()
        rules = [item.ref for item in stored if item.ref.kind in {"rule", "instance", "handler"}]
        await until_acked(mesh, (await mesh.administrator.delete(rules)).revision)
    return {"variant": name, "round": number, "load": round(os.getloadavg()[0], 2), **seen, **used}


@contextmanager
def _stopped(process: int) -> Iterator[None]:
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


async def _load(
    namespace: str | None, host: str, port: int, binary: Path, seconds: float
) -> dict[str, Any]:
    enter = ("ip", "netns", "exec", namespace) if namespace else ()
    process = await asyncio.create_subprocess_exec(
        *enter, str(binary), "load", host, str(port),
        "callee.bookshop.svc.cluster.local:9080", str(RATE), str(CONNECTIONS),
        str(WARM_S if seconds > 1 else 0), str(seconds),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate()
    read: dict[str, Any] = json.loads(said) if process.returncode == 0 else {"failed": 1}
    return read


def summary(made: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians of the rounds, a variant; what windward adds is the median of the differences within a round."""
    result: dict[str, Any] = {"failed": sum(one["failed"] for one in made)}
    by_variant = {name: [one for one in made if one["variant"] == name] for name in VARIANTS}
    for name, rounds in by_variant.items():
        for cut in ("p50", "p90", "p99"):
            result[f"{name}_{cut}_ms"] = round(
                median(one[f"due_{cut}_us"] for one in rounds) / 1e3, 3
            )
        for key in ("envoy_cpu", "agent_cpu", "mixer_cpu", "pilot_cpu"):
            if key in rounds[0]:
                result[f"{name}_{key}"] = round(median(one[key] for one in rounds), 3)
    for name, base in DIFFERENCES:
        pairs = zip(by_variant[name], by_variant[base], strict=True)
        added = median(one["due_p90_us"] - other["due_p90_us"] for one, other in pairs)
        result[f"{name}_over_{base}_p90_ms"] = round(added / 1e3, 3)
    return result


def rows(figures: dict[str, Any]) -> list[Row]:
    cpu = f"CPU of both Envoys for 1,000 requests/s: {figures['windward_envoy_cpu']} (bare {figures['bare_envoy_cpu']})"
    alone = f"while Mixer, on the same cores, is stopped: {figures['alone_over_bare_p90_ms']}"
    over_bare = figures["windward_over_bare_p90_ms"]
    return [
        Row("two sidecars over none, p90, ms", figures["windward_over_none_p90_ms"], 2.6, cpu),
        Row("two sidecars over two bare Envoys, p90, ms", over_bare, 0.3, alone),
        Row("with Mixer's check over none, p90, ms", figures["checked_over_none_p90_ms"], 7.0),
        Row("requests that failed in all of that", figures["failed"], 0),
    ]
