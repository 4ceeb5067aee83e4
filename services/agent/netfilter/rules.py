"""Interception rules as ``iptables-restore`` text: pure, so that it can be compared, shown and loaded atomically.

The behaviour is that of Istio's sidecar rules (tools/istio-iptables), REDIRECT mode:

inbound    every TCP port but the excluded ones -> Envoy's 15006
outbound   Envoy's own traffic -> untouched, except a call to its own address, which is inbound;
           over loopback from the application, or to 127.0.0.1 -> untouched; excluded ranges -> untouched;
           all else -> Envoy's 15001
127.0.0.6  is where Envoy's connections to the application come from: untouched
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

SELF = "127.0.0.6/32"
LOOPBACK = "127.0.0.1/32"
OWN_PORTS = (15090, 15021, 15020)
CHAINS = ("WINDWARD_INBOUND", "WINDWARD_REDIRECT", "WINDWARD_IN_REDIRECT", "WINDWARD_OUTPUT")


@dataclass(frozen=True, slots=True)
class InterceptionSettings:
    uid: int = 1337
    gid: int = 1337
    outbound_port: int = 15001
    inbound_port: int = 15006
    exclude_inbound_ports: tuple[int, ...] = ()
    exclude_outbound_ports: tuple[int, ...] = ()
    exclude_outbound_cidrs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError for what could not be a rule: nothing unchecked reaches iptables."""
        for port in (
            *self.exclude_inbound_ports,
            *self.exclude_outbound_ports,
            self.outbound_port,
            self.inbound_port,
        ):
            if not 1 <= port <= 65535:
                raise ValueError(f"{port} is not a port")
        for cidr in self.exclude_outbound_cidrs:
            ipaddress.IPv4Network(cidr, strict=False)


def restore_text(settings: InterceptionSettings) -> str:
    """The whole nat table's additions, for ``iptables-restore --noflush``."""
    lines = ["*nat", *(f":{chain} - [0:0]" for chain in CHAINS)]
    lines += [
        f"-A WINDWARD_REDIRECT -p tcp -j REDIRECT --to-ports {settings.outbound_port}",
        f"-A WINDWARD_IN_REDIRECT -p tcp -j REDIRECT --to-ports {settings.inbound_port}",
        "-A PREROUTING -p tcp -j WINDWARD_INBOUND",
    ]
    for port in (*OWN_PORTS, *settings.exclude_inbound_ports):
        lines.append(f"-A WINDWARD_INBOUND -p tcp --dport {port} -j RETURN")
    lines += [
        "-A WINDWARD_INBOUND -p tcp -j WINDWARD_IN_REDIRECT",
        "-A OUTPUT -p tcp -j WINDWARD_OUTPUT",
    ]
    for port in settings.exclude_outbound_ports:
        lines.append(f"-A WINDWARD_OUTPUT -p tcp --dport {port} -j RETURN")
    lines.append(f"-A WINDWARD_OUTPUT -o lo -s {SELF} -j RETURN")
    for owner in (f"--uid-owner {settings.uid}", f"--gid-owner {settings.gid}"):
        lines += [
            f"-A WINDWARD_OUTPUT -o lo ! -d {LOOPBACK} -p tcp -m owner {owner} -j WINDWARD_IN_REDIRECT",
            f"-A WINDWARD_OUTPUT -o lo -m owner ! {owner} -j RETURN",
            f"-A WINDWARD_OUTPUT -m owner {owner} -j RETURN",
        ]
    lines.append(f"-A WINDWARD_OUTPUT -d {LOOPBACK} -j RETURN")
    for cidr in settings.exclude_outbound_cidrs:
        lines.append(f"-A WINDWARD_OUTPUT -d {cidr} -j RETURN")
    lines += ["-A WINDWARD_OUTPUT -j WINDWARD_REDIRECT", "COMMIT"]
    return "\n".join(lines) + "\n"
