"""The text for ``iptables-restore``."""

from __future__ import annotations

from services.agent.netfilter.restore import jump, restore_text
from services.agent.netfilter.rules import Rule


def test_tables_by_name_chains_first_rules_in_order():
    rules = (
        Rule("nat", "OUTPUT", "-j ISTIO_OUTPUT"),
        Rule("mangle", "ISTIO_DROP", "-j DROP"),
        Rule("nat", "ISTIO_OUTPUT", "-d 127.0.0.1/32 -j RETURN"),
        Rule("nat", "ISTIO_OUTPUT", "-j RETURN", 1),
    )
    assert restore_text(rules) == (
        "* mangle\n-N ISTIO_DROP\n-A ISTIO_DROP -j DROP\nCOMMIT\n"
        "* nat\n-N ISTIO_OUTPUT\n-A OUTPUT -j ISTIO_OUTPUT\n"
        "-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN\n-I ISTIO_OUTPUT 1 -j RETURN\nCOMMIT\n"
    )


def test_a_chain_that_is_only_jumped_to_is_made_too():
    assert "-N ISTIO_OUTPUT_DNS\n" in restore_text([Rule("raw", "OUTPUT", "-j ISTIO_OUTPUT_DNS")])


def test_no_rules_no_text():
    assert restore_text(()) == ""


def test_verdicts_and_targets_with_options_are_no_jumps():
    assert jump("-p tcp -j ISTIO_INBOUND") == "ISTIO_INBOUND"
    assert jump("-p tcp -j RETURN") == ""
    assert jump("-p tcp -j REDIRECT --to-ports 15001") == ""
    assert jump("") == ""
