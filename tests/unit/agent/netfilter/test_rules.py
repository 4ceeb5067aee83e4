"""The rules: which there are for which setting, and in which order."""

from __future__ import annotations

from services.agent.netfilter.interception import AGENT_PORTS, ALL, Interception
from services.agent.netfilter.rules import CHAINS, Family, rules_of


def lines(wanted: Interception, table: str = "nat", family: Family = Family.V4) -> list[str]:
    return [rule.line for rule in rules_of(wanted, family) if rule.table == table]


def chain(wanted: Interception, name: str, table: str = "nat") -> list[str]:
    return [
        rule.spec
        for rule in rules_of(wanted, Family.V4)
        if (rule.table, rule.chain) == (table, name)
    ]


SIDECAR = Interception(inbound_ports=ALL, inbound_ports_exclude=AGENT_PORTS, outbound_cidrs=ALL)


def test_a_sidecars_rules_to_the_letter():
    assert lines(SIDECAR) == [
        "-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN",
        "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
        "-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006",
        "-A PREROUTING -p tcp -j ISTIO_INBOUND",
        "-A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN",
        "-A ISTIO_INBOUND -p tcp --dport 15021 -j RETURN",
        "-A ISTIO_INBOUND -p tcp --dport 15020 -j RETURN",
        "-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT",
        "-A OUTPUT -j ISTIO_OUTPUT",
        "-A ISTIO_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN",
        "-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT",
        "-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN",
        "-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN",
        "-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT",
        "-A ISTIO_OUTPUT -o lo -m owner ! --gid-owner 1337 -j RETURN",
        "-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN",
        "-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN",
        "-A ISTIO_OUTPUT -j ISTIO_REDIRECT",
    ]


def test_excluded_ports_come_before_everything_in_the_output_chain():
    wanted = Interception(outbound_cidrs=ALL, outbound_ports_exclude=(53, 5432))
    assert chain(wanted, "ISTIO_OUTPUT")[:4] == [
        "-p tcp --dport 53 -j RETURN",
        "-p udp --dport 53 -j RETURN",
        "-p tcp --dport 5432 -j RETURN",
        "-p udp --dport 5432 -j RETURN",
    ]


def test_excluded_ranges_come_before_included_ports_and_those_before_ranges():
    wanted = Interception(
        outbound_cidrs=("10.0.0.0/8",),
        outbound_cidrs_exclude=("10.9.0.0/16",),
        outbound_ports=(80,),
    )
    assert chain(wanted, "ISTIO_OUTPUT")[-3:] == [
        "-d 10.9.0.0/16 -j RETURN",
        "-p tcp --dport 80 -j ISTIO_REDIRECT",
        "-d 10.0.0.0/8 -j ISTIO_REDIRECT",
    ]


def test_inbound_exclusions_mean_something_only_when_all_ports_are_captured():
    listed = Interception(inbound_ports=(80,), inbound_ports_exclude=(22,))
    assert not any("22" in spec for spec in chain(listed, "ISTIO_INBOUND"))
    everything = Interception(inbound_ports=ALL, inbound_ports_exclude=(22,))
    assert "-p tcp --dport 22 -j RETURN" in chain(everything, "ISTIO_INBOUND")


def test_ranges_go_to_their_family():
    wanted = Interception(
        outbound_cidrs=("10.0.0.0/8", "2001:db8::/32"),
        outbound_cidrs_exclude=("192.0.2.0/24", "2001:db8:1::/48"),
        ipv6=True,
    )
    four, six = lines(wanted), lines(wanted, family=Family.V6)
    assert not any("2001" in line for line in four)
    assert not any("10.0" in line or "192" in line or "127.0" in line for line in six)
    assert "-A ISTIO_OUTPUT -d 2001:db8::/32 -j ISTIO_REDIRECT" in six


def test_without_ipv6_it_has_no_rules():
    assert rules_of(SIDECAR, Family.V6) == ()


def test_including_loopback_leaves_out_what_lets_the_applications_loopback_calls_pass():
    wanted = Interception(outbound_cidrs=("127.1.2.3/32",))
    assert not any(
        "! --uid-owner" in spec or "! --gid-owner" in spec for spec in chain(wanted, "ISTIO_OUTPUT")
    )


def test_only_one_owner_group_list_is_used():
    included = Interception(owner_groups=("202", "203"), owner_groups_exclude=("9",))
    text = "\n".join(lines(included))
    assert "-m owner ! --gid-owner 202 -m owner ! --gid-owner 203 -j RETURN" in text
    assert "--gid-owner 9 " not in text
    assert "-A ISTIO_OUTPUT -m owner --gid-owner 9 -j RETURN" in lines(
        Interception(owner_groups_exclude=("9",))
    )


def test_no_group_at_all_means_nothing_is_captured():
    assert "-A ISTIO_OUTPUT -j RETURN" in lines(Interception(owner_groups=()))


def test_all_dns_is_captured_without_naming_resolvers():
    wanted = Interception(redirect_dns=True, capture_all_dns=True, dns_servers=("10.0.0.10",))
    assert chain(wanted, "ISTIO_OUTPUT_DNS") == [
        "-p tcp --dport 53 -j REDIRECT --to-ports 15053",
        "-p udp --dport 53 -j REDIRECT --to-port 15053",
    ]
    assert chain(wanted, "ISTIO_INBOUND", "raw") == ["-p udp --sport 53 -j CT --zone 1"]


def test_resolvers_are_captured_one_by_one_each_in_its_family():
    wanted = Interception(redirect_dns=True, dns_servers=("10.0.0.10", "2001:db8::10"), ipv6=True)
    assert all("-d 10.0.0.10/32" in spec for spec in chain(wanted, "ISTIO_OUTPUT_DNS"))
    six = lines(wanted, family=Family.V6)
    assert (
        "-A ISTIO_OUTPUT_DNS -p udp --dport 53 -d 2001:db8::10/128 -j REDIRECT --to-port 15053"
        in six
    )


def test_tproxy_leaves_inbound_nat_alone():
    wanted = Interception(mode="TPROXY", inbound_ports=(80,), tproxy_mark=99)
    assert not any("PREROUTING" in line for line in lines(wanted))
    assert (
        "-A ISTIO_TPROXY ! -d 127.0.0.1/32 -p tcp -j TPROXY --tproxy-mark 99/0xffffffff --on-port 15006"
        in lines(wanted, "mangle")
    )


def test_every_chain_made_is_known_as_ours():
    everything = Interception(
        mode="TPROXY", inbound_ports=ALL, outbound_cidrs=ALL, redirect_dns=True, capture_all_dns=True,
        drop_invalid=True, exclude_interfaces=("eth1",), virtual_interfaces=("tap0",), ipv6=True,
    )  # fmt: skip
    made = {rule.chain for family in Family for rule in rules_of(everything, family)}
    redirect = {rule.chain for rule in rules_of(SIDECAR, Family.V4)}
    assert (made | redirect) - {"PREROUTING", "OUTPUT"} == set(CHAINS)
