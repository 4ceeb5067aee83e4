"""Where each part of a local mesh listens.

namespaces   every workload has a network namespace with an address on the mesh's bridge; the control plane listens on
             the bridge's own address, so that workloads reach it and nothing beyond this machine does
loopback     every workload has two addresses of 127.0.0.0/8: one that its Envoy listens on, one for the application

Pure but for ``free_port`` and ``networks_in_use``, which ask the machine.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import subprocess
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from pathlib import Path
from random import SystemRandom

from windward.local.errors import LocalMeshError

OWN_CHOICE = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""Source: Linux, Documentation/networking/ip-sysctl.rst."""
_CHOICE = SystemRandom()
MOST_TRIES = 1000
_given: set[int] = set()
"""Until they are half of those that there are to give; then they are given out again."""


class Mode(Enum):
    NAMESPACES = "namespaces"
    LOOPBACK = "loopback"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one workload lives."""

    name: str
    address: str
    """What other workloads call: its Envoy answers there."""
    app_address: str
    """Where the application listens."""
    namespace: str | None = None
    """Network namespace; None in loopback mode."""
    link: str | None = None
    """The host's end of its veth pair."""
    address6: str = ""
    """Its IPv6 address beside the other one; empty: the mesh has none."""


@dataclass(frozen=True, slots=True)
class Plan:
    mode: Mode
    mesh_id: str
    control_address: str
    """Where the control plane listens."""
    places: tuple[Place, ...]
    bridge: str | None = None
    network: ipaddress.IPv4Network | None = None
    network6: ipaddress.IPv6Network | None = None
    """Beside it, if the mesh has both; the bridge has the first address of each."""

    @property
    def control_address6(self) -> str:
        return str(self.network6[1]) if self.network6 else ""

    def place(self, name: str) -> Place:
        return next(place for place in self.places if place.name == name)


def mesh_id(directory: Path) -> str:
    """Six hex digits of the mesh's folder: names of links and namespaces are unique a folder."""
    return blake2b(str(directory.resolve()).encode(), digest_size=3).hexdigest()


def plan_loopback(identifier: str, names: tuple[str, ...]) -> Plan:
    second = 16 + int(identifier, 16) % 220
    places = tuple(
        Place(name, f"127.{second}.0.{index}", f"127.{second}.1.{index}")
        for index, name in enumerate(names, 1)
    )
    return Plan(Mode.LOOPBACK, identifier, "127.0.0.1", places)


def plan_namespaces(
    identifier: str,
    names: tuple[str, ...],
    in_use: tuple[ipaddress.IPv4Network, ...],
    *,
    ipv6: bool = False,
) -> Plan:
    """Choose a free /24 of 10.89.0.0/16, starting where the mesh's id points to; with ``ipv6`` a /64 that is the id's too."""
    if len(names) > 240:
        raise LocalMeshError(f"{len(names)} workloads: at most 240 fit in one local mesh")
    first = int(identifier, 16) % 256
    for step in range(256):
        network = ipaddress.IPv4Network(f"10.89.{(first + step) % 256}.0/24")
        if not any(network.overlaps(other) for other in in_use):
            break
    else:
        raise LocalMeshError("no free network left in 10.89.0.0/16: is another mesh still up?")
    hosts = list(network.hosts())
    network6 = (
        ipaddress.IPv6Network(f"fd89:{identifier[:4]}:{identifier[4:]}::/64") if ipv6 else None
    )
    places = tuple(
        Place(
            name=name,
            address=str(hosts[index]),
            app_address=str(hosts[index]),
            namespace=f"ww-{identifier}-{name}",
            link=f"ww{identifier}v{index}",
            address6=str(network6[index + 1]) if network6 else "",
        )
        for index, name in enumerate(names, 1)
    )
    bridge = f"ww{identifier}br"
    return Plan(Mode.NAMESPACES, identifier, str(hosts[0]), places, bridge, network, network6)


def networks_in_use(*, except_link: str = "") -> tuple[ipaddress.IPv4Network, ...]:
    """The IPv4 networks that this machine routes to: without defaults, and without links named like the mesh's own."""
    shown = subprocess.run(
        ["ip", "-json", "-4", "route", "show", "table", "all"], capture_output=True, check=True
    )
    found = []
    for route in json.loads(shown.stdout or b"[]"):
        destination = route.get("dst", "default")
        own = bool(except_link) and str(route.get("dev", "")).startswith(except_link)
        if destination != "default" and not destination.startswith("127.") and not own:
            found.append(ipaddress.IPv4Network(destination, strict=False))
    return tuple(found)


def spare_ports(first: int, last: int) -> range:
    """Ports that a kernel which chooses from ``first`` to ``last`` gives to nobody by itself; any, where it leaves too few.

    Above what has a meaning to anybody; below the kernel's own choice, where there is room.
    """
    below, above = range(20_000, max(first, 20_000)), range(last + 1, 65_536)
    found = below if len(below) >= len(above) else above
    return found if len(found) >= MOST_TRIES else range(20_000, 65_536)


def _spare_now() -> range:
    try:
        first, last = map(int, OWN_CHOICE.read_text().split())
    except (OSError, ValueError):
        return spare_ports(32_768, 60_999)
    return spare_ports(first, last)


def free_port(host: str, preferred: int = 0) -> int:
    """A free TCP port on an address: the preferred one when it is free.

    Of those that the kernel gives to nobody by itself: between the choice and its use another program's connection could
    come to have one of its own. Not one that was given out before, which may not be in use yet.
    """
    spare = _spare_now()
    if len(_given) > len(spare) // 2:
        _given.clear()
    tries = (_CHOICE.choice(spare) for _ in range(MOST_TRIES))
    for port in (preferred, *tries) if preferred else tries:
        if port in _given and port != preferred:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise LocalMeshError(f"no free port on {host}")
