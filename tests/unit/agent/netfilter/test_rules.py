"""Interception rules: the text to the letter, what it refuses, and that a kernel loads it whole."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.netfilter.rules import CHAINS, InterceptionSettings, restore_text

DEFAULT = """\
*nat
:WINDWARD_INBOUND - [0:0]
:WINDWARD_REDIRECT - [0:0]
:WINDWARD_IN_REDIRECT - [0:0]
:WINDWARD_OUTPUT - [0:0]
-A WINDWARD_REDIRECT -p tcp -j REDIRECT --to-ports 15001
-A WINDWARD_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
-A PREROUTING -p tcp -j WINDWARD_INBOUND
-A WINDWARD_INBOUND -p tcp --dport 15090 -j RETURN
-A WINDWARD_INBOUND -p tcp --dport 15021 -j RETURN
-A WINDWARD_INBOUND -p tcp --dport 15020 -j RETURN
-A WINDWARD_INBOUND -p tcp -j WINDWARD_IN_REDIRECT
-A OUTPUT -p tcp -j WINDWARD_OUTPUT
-A WINDWARD_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN
-A WINDWARD_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp -m owner --uid-owner 1337 -j WINDWARD_IN_REDIRECT
-A WINDWARD_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN
-A WINDWARD_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A WINDWARD_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp -m owner --gid-owner 1337 -j WINDWARD_IN_REDIRECT
-A WINDWARD_OUTPUT -o lo -m owner ! --gid-owner 1337 -j RETURN
-A WINDWARD_OUTPUT -m owner --gid-owner 1337 -j RETURN
-A WINDWARD_OUTPUT -d 127.0.0.1/32 -j RETURN
-A WINDWARD_OUTPUT -j WINDWARD_REDIRECT
COMMIT
"""

FULL = InterceptionSettings(
    uid=1000,
    gid=1001,
    outbound_port=16001,
    inbound_port=16006,
    exclude_inbound_ports=(22, 9100),
    exclude_outbound_ports=(5432,),
    exclude_outbound_cidrs=("10.96.0.0/12", "169.254.169.254/32"),
)


def load(text: str, then: str = "iptables-save -t nat") -> subprocess.CompletedProcess[str]:
    """Load a text in a network namespace that ends with the command; what ``then`` prints."""
    return subprocess.run(
        ["unshare", "--net", "sh", "-ec", f"iptables-restore --noflush; {then}"],
        input=text, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip


def test_the_default_to_the_letter():
    assert restore_text(InterceptionSettings()) == DEFAULT


def test_every_setting_reaches_its_rule():
    lines = restore_text(FULL).splitlines()
    assert "-A WINDWARD_REDIRECT -p tcp -j REDIRECT --to-ports 16001" in lines
    assert "-A WINDWARD_IN_REDIRECT -p tcp -j REDIRECT --to-ports 16006" in lines
    assert "-A WINDWARD_OUTPUT -m owner --uid-owner 1000 -j RETURN" in lines
    assert "-A WINDWARD_OUTPUT -m owner --gid-owner 1001 -j RETURN" in lines
    inbound = [line for line in lines if line.startswith("-A WINDWARD_INBOUND")]
    assert inbound[-3:] == [
        "-A WINDWARD_INBOUND -p tcp --dport 22 -j RETURN",
        "-A WINDWARD_INBOUND -p tcp --dport 9100 -j RETURN",
        "-A WINDWARD_INBOUND -p tcp -j WINDWARD_IN_REDIRECT",
    ]
    outbound = [line for line in lines if line.startswith("-A WINDWARD_OUTPUT")]
    assert outbound[0] == "-A WINDWARD_OUTPUT -p tcp --dport 5432 -j RETURN"
    assert outbound[-3:] == [
        "-A WINDWARD_OUTPUT -d 10.96.0.0/12 -j RETURN",
        "-A WINDWARD_OUTPUT -d 169.254.169.254/32 -j RETURN",
        "-A WINDWARD_OUTPUT -j WINDWARD_REDIRECT",
    ]


@pytest.mark.parametrize("port", [0, -1, 65536])
@pytest.mark.parametrize("field", ["exclude_inbound_ports", "exclude_outbound_ports"])
def test_what_is_no_port_is_refused(field, port):
    made: Any = {field: (port,)}
    with pytest.raises(ValueError, match=f"{port} is not a port"):
        InterceptionSettings(**made)


@pytest.mark.parametrize("field", ["inbound_port", "outbound_port"])
def test_envoys_own_ports_are_ports(field):
    made: Any = {field: 0}
    with pytest.raises(ValueError, match="0 is not a port"):
        InterceptionSettings(**made)


@pytest.mark.parametrize(
    "cidr",
    ["", "*", "10.0.0.0/33", "10.0.0.0/8 -j ACCEPT", "10.0.0.0/8\n-F", "::/0", "host.example"],
)
def test_what_is_no_range_never_reaches_iptables(cidr):
    with pytest.raises(ValueError, match=r".+"):
        InterceptionSettings(exclude_outbound_cidrs=(cidr,))


@given(st.text(max_size=40))
def test_no_text_makes_a_line_of_its_own(text):
    try:
        made = InterceptionSettings(exclude_outbound_cidrs=(text,))
    except ValueError:
        return
    assert restore_text(made).count("\n") == DEFAULT.count("\n") + 1


@pytest.mark.root
@pytest.mark.parametrize("wanted", [InterceptionSettings(), FULL])
def test_a_kernel_takes_all_of_it(wanted):
    text = restore_text(wanted)
    loaded = load(text)
    assert loaded.returncode == 0, loaded.stderr
    kept = [line for line in loaded.stdout.splitlines() if line.startswith("-A ")]
    for chain in ("PREROUTING", "OUTPUT", *CHAINS):
        given_ = [line for line in text.splitlines() if line.startswith(f"-A {chain} ")]
        assert len([line for line in kept if line.startswith(f"-A {chain} ")]) == len(given_)


@pytest.mark.root
def test_loading_leaves_the_rules_of_others_alone():
    other = "*nat\n:OTHERS - [0:0]\n-A OTHERS -d 192.0.2.1/32 -j RETURN\nCOMMIT\n"
    loaded = load(other + restore_text(InterceptionSettings()))
    assert loaded.returncode == 0, loaded.stderr
    assert "-A OTHERS -d 192.0.2.1/32 -j RETURN" in loaded.stdout


@pytest.mark.root
def test_a_text_with_one_bad_line_loads_nothing():
    broken = restore_text(InterceptionSettings()).replace("--to-ports 15006", "--to-ports none")
    loaded = load(broken, then="true")
    assert loaded.returncode != 0
    seen = subprocess.run(
        ["unshare", "--net", "sh", "-c", "iptables-restore --noflush; iptables-save -t nat"],
        input=broken, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert "WINDWARD" not in seen.stdout
