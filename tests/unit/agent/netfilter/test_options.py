"""Flags and environment: Istio's names and defaults, and one clear line for what is wrong."""

from __future__ import annotations

import pytest

from services.agent.netfilter.errors import InterceptionError
from services.agent.netfilter.interception import ALL, Interception
from services.agent.netfilter.options import (
    ENVIRONMENT,
    FLAGS,
    SWITCHES,
    nameservers,
    options,
    parser,
)

RESOLV_CONF = "# made\nsearch a.example\nnameserver 10.0.0.10\nnameserver fe80::1%eth0\nnameserver 2001:db8::10\nnameserver\n"


def wanted(*argv: str, **environ: str) -> Interception:
    return options(["apply", *argv], environ, RESOLV_CONF).interception


def test_without_flags_it_is_istios_defaults():
    made = options(["apply"], {}, RESOLV_CONF)
    assert made.interception == Interception(inbound_ports_exclude=(15090, 15021, 15020))
    assert (made.probe_port, made.probe_timeout_s, made.reconcile) == (15002, 5.0, True)
    assert made.forced is None


def test_every_short_flag_reaches_its_setting():
    made = wanted(
        "-p", "1", "-z", "2", "-e", "3", "-u", "4,5", "-g", "6", "-m", "TPROXY", "-b", "7,8", "-d", "9",
        "-i", "10.0.0.0/8", "-x", "10.1.0.0/16", "-q", "10", "-o", "11", "-c", "eth1", "-k", "tap0", "-t", "12", "-r", "13",
    )  # fmt: skip
    assert made == Interception(
        outbound_port=1, inbound_port=2, tunnel_port=3, uids=(4, 5), gids=(6,), mode="TPROXY",
        inbound_ports=(7, 8), inbound_ports_exclude=(9,), outbound_cidrs=("10.0.0.0/8",),
        outbound_cidrs_exclude=("10.1.0.0/16",), outbound_ports=(10,), outbound_ports_exclude=(11,),
        exclude_interfaces=("eth1",), virtual_interfaces=("tap0",), tproxy_mark=12, tproxy_table=13,
    )  # fmt: skip


def test_stars_mean_all_and_empty_means_none():
    made = wanted("-b", "*", "-i", "*")
    assert (made.inbound_ports, made.outbound_cidrs) == (ALL, ALL)
    made = wanted("-b", "", "-i", "", "-d", "", ISTIO_OUTBOUND_OWNER_GROUPS="")
    assert (made.inbound_ports, made.outbound_cidrs, made.owner_groups) == ((), (), ())


def test_groups_follow_users_unless_they_are_given():
    assert wanted("-u", "7").gids == (7,)
    assert wanted("-u", "7", "-g", "8").gids == (8,)


def test_flags_win_over_the_environment():
    assert wanted(ISTIO_INBOUND_PORTS="80").inbound_ports == (80,)
    assert wanted("-b", "81", ISTIO_INBOUND_PORTS="80").inbound_ports == (81,)


def test_variables_that_mean_something_else_to_others_are_not_read():
    assert wanted(ENVOY_PORT="tcp://10.0.0.1:80", IPV6="yes", DNS_SERVERS="x") == wanted()


@pytest.mark.parametrize(
    ("variable", "field"),
    [
        ("ISTIO_META_DNS_CAPTURE", "redirect_dns"),
        ("REDIRECT_DNS", "redirect_dns"),
        ("INVALID_DROP", "drop_invalid"),
    ],
)
def test_older_variables_are_known(variable, field):
    assert getattr(wanted(**{variable: "true"}), field)
    assert not getattr(wanted(**{variable: "false"}), field)


@pytest.mark.parametrize("variable", ["ISTIO_DUAL_STACK", "ISTIO_AGENT_DUAL_STACK", "DUAL_STACK"])
def test_dual_stack_by_the_environment(variable):
    assert options(["apply"], {variable: "true"}, "").dual_stack


def test_what_only_the_environment_says():
    made = wanted(
        ISTIO_OUTBOUND_OWNER_GROUPS="java,202",
        ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE="9",
        ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR="127.0.0.1/8",
    )
    assert made.owner_groups == ("java", "202")
    assert made.owner_groups_exclude == ("9",)
    assert made.loopback_cidr == "127.0.0.1/8"


def test_resolvers_are_those_of_the_machine_unless_they_are_given():
    assert nameservers(RESOLV_CONF) == ("10.0.0.10", "2001:db8::10")
    assert wanted("--redirect-dns").dns_servers == ("10.0.0.10", "2001:db8::10")
    assert wanted("--redirect-dns", "--dns-servers", "10.0.0.11").dns_servers == ("10.0.0.11",)
    assert wanted("--redirect-dns", "--dns-servers", "").dns_servers == ()
    assert wanted().dns_servers == ()


def test_a_switch_may_say_true_or_false():
    assert wanted("--drop-invalid").drop_invalid
    assert wanted("--drop-invalid=true").drop_invalid
    assert not wanted("--drop-invalid=false", INVALID_DROP="true").drop_invalid


def test_cleanup_only_is_clean():
    assert options(["apply", "--cleanup-only"], {}, "").action == "clean"
    assert options(["check", "--cleanup-only"], {}, "").action == "check"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["-b", "80;reboot"], "-b: '80;reboot' is not a number"),
        (["-b", "80,*"], "-b: '*' is not a number"),
        (["-b", "٣"], "-b: '٣' is not a number"),
        (["-p", "15001,15002"], "-p: '15001,15002' is not a number"),
        (["-p", "0"], "-p: 0 is not a port"),
        (["-u", "envoy"], "-u: 'envoy' is not a number"),
        (["-x", "*"], "-x: * would exclude everything"),
        (["-m", "tproxy"], "-m: 'tproxy' is not one of REDIRECT, TPROXY"),
        (["-t", "0x539"], "-t: '0x539' is not a number"),
        (["--drop-invalid=maybe"], "--drop-invalid: 'maybe' is neither true nor false"),
        (["--native-nftables"], "--native-nftables: there are no such rules here: say --force-iptables-binary nft"),
        (["--force-iptables-binary", "ebpf"], "'ebpf' is not one of nft, legacy"),
        (["--ipv6", "yes"], "--ipv6: 'yes' is not one of auto, on, off"),
        (["--probe-timeout", "soon"], "--probe-timeout: 'soon' is not a duration"),
        (["--probe-timeout", "0s"], "--probe-timeout: between 1ms and 1h"),
        (["--iptables-probe-port", "70000"], "--iptables-probe-port: 70000 is not a port"),
        (["--no-such-flag"], "see windward-agent netfilter --help"),
        (["stray"], "see windward-agent netfilter --help"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_flag(argv, said):
    with pytest.raises(InterceptionError) as caught:
        options(["apply", *argv], {}, "")
    assert said in str(caught.value)


def test_help_names_every_flag_and_variable():
    text = parser().format_help()
    for names in (*FLAGS, *SWITCHES):
        assert f"--{names[1] if names in FLAGS else names[0]}" in text
    for name in ENVIRONMENT:
        assert name in text
