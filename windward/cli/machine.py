"""The files that make a machine outside the mesh one of its workloads. Pure: what is known of both in, texts out.

agent.yaml               settings of its windward-agent
root-cert.pem            whom to believe
token                    proves, once, that it may be who it says
start.sh                 interception, the agent, and away with the interception when that ends
windward-agent.service   the same for systemd
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from windward.config.hosts import is_dns_label

SETTINGS, ROOTS, TOKEN, START, UNIT = (
    "agent.yaml",
    "root-cert.pem",
    "token",
    "start.sh",
    "windward-agent.service",
)
SECRET, DATA, PROGRAM = 0o600, 0o644, 0o755
HOME = "/etc/windward"
"""Where the unit expects the folder."""
NOT_CAPTURED = (22, 15020, 15021, 15090)
"""Inbound ports that stay as they are: a way in for its administrator, and the sidecar's own."""


@dataclass(frozen=True, slots=True)
class Machine:
    name: str
    namespace: str
    service_account: str
    group: str
    labels: Mapping[str, str]
    address: str
    """Empty: found out on the machine, the one that it reaches Pilot from."""
    locality: str
    """region/zone/subzone, or the beginning of it."""
    probe_commands: bool = False


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """As the machine reaches it; ``host:port`` each."""

    pilot: tuple[str, ...]
    citadel: str
    citadel_mtls: str
    trust_domain: str
    roots_pem: str


def faults(machine: Machine, plane: ControlPlane) -> list[str]:
    """What is wrong, a line an option; empty when all is well."""
    found = [
        f"{option} {text!r}: must be a DNS label"
        for option, text in (
            ("NAME", machine.name),
            ("--namespace", machine.namespace),
            ("--service-account", machine.service_account),
            ("--group", machine.group),
        )
        if not is_dns_label(text)
    ]
    if machine.address and not _usable_address(machine.address):
        found.append(f"--address {machine.address!r}: must be an IP address that others reach")
    parts = machine.locality.split("/") if machine.locality else []
    if len(parts) > 3 or not all(parts):
        found.append(f"--locality {machine.locality!r}: must be region/zone/subzone, or less of it")
    for option, text in (
        *(("--pilot", address) for address in plane.pilot),
        ("--citadel", plane.citadel),
        ("--citadel-mtls", plane.citadel_mtls),
    ):
        host, _, port = text.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            found.append(f"{option} {text!r}: must be host:port")
        elif not machine.address.startswith("127.") and _is_loopback(host):
            found.append(f"{option} {text}: no other machine reaches that; give the address it has")
    return found


def files(machine: Machine, plane: ControlPlane, token: str) -> dict[str, tuple[str, int]]:
    """Name -> (text, mode)."""
    return {
        SETTINGS: (settings_text(machine, plane), DATA),
        ROOTS: (plane.roots_pem, DATA),
        TOKEN: (token + "\n", SECRET),
        START: (start_text(machine, plane), PROGRAM),
        UNIT: (unit_text(machine), DATA),
    }


def settings_text(machine: Machine, plane: ControlPlane) -> str:
    settings: dict[str, Any] = {
        "pilot_address": list(plane.pilot),
        "citadel_address": plane.citadel,
        "citadel_mtls_address": plane.citadel_mtls,
        "trust_domain": plane.trust_domain,
        "trust_bundle_file": ROOTS,
        "token_file": TOKEN,
        "state_dir": "state",
        "namespace": machine.namespace,
        "service_account": machine.service_account,
        "workload_name": machine.name,
        "workload_group": machine.group,
        "labels": dict(machine.labels),
        "dns_capture": True,
        "probe_commands": machine.probe_commands,
    }
    if machine.address:
        settings["address"] = machine.address
    if machine.locality:
        settings["locality"] = machine.locality
    head = "# Settings of windward-agent; each may also be a flag, or WINDWARD_AGENT_NAME in the environment.\n"
    return head + yaml.safe_dump(settings, sort_keys=False)


def start_text(machine: Machine, plane: ControlPlane) -> str:
    ports = ",".join(str(port) for port in NOT_CAPTURED)
    pilot = plane.pilot[0].rpartition(":")[0].strip("[]")
    return f"""#!/bin/sh
# The sidecar of {machine.namespace}/{machine.name}: run this beside the application, as root.
# Needs windward-agent (or its path in $WINDWARD_AGENT), iptables, iproute2 and util-linux.
set -eu
cd "$(dirname "$0")"
agent=${{WINDWARD_AGENT:-windward-agent}}
{_find_address(pilot) if not machine.address else ""}
clean() {{ "$agent" netfilter clean >&2 || true; }}
trap clean EXIT
"$agent" netfilter apply -b '*' -d {ports} -i '*' --redirect-dns --capture-all-dns >&2
setpriv --regid 1337 --clear-groups "$agent" --settings {SETTINGS} "$@" &
sidecar=$!
trap 'kill -TERM "$sidecar"' TERM INT
status=0
wait "$sidecar" || status=$?
if kill -0 "$sidecar" 2>/dev/null; then
  status=0  # the wait was ended by the signal: the sidecar drains
  wait "$sidecar" || status=$?
fi
exit "$status"
"""


def _find_address(pilot: str) -> str:
    """Shell that sets the address which reaches Pilot from here, unless one is set."""
    return f"""if [ -z "${{WINDWARD_AGENT_ADDRESS:-}}" ]; then
  pilot=$(getent ahosts {shlex.quote(pilot)} | awk 'NR == 1 {{print $1}}')
  WINDWARD_AGENT_ADDRESS=$(ip -o route get "$pilot" | sed -n 's/.* src \\([^ ]*\\).*/\\1/p')
  export WINDWARD_AGENT_ADDRESS
fi"""


def unit_text(machine: Machine) -> str:
    return f"""# cp -r . {HOME} && systemctl enable --now {HOME}/{UNIT}
[Unit]
Description=Windward sidecar of {machine.namespace}/{machine.name}
Wants=network-online.target
After=network-online.target

[Service]
ExecStart={HOME}/{START}
KillMode=mixed
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
"""


def _usable_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text and not address.is_unspecified and not address.is_multicast


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
