"""The validation: a connection that comes to Envoy's ports by the rules alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from services.agent.netfilter.apply import apply
from services.agent.netfilter.interception import ALL, Interception
from tests.unit.agent.netfilter.conftest import Namespace

pytestmark = pytest.mark.root

PROGRAM = """
import os, sys
from services.agent.netfilter.command import main
uid = int(sys.argv[1])
if uid:
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
sys.exit(main(["apply", "--skip-rule-apply", "--run-validation", *sys.argv[2:]]))
"""


def validated(namespace: Namespace, *flags: str, uid: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*namespace.host.enter, sys.executable, "-c", PROGRAM, str(uid), *flags],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["REDIRECT", "TPROXY"])
def test_with_rules_it_passes_for_root_and_for_envoys_user(namespace, mode):
    apply(namespace.host, Interception(mode=mode, inbound_ports=ALL, outbound_cidrs=ALL, ipv6=True))
    for uid in (0, 1337):
        done = validated(namespace, "--ipv6", "on", uid=uid)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == (
            "validated: IPv4 connections come to Envoy\nvalidated: IPv6 connections come to Envoy\n"
        )


def test_without_rules_it_fails_with_126_and_says_what_to_look_at(namespace):
    done = validated(namespace, "--ipv6", "off", "--probe-timeout", "200ms")
    assert done.returncode == 126
    assert "127.0.0.6 port 15002 did not come to Envoy's ports within 0.2 s" in done.stderr
    assert "see `check`" in done.stderr


def test_rules_for_one_family_do_not_pass_for_the_other(namespace):
    apply(namespace.host, Interception(inbound_ports=ALL, outbound_cidrs=ALL))
    namespace.sh("ip -6 addr add ::6/128 dev lo")
    done = validated(namespace, "--ipv6", "on", "--probe-timeout", "200ms")
    assert done.returncode == 126
    assert "::6 port 15002" in done.stderr


def test_another_user_cannot_probe_and_is_told_who_can(namespace):
    apply(namespace.host, Interception(inbound_ports=ALL, outbound_cidrs=ALL))
    done = validated(namespace, "--ipv6", "off", uid=1000)
    assert done.returncode == 126
    assert "must run as root, or as Envoy's user 1337" in done.stderr


def test_ports_that_envoy_listens_on_are_said(namespace):
    listener = subprocess.Popen(
        [*namespace.host.enter, sys.executable, "-c",
         "import socket; s = socket.create_server(('127.0.0.1', 15001)); print('up', flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "up\n"
        done = validated(namespace, "--ipv6", "off")
        listener.communicate("\n")
    assert done.returncode == 126
    assert "port 15001 (Address already in use): validate before Envoy starts" in done.stderr
