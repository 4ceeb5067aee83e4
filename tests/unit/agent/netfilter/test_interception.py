"""What may be intercepted: everything that could not be a rule is refused, naming the flag."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.netfilter.errors import InterceptionError
from services.agent.netfilter.interception import ALL, Interception
from services.agent.netfilter.restore import restore_text
from services.agent.netfilter.rules import Family, rules_of

PORT_FIELDS = {
    "outbound_port": "-p",
    "inbound_port": "-z",
    "tunnel_port": "-e",
    "inbound_ports": "-b",
    "inbound_ports_exclude": "-d",
    "outbound_ports": "-q",
    "outbound_ports_exclude": "-o",
}


def refused(flag: str, **fields: Any) -> str:
    with pytest.raises(InterceptionError) as caught:
        Interception(**fields)
    assert caught.value.flag == flag
    return str(caught.value)


@pytest.mark.parametrize("port", [0, -1, 65536])
@pytest.mark.parametrize("field", PORT_FIELDS)
def test_what_is_no_port_is_refused(field, port):
    value = port if field.endswith("_port") else (80, port)
    assert f"{port} is not a port" in refused(PORT_FIELDS[field], **{field: value})


@pytest.mark.parametrize("owner", [-1, 2**32 - 1])
@pytest.mark.parametrize(("field", "flag"), [("uids", "-u"), ("gids", "-g")])
def test_what_is_no_users_number_is_refused(field, flag, owner):
    refused(flag, **{field: (owner,)})


@pytest.mark.parametrize(("field", "flag"), [("uids", "-u"), ("gids", "-g")])
def test_without_an_owner_envoy_would_be_sent_to_itself(field, flag):
    assert "told apart" in refused(flag, **{field: ()})


@pytest.mark.parametrize(
    "cidr",
    ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/8 -j ACCEPT", "10.0.0.0/8\n-F", "host.example/8",
     "10.0.0.0/255.0.0.0", "fe80::1%eth0/64", "10.0.0.0/08", "1/8", "::/129"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("field", "flag"), [("outbound_cidrs", "-i"), ("outbound_cidrs_exclude", "-x")]
)
def test_what_is_no_range_is_refused(field, flag, cidr):
    assert "not a range" in refused(flag, **{field: ("10.0.0.0/8", cidr)})


def test_excluding_everything_is_refused_with_what_to_do():
    assert "leave -i empty" in refused("-x", outbound_cidrs_exclude=(ALL,))


@pytest.mark.parametrize(
    "name", ["", "-j", "eth0 -j ACCEPT", "eth0\n-F", "a" * 16, "eth0/1", "!eth0"]
)
@pytest.mark.parametrize(
    ("field", "flag"), [("exclude_interfaces", "-c"), ("virtual_interfaces", "-k")]
)
def test_what_is_no_interface_is_refused(field, flag, name):
    refused(flag, **{field: (name,)})


@pytest.mark.parametrize("name", ["", "-j", "a b", "a\n-F", "x" * 33, "!7"])
@pytest.mark.parametrize(
    ("field", "variable"),
    [
        ("owner_groups", "ISTIO_OUTBOUND_OWNER_GROUPS"),
        ("owner_groups_exclude", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"),
    ],
)
def test_what_is_no_group_is_refused(field, variable, name):
    refused(variable, **{field: (name,)})


def test_more_groups_than_a_rule_holds_are_refused():
    assert len(Interception(owner_groups=("7",) * 64).owner_groups) == 64
    assert "at most 64" in refused("ISTIO_OUTBOUND_OWNER_GROUPS", owner_groups=("7",) * 65)


@pytest.mark.parametrize(
    "server", ["", "dns.example", "fe80::1%eth0", "10.0.0.1/32", "1 -j ACCEPT"]
)
def test_what_is_no_address_is_no_resolver(server):
    refused("--dns-servers", dns_servers=(server,))


@pytest.mark.parametrize("cidr", ["10.0.0.1/32", "127.0.0.1/7", "::1/128", "127.0.0.1"])
def test_loopback_is_within_127(cidr):
    refused("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", loopback_cidr=cidr)


@pytest.mark.parametrize("mark", [0, -1, 2**32, 1338])
def test_a_mark_is_one_that_is_not_used_otherwise(mark):
    refused("-t", tproxy_mark=mark)


@pytest.mark.parametrize("table", [0, 253, 254, 255, 2**32])
def test_a_routing_table_is_nobody_elses(table):
    refused("-r", tproxy_table=table)


def test_a_mode_is_one_of_two():
    mode: Any = "NONE"
    refused("-m", mode=mode)


def test_lists_are_bounded():
    assert "at most 1024" in refused("-q", outbound_ports=(80,) * 1025)


def test_so_is_what_two_lists_make_together():
    ranges = ("10.0.0.0/8",) * 64
    most = Interception(virtual_interfaces=("tap0",) * 64, outbound_cidrs=ranges)
    assert len(most.virtual_interfaces) == 64
    assert "more than 4096" in refused(
        "-k", virtual_interfaces=("tap0",) * 65, outbound_cidrs=ranges
    )


def test_dns_is_captured_only_when_it_is_known_what():
    assert not Interception(redirect_dns=True).dns
    assert not Interception(capture_all_dns=True).dns
    assert Interception(redirect_dns=True, capture_all_dns=True).dns
    assert Interception(redirect_dns=True, dns_servers=("10.0.0.10",)).dns


@given(st.text(max_size=30), st.sampled_from(["cidr", "interface", "group", "server", "loopback"]))
def test_no_text_makes_a_line_or_a_word_of_its_own(text, where):
    """Whatever a value is, the rules have as many lines and words as with a harmless one."""
    harmless = {
        "cidr": "10.0.0.0/8",
        "interface": "eth7",
        "group": "7",
        "server": "10.0.0.9",
        "loopback": "127.0.0.1/8",
    }

    def made(value: str) -> list[int]:
        wanted = Interception(
            outbound_cidrs_exclude=(value,) if where == "cidr" else (),
            exclude_interfaces=(value,) if where == "interface" else (),
            owner_groups_exclude=(value,) if where == "group" else (),
            redirect_dns=True,
            dns_servers=(value,) if where == "server" else ("10.0.0.9",),
            loopback_cidr=value if where == "loopback" else "127.0.0.1/8",
        )
        lines = restore_text(rules_of(wanted, Family.V4)).splitlines()
        return [len(line.split()) for line in lines]

    try:
        words = made(text)
    except InterceptionError:
        return
    if ":" not in text:
        assert words == made(harmless[where])
