"""The command: what it prints, how it ends, and that a dry run prints what is loaded and needs no rights."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from services.agent.netfilter.command import main
from services.agent.netfilter.options import FLAGS
from tests.unit.agent.netfilter.conftest import Namespace

SIDECAR = ("-b", "*", "-i", "*", "--ipv6", "off")


def run(*argv: str, **environ: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return main(argv, environ=environ, out=out, err=err), out.getvalue(), err.getvalue()


def process(*argv: str, enter: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """The real program, in a namespace."""
    program = ("-c", "from services.agent.commands import main; main()")
    return subprocess.run(
        [*enter, sys.executable, *program, "netfilter", *argv],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_a_dry_run_prints_rules_and_commands_and_touches_nothing():
    status, out, err = run("apply", "--dry-run", *SIDECAR, "-m", "TPROXY", "-c", "eth9")
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert lines[:2] == ["# IPv4: iptables-restore --noflush", "* mangle"]
    assert "# IPv4, a record of what is put in shared chains: iptables-restore --noflush" in lines
    assert lines[-2:] == [
        "ip -4 route add local default dev lo table 133",
        "ip -4 rule add fwmark 1337 lookup 133",
    ]


@pytest.mark.root
def test_a_dry_run_prints_exactly_what_apply_loads(namespace):
    flags = (
        *SIDECAR[:4],
        "--ipv6",
        "on",
        "-m",
        "TPROXY",
        "-c",
        "eth9",
        "--redirect-dns",
        "--dns-servers",
        "10.0.0.10",
    )
    _, out, _ = run("apply", "--dry-run", *flags)
    enter = namespace.host.enter
    assert process("apply", *flags, enter=enter).returncode == 0
    loaded = namespace.rules(), namespace.routing()
    assert process("clean", enter=enter).returncode == 0
    assert namespace.rules() != loaded[0]
    carry_out(namespace, out)
    assert sorted(namespace.rules().splitlines()) == sorted(loaded[0].splitlines())
    assert namespace.routing() == loaded[1]
    assert process("check", *flags, enter=enter).returncode == 0


@pytest.mark.root
def test_a_round(namespace):
    enter = namespace.host.enter
    missing = process("check", *SIDECAR, enter=enter)
    assert missing.returncode == 1
    assert "IPv4 (nft) nat OUTPUT: missing: -j ISTIO_OUTPUT" in missing.stdout
    applied = process("apply", *SIDECAR, enter=enter)
    assert (applied.returncode, applied.stderr) == (0, "")
    assert applied.stdout == "loaded: IPv4 (nft): 18 rules\n"
    assert process("check", *SIDECAR, enter=enter).stdout == "as wanted\n"
    assert process("apply", *SIDECAR, enter=enter).stdout == "loaded: nothing: all is as wanted\n"
    cleaned = process("clean", enter=enter)
    assert "removed: IPv4 (nft) nat OUTPUT: -j ISTIO_OUTPUT\n" in cleaned.stdout
    assert process("clean", enter=enter).stdout == "removed: nothing was there\n"


# Imported as root: the other user may not be able to read the project.
WITHOUT_RIGHTS = """
import os, sys
from services.agent.netfilter.command import main
os.setgroups([]); os.setgid(1000); os.setuid(1000)
sys.exit(main(sys.argv[1:]))
"""
WITHOUT_NET_ADMIN = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")


@pytest.mark.root
@pytest.mark.parametrize("action", ["apply", "check", "clean"])
def test_without_rights_it_says_so_before_anything(namespace, action):
    before = namespace.rules()
    enter, flags = namespace.host.enter, (action, "-b", "*", "--ipv6", "off")
    user = subprocess.run(
        [*enter, sys.executable, "-c", WITHOUT_RIGHTS, *flags],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    root = process(*flags, enter=(*enter, *WITHOUT_NET_ADMIN))
    assert (user.returncode, root.returncode) == (1, 1)
    start = "windward-agent netfilter: no right to change packet filtering"
    assert user.stderr.startswith(f"{start} (NET_ADMIN and NET_RAW missing): ")
    assert root.stderr.startswith(f"{start} (NET_ADMIN missing): ")
    assert "--cap-add NET_ADMIN" in root.stderr
    assert namespace.rules() == before


@pytest.mark.root
def test_rights_over_nothing_are_said_too():
    """In a user namespace root has every capability, but none over the machine's network."""
    done = process("check", "--ipv6", "off", enter=("unshare", "--user", "--map-root-user"))
    assert done.returncode == 1
    assert "what is loaded cannot be read" in done.stderr
    assert "--cap-add NET_ADMIN" in done.stderr


def test_bad_flags_are_one_line_and_status_2():
    status, out, err = run("apply", "-b", "80;reboot")
    assert (status, out) == (2, "")
    assert err == "windward-agent netfilter: -b: '80;reboot' is not a number\n"


@pytest.mark.root
def test_a_dry_clean_prints_what_undoes_a_dry_apply(namespace):
    flags = ("-b", "*", "-i", "*", "--ipv6", "on", "-m", "TPROXY", "-c", "eth9", "-k", "tap0")
    before = namespace.rules(), namespace.routing()
    for action in ("apply", "clean"):
        _, out, _ = run(action, "--dry-run", *flags)
        carry_out(namespace, out)
        assert ((namespace.rules(), namespace.routing()) == before) is (action == "clean")


def carry_out(namespace: Namespace, printed: str) -> None:
    """What a dry run prints, done by hand."""
    for section in printed.split("# ")[1:]:
        head, _, text = section.partition("\n")
        rules = "".join(line + "\n" for line in text.splitlines() if not line.startswith("ip "))
        namespace.sh(head.partition(": ")[2], rules)
    for line in printed.splitlines():
        if line.startswith("ip "):
            namespace.sh(line)


@pytest.mark.parametrize(
    ("argv", "note"),
    [
        (("--ipv6", "off"), "nothing is captured: -b '*' captures all inbound traffic"),
        (
            ("--ipv6", "off", "-b", "*", "--redirect-dns", "--dns-servers", ""),
            "DNS is not captured",
        ),
        (("--ipv6", "off", "-b", "*", "--capture-all-dns"), "does nothing without --redirect-dns"),
    ],
)
def test_what_is_likely_a_mistake_is_noted(argv, note):
    status, _, err = run("apply", "--dry-run", *argv)
    assert status == 0
    assert note in err


@pytest.mark.root
@pytest.mark.parametrize(
    ("addresses", "flags", "ipv6", "noted"),
    [
        (("10.9.0.1/24",), (), False, False),
        (("10.9.0.1/24", "fd98::1/64"), (), False, True),
        (("10.9.0.1/24", "fd98::1/64"), ("--dual-stack",), True, False),
        (("fd98::1/64",), (), True, False),
        (("10.9.0.1/24",), ("--dual-stack",), False, False),
    ],
)
def test_ipv6_is_decided_by_the_machines_addresses(namespace, addresses, flags, ipv6, noted):
    namespace.sh("ip link add v0 type veth peer name v1; ip link set v0 up")
    for address in addresses:
        namespace.sh(f"ip addr add {address} dev v0")
    done = process("apply", "--dry-run", "-b", "*", "-i", "*", *flags, enter=namespace.host.enter)
    assert ("# IPv6" in done.stdout) is ipv6
    assert ("IPv6 addresses here, whose traffic is not captured" in done.stderr) is noted


def test_the_agents_program_knows_the_command():
    done = process("--help")
    assert done.returncode == 0
    assert all(f"--{name}" in done.stdout for _, name, _, _ in FLAGS)
