"""The transactions: what goes first, and what a failure puts back. On a kernel: test_apply.py."""

from __future__ import annotations

from services.agent.netfilter.rules import Rule
from services.agent.netfilter.state import PROBE, Own
from services.agent.netfilter.transition import guard, needed, probes, replacement, reversal

OLD = Own(
    {"ISTIO_OUTPUT": ("-j RETURN",)},
    {"PREROUTING": ((2, "-i eth1 -j RETURN"),), "OUTPUT": ((1, "-j ISTIO_OUTPUT"),)},
)


def test_old_rules_go_and_new_ones_come_in_one_transaction():
    text = replacement(
        "nat", OLD, [Rule("nat", "ISTIO_OUTPUT", "-j ACCEPT"), Rule("raw", "OUTPUT", "-j ACCEPT")]
    )
    assert text.splitlines() == [
        "* nat",
        "-D PREROUTING -i eth1 -j RETURN",
        "-D OUTPUT -j ISTIO_OUTPUT",
        "-F ISTIO_OUTPUT",
        "-X ISTIO_OUTPUT",
        "-N ISTIO_OUTPUT",
        "-A ISTIO_OUTPUT -j ACCEPT",
        "COMMIT",
    ]


def test_nothing_old_and_nothing_new_is_no_transaction():
    assert replacement("nat", Own({}, {}), []) == ""
    assert reversal("nat", Own({}, {}), Own({}, {})) == ""


def test_what_was_there_comes_back_at_its_old_place():
    assert reversal("nat", Own({}, {}), OLD).splitlines() == [
        "* nat",
        "-N ISTIO_OUTPUT",
        "-A ISTIO_OUTPUT -j RETURN",
        "-I PREROUTING 2 -i eth1 -j RETURN",
        "-I OUTPUT 1 -j ISTIO_OUTPUT",
        "COMMIT",
    ]


def test_the_guard_comes_before_everybodys_rules():
    assert {rule.line for rule in guard() if rule.position} == {
        f"-I {chain} 1 -j WINDWARD_GUARD" for chain in ("INPUT", "FORWARD", "OUTPUT")
    }


def test_each_combination_of_extensions_is_asked_for_once_and_jumps_nowhere():
    rules = [
        Rule("nat", "ISTIO_OUTPUT", "-m owner --uid-owner 1 -j ISTIO_IN_REDIRECT"),
        Rule("nat", "ISTIO_OUTPUT", "-m owner --uid-owner 2 -j RETURN"),
        Rule("nat", "ISTIO_REDIRECT", "-p tcp -j REDIRECT --to-ports 1"),
        Rule("nat", "ISTIO_OUTPUT", "-d 10.0.0.0/8 -j RETURN"),
    ]
    assert probes(rules) == (
        Rule("nat", PROBE, "-m owner --uid-owner 1 -j RETURN"),
        Rule("nat", PROBE, "-p tcp -j REDIRECT --to-ports 1"),
    )
    assert needed(rules[0]) == ("xt_owner",)
