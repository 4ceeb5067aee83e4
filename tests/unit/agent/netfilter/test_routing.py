"""Routing: which rules, routes and addresses, and whether they are there."""

from __future__ import annotations

from services.agent.netfilter.interception import ALL, Interception
from services.agent.netfilter.routing import Routing, marks_in, routing_of, tables_of_mark
from services.agent.netfilter.rules import Family

RULES = '[{"priority":0,"src":"all","table":"local"},{"priority":9,"src":"all","fwmark":"0x539","table":"133"},'
RULES += '{"priority":8,"src":"all","fwmark":"0x539","fwmask":"0xfff","table":"7"}]'


def commands(wanted: Interception) -> list[str]:
    return [" ".join(one.command("add")) for one in routing_of(wanted)]


def test_redirect_needs_none_and_ipv6_the_address_that_envoy_calls_from():
    assert commands(Interception(inbound_ports=ALL)) == []
    assert commands(Interception(inbound_ports=ALL, ipv6=True)) == ["ip -6 addr add ::6/128 dev lo"]


def test_tproxy_needs_a_rule_and_a_route_a_family():
    wanted = Interception(
        mode="TPROXY", inbound_ports=ALL, ipv6=True, tproxy_mark=7, tproxy_table=8
    )
    assert commands(wanted) == [
        "ip -6 addr add ::6/128 dev lo",
        "ip -4 route add local default dev lo table 8",
        "ip -4 rule add fwmark 7 lookup 8",
        "ip -6 route add local default dev lo table 8",
        "ip -6 rule add fwmark 7 lookup 8",
    ]


def test_tproxy_without_inbound_ports_needs_none():
    assert commands(Interception(mode="TPROXY")) == []


def test_what_is_there_is_read_from_what_ip_prints():
    rule, route = Routing(Family.V4, "rule", 1337, 133), Routing(Family.V4, "route", table=133)
    assert rule.found_in(RULES)
    assert not Routing(Family.V4, "rule", 1337, 134).found_in(RULES)
    assert not Routing(Family.V4, "rule", 1338, 133).found_in(RULES)
    assert tables_of_mark(RULES, 1337) == ("133",)
    assert route.found_in('[{"type":"local","dst":"default","dev":"lo"}]')
    assert not route.found_in('[{"dst":"default","dev":"eth0"}]')
    assert Routing(Family.V6, "addr").found_in('[{"ifname":"lo","addr_info":[{"local":"::6"}]}]')
    assert not Routing(Family.V6, "addr").found_in('[{"ifname":"lo","addr_info":[]},{}]')


def test_a_table_that_is_not_there_prints_no_json():
    assert not Routing(Family.V4, "route", table=133).found_in("[")
    assert not Routing(Family.V4, "rule", 1, 2).found_in("")


def test_marks_are_read_from_loaded_rules():
    spec = "-p tcp -j TPROXY --on-port 15006 --tproxy-mark 0x539/0xffffffff"
    assert marks_in([{"ISTIO_TPROXY": (spec, spec)}, {"OTHERS": (spec,)}, {}]) == (1337,)
