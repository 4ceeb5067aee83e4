"""A network namespace of a test's own."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from services.agent.netfilter.host import Host
from windward.local.network import NETNS_FOLDER


@dataclass(frozen=True, slots=True)
class Namespace:
    name: str

    @property
    def host(self) -> Host:
        return Host(("ip", "netns", "exec", self.name), NETNS_FOLDER / self.name)

    def sh(self, script: str, stdin: str = "") -> str:
        """What a script prints that runs within. Raises CalledProcessError when any part of it fails."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, "sh", "-ec", script],
            input=stdin, capture_output=True, encoding="utf-8", errors="surrogateescape", timeout=30, check=True,
        )  # fmt: skip
        return done.stdout

    def rules(self) -> str:
        """Everything that is loaded in both iptables, without comments and without tables that hold no rule."""
        text = self.sh(
            'for p in iptables-nft ip6tables-nft iptables-legacy ip6tables-legacy; do echo "$p"; $p-save; done'
        )
        return "\n".join(
            line for line in text.splitlines() if line.startswith(("-", "ip")) or " - [" in line
        )

    def routing(self) -> str:
        return self.sh(
            "ip -4 rule; ip -6 rule; ip -6 -o addr show dev lo; ip -4 route show table all type local; "
            "ip -6 route show table all type local"
        )


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    name = f"ww-nft-{secrets.token_hex(3)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        made = Namespace(name)
        made.sh("ip link set lo up")
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
