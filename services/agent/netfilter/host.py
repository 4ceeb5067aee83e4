"""The machine: commands run on it, what we may do there, and which of its two iptables is in use.

``iptables-nft`` and ``iptables-legacy`` keep separate rules, and the kernel obeys both: rules in the one that is not
looked at are the classic trap.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from services.agent.netfilter.errors import NetfilterError
from services.agent.netfilter.rules import Family
from services.agent.netfilter.state import OWN_CHAINS, Chains, parse_save

Kind = Literal["nft", "legacy"]
KINDS: tuple[Kind, ...] = ("nft", "legacy")
TIMEOUT_S = 60
MOST_SAID = 300
LOCK_WAIT_S = 30
CAPABILITIES = {12: "NET_ADMIN", 13: "NET_RAW"}
"""Bits of linux/capability.h. NET_RAW: iptables-legacy talks to the kernel by a raw socket."""
IPV6_OFF = "/proc/sys/net/ipv6/conf/lo/disable_ipv6"
HOW_TO_MAY = "run it as root, in a container with `--cap-add NET_ADMIN --cap-add NET_RAW`"


class CommandError(NetfilterError):
    """A command failed; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Host:
    """Where commands run. ``enter`` leads into another network namespace: ``("ip", "netns", "exec", NAME)``."""

    enter: tuple[str, ...] = ()
    namespace: Path = Path("/proc/self/ns/net")
    """The namespace's file, by which changes wait for one another."""

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One change of a network namespace at a time. Raises NetfilterError after waiting long."""
        end = time.monotonic() + LOCK_WAIT_S
        with self.namespace.open() as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise NetfilterError(
                            f"another change of these rules has been under way for {LOCK_WAIT_S} s: try again"
                        ) from None
                time.sleep(0.02)
            yield

    def run(self, command: tuple[str, ...], stdin: str = "") -> str:
        """What it printed. Raises CommandError with what it said, where it failed."""
        whole = (*self.enter, *command)
        try:
            done = subprocess.run(
                whole,
                input=stdin,
                capture_output=True,
                encoding="utf-8",
                # Comments of others' rules may be any bytes.
                errors="surrogateescape",
                timeout=TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CommandError(f"`{' '.join(command)}`: {error}") from error
        if done.returncode:
            # iptables says where on the second line.
            said = " ".join((done.stderr or done.stdout).split())[:MOST_SAID]
            raise CommandError(f"`{' '.join(command)}`: {said or f'exit {done.returncode}'}")
        return done.stdout


@dataclass(frozen=True, slots=True)
class Backend:
    """One of the two, for one family."""

    host: Host
    kind: Kind
    family: Family
    program: str
    """``iptables-nft``, or ``iptables`` where that is it; ``-save`` and ``-restore`` follow."""

    @property
    def label(self) -> str:
        return f"IPv{self.family} ({self.kind})"

    @property
    def restore_command(self) -> tuple[str, ...]:
        wait = () if self.kind == "nft" else ("--wait", str(LOCK_WAIT_S))
        return (f"{self.program}-restore", "--noflush", *wait)

    def save(self) -> dict[str, Chains]:
        return parse_save(self.host.run((f"{self.program}-save",)))

    def restore(self, text: str) -> None:
        self.host.run(self.restore_command, text)


def missing_rights(status: str, uid: int) -> tuple[str, ...]:
    """Capabilities that iptables would lack, by /proc/self/status. A user other than root hands on only ambient ones."""
    field = "CapEff:" if uid == 0 else "CapAmb:"
    line = next((line for line in status.splitlines() if line.startswith(field)), f"{field} 0")
    held = int(line.split()[1], 16)
    return tuple(name for bit, name in CAPABILITIES.items() if not held >> bit & 1)


def require_rights() -> None:
    """Raises NetfilterError, before anything is tried."""
    missing = missing_rights(Path("/proc/self/status").read_text(), os.geteuid())
    if missing:
        raise NetfilterError(
            f"no right to change packet filtering ({' and '.join(missing)} missing): {HOW_TO_MAY}"
        )


def require_tools(*, routing: bool) -> None:
    if routing and shutil.which("ip") is None:
        raise NetfilterError("`ip` is not installed: apt-get install iproute2")


def require_ipv6(host: Host) -> None:
    """Raises NetfilterError where the namespace has IPv6 switched off."""
    try:
        off = host.run(("cat", IPV6_OFF)).strip() != "0"
    except CommandError:
        off = True
    if off:
        raise NetfilterError(
            "IPv6 is switched off here, so that Envoy cannot call the application over it: "
            "sysctl -w net.ipv6.conf.lo.disable_ipv6=0, or say --ipv6 off"
        )


def backends(host: Host, family: Family) -> dict[Kind, Backend]:
    """Those that are installed, the machine's own default first."""
    prefix = "iptables" if family is Family.V4 else "ip6tables"
    found: dict[Kind, Backend] = {}
    if shutil.which(f"{prefix}-restore") and shutil.which(f"{prefix}-save"):
        said = host.run((f"{prefix}-restore", "--version"))
        default: Kind = "nft" if "nf_tables" in said else "legacy"
        found[default] = Backend(host, default, family, prefix)
    for kind in KINDS:
        program = f"{prefix}-{kind}"
        if shutil.which(f"{program}-restore") and shutil.which(f"{program}-save"):
            found.setdefault(kind, Backend(host, kind, family, program))
    return found


def choose(saved: Mapping[Kind, dict[str, Chains]], forced: Kind | None) -> Kind:
    """Which to use: what is asked for, else where our rules are, else where any are, else the machine's default.

    ``saved``: what is loaded in each one that is installed, the default first.
    """
    if not saved:
        raise NetfilterError("iptables is not installed: apt-get install iptables")
    if forced is not None:
        if forced not in saved:
            raise NetfilterError(
                f"--force-iptables-binary {forced}: iptables-{forced}-restore is not installed"
            )
        return forced
    for counted in (_our_chains, _rules):
        most = {kind: counted(tables) for kind, tables in saved.items()}
        if any(most.values()):
            return max(most, key=lambda kind: most[kind])
    return next(iter(saved))


def read_all(found: Mapping[Kind, Backend]) -> dict[Kind, dict[str, Chains]]:
    """What is loaded in each. A kernel that has only one of the two has nothing in the other; with neither, or without the
    right to look, it is said why.
    """
    saved: dict[Kind, dict[str, Chains]] = {}
    failed: list[CommandError] = []
    for kind, backend in found.items():
        try:
            saved[kind] = backend.save()
        except CommandError as error:
            failed.append(error)
            saved[kind] = {}
    denied = [error for error in failed if "ermission denied" in str(error)]
    if denied or (failed and len(failed) == len(found)):
        raise CommandError(f"what is loaded cannot be read: {(denied or failed)[0]}; {HOW_TO_MAY}")
    return saved


def _our_chains(tables: dict[str, Chains]) -> int:
    return sum(chain in OWN_CHAINS for chains in tables.values() for chain in chains)


def _rules(tables: dict[str, Chains]) -> int:
    return sum(len(specs) for chains in tables.values() for specs in chains.values())
