"""What is read beside what is wanted."""

from __future__ import annotations

import pytest

from services.agent.netfilter.apply import apply
from services.agent.netfilter.interception import ALL, Interception
from services.agent.netfilter.rules import Family
from services.agent.netfilter.survey import survey

pytestmark = pytest.mark.root

TPROXY = Interception(mode="TPROXY", inbound_ports=ALL, ipv6=True, tproxy_mark=77, tproxy_table=78)
REDIRECT = Interception(inbound_ports=ALL)


def test_there_is_a_layer_for_each_family_in_each_iptables_and_rules_in_one_of_them(namespace):
    found = survey(namespace.host, TPROXY, wanted=True, forced="legacy")
    layers = {
        (layer.backend.family, layer.backend.kind): bool(layer.rules) for layer in found.layers
    }
    assert layers == {
        (family, kind): kind == "legacy" for family in Family for kind in ("nft", "legacy")
    }


def test_routing_of_loaded_marks_is_found_whatever_the_settings_are(namespace):
    apply(namespace.host, TPROXY)
    namespace.sh("ip rule add fwmark 78 lookup 79; ip route add local default dev lo table 79")
    stale = [
        line for line in survey(namespace.host, REDIRECT, wanted=True).lines() if "routing" in line
    ]
    assert stale == [
        "routing: unexpected: -6 addr add ::6/128 dev lo",
        "routing: unexpected: -6 rule add fwmark 77 lookup 78",
        "routing: unexpected: -6 route add local default dev lo table 78",
        "routing: unexpected: -4 rule add fwmark 77 lookup 78",
        "routing: unexpected: -4 route add local default dev lo table 78",
    ]


def test_an_address_without_rules_of_ours_is_somebody_elses(namespace):
    namespace.sh("ip -6 addr add ::6/128 dev lo")
    assert survey(namespace.host, REDIRECT, wanted=False).lines() == []
    assert survey(namespace.host, TPROXY, wanted=False).lines() == [
        "routing: unexpected: -6 addr add ::6/128 dev lo"
    ]
