"""Network namespaces of a local mesh: a bridge in the host, one namespace and one veth pair a workload.

    Plan -> text for ``ip -batch`` (pure) -> the kernel

Each workload's namespace routes everything to the bridge, so that calls to virtual addresses leave the application and
are caught by the interception rules. Nothing of it reaches beyond this machine: no NAT is set up.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import shutil
from pathlib import Path

from services.agent.netfilter.apply import apply
from services.agent.netfilter.errors import NetfilterError
from services.agent.netfilter.host import Host
from services.agent.netfilter.interception import AGENT_PORTS, ALL, Interception, Mode
from windward.local.addresses import Place, Plan
from windward.local.errors import LocalMeshError

NETNS_FOLDER = Path("/run/netns")
LINKS_FOLDER = Path("/sys/class/net")


def unavailable() -> str:
    """Why this machine cannot run namespaces with interception; empty when it can."""
    if os.geteuid() != 0:
        return "not root"
    missing = [tool for tool in ("ip", "iptables-restore", "setpriv") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not found (apt-get install iproute2 iptables)"
    return ""


def host_batch(plan: Plan) -> str:
    """What to do in the host's namespace."""
    assert plan.network is not None
    lines = [
        f"link add {plan.bridge} type bridge",
        f"addr add {plan.control_address}/{plan.network.prefixlen} dev {plan.bridge}",
        f"link set {plan.bridge} up",
    ]
    if plan.network6:
        lines.append(f"addr add {plan.control_address6}/64 dev {plan.bridge} nodad")
    for place in plan.places:
        lines += [
            f"netns add {place.namespace}",
            f"link add {place.link} type veth peer name eth0 netns {place.namespace}",
            f"link set {place.link} master {plan.bridge} up",
        ]
    return "\n".join(lines) + "\n"


def member_batch(plan: Plan, place: Place) -> str:
    """What to do in one workload's namespace."""
    assert plan.network is not None
    lines = [
        "link set lo up",
        f"addr add {place.address}/{plan.network.prefixlen} dev eth0",
        "link set eth0 up",
        f"route add default via {plan.control_address}",
    ]
    if place.address6:
        lines += [
            f"addr add {place.address6}/64 dev eth0 nodad",
            f"route add default via {plan.control_address6}",
        ]
    return "\n".join(lines) + "\n"


async def bring_up(plan: Plan, intercepted: tuple[str, ...], mode: Mode = "REDIRECT") -> None:
    """Make bridge, namespaces and links; load the interception rules into the named workloads' namespaces."""
    await tear_down(plan.mesh_id)
    await run(("ip", "-batch", "-"), host_batch(plan))

    async def member(place: Place) -> None:
        assert place.namespace is not None
        await run(("ip", "-n", place.namespace, "-batch", "-"), member_batch(plan, place))
        if place.name in intercepted:
            control = tuple(filter(None, (plan.control_address, plan.control_address6)))
            await asyncio.to_thread(intercept, place.namespace, control, mode)

    async with asyncio.TaskGroup() as group:
        for place in plan.places:
            group.create_task(member(place))


def intercept(namespace: str, control: tuple[str, ...], mode: Mode = "REDIRECT") -> None:
    """Send all traffic of a namespace through its Envoy, but for what goes to the control plane, and its DNS to its agent.

    ``control``: the control plane's addresses, of each family that the namespace has. Raises LocalMeshError.
    """
    wanted = Interception(
        mode=mode,
        inbound_ports=ALL,
        inbound_ports_exclude=AGENT_PORTS,
        outbound_cidrs=ALL,
        outbound_cidrs_exclude=tuple(str(ipaddress.ip_network(item)) for item in control),
        redirect_dns=True,
        capture_all_dns=True,
        ipv6=len(control) > 1,
    )
    try:
        apply(Host(("ip", "netns", "exec", namespace), NETNS_FOLDER / namespace), wanted)
    except NetfilterError as error:
        raise LocalMeshError(f"interception in {namespace}: {error}") from error


async def tear_down(mesh_id: str) -> int:
    """Remove whatever of a mesh's network exists, an earlier run's leftovers included; how many namespaces there were."""
    found = []
    if NETNS_FOLDER.is_dir():
        found = sorted(NETNS_FOLDER.glob(f"ww-{mesh_id}-*"))
    for path in found:
        await run(("ip", "netns", "del", path.name))
    for link in (LINKS_FOLDER / f"ww{mesh_id}br", *_stray_links(mesh_id)):
        if link.exists():
            await run(("ip", "link", "del", link.name), tolerate=True)
    return len(found)


def _stray_links(mesh_id: str) -> list[Path]:
    """Host ends of veth pairs: they go with their namespace, though not at once."""
    return sorted(LINKS_FOLDER.glob(f"ww{mesh_id}v*"))


async def run(command: tuple[str, ...], stdin: str = "", *, tolerate: bool = False) -> None:
    """Run a system command. Raises LocalMeshError with what it said, unless its failure is tolerable."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate(stdin.encode())
    if process.returncode and not tolerate:
        raise LocalMeshError(
            f"`{' '.join(command)}` failed: {said.decode(errors='replace').strip()}"
        )
