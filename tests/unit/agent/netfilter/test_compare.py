"""What is said to differ."""

from __future__ import annotations

from services.agent.netfilter.compare import differences
from services.agent.netfilter.state import Own

WANTED = {
    "OUTPUT": ("-j ISTIO_OUTPUT",),
    "ISTIO_OUTPUT": ("-d 10.0.0.0/8 -j RETURN", "-p tcp --dport 80 -j RETURN"),
}
SAME = Own(
    {"ISTIO_OUTPUT": ("-d 10.0.0.0/8 -j RETURN", "-p tcp -m tcp --dport 80 -j RETURN")},
    {"OUTPUT": ((3, "-j ISTIO_OUTPUT"),)},
)


def test_the_same_in_another_spelling_does_not_differ():
    assert differences("nat", SAME, WANTED) == []


def test_nothing_wanted_nothing_there():
    assert differences("nat", Own({}, {}), {}) == []


def test_each_rule_too_many_or_too_few_is_a_line():
    own = Own({"ISTIO_OUTPUT": (SAME.chains["ISTIO_OUTPUT"][0], "-j RETURN")}, {})
    assert differences("nat", own, WANTED) == [
        "nat ISTIO_OUTPUT: unexpected: -j RETURN",
        "nat ISTIO_OUTPUT: missing: -p tcp --dport 80 -j RETURN",
        "nat OUTPUT: missing: -j ISTIO_OUTPUT",
    ]


def test_order_counts():
    own = Own({"ISTIO_OUTPUT": tuple(reversed(SAME.chains["ISTIO_OUTPUT"]))}, SAME.shared)
    [line] = differences("nat", own, WANTED)
    assert "not in this order: -d 10.0.0.0/8 -j RETURN; -p tcp --dport 80 -j RETURN" in line


def test_whole_chains_and_leftovers_are_a_line_each():
    own = Own({"ISTIO_DROP": ("-j DROP",), "WINDWARD_GUARD": (), "WINDWARD_PROBE": ()}, SAME.shared)
    assert differences("nat", own, WANTED) == [
        "nat ISTIO_DROP: unexpected chain of 1 rules",
        "nat ISTIO_OUTPUT: missing chain of 2 rules",
        "nat WINDWARD_GUARD: left over from an apply that was interrupted",
        "nat WINDWARD_PROBE: left over from an apply that was interrupted",
    ]
