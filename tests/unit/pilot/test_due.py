from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.pilot.due import REST, Due, Timing

TIMING = Timing(endpoint_s=0.005, quiet_s=0.010, longest_s=0.100)


def test_a_single_endpoint_waits_for_nobody():
    due = Due(TIMING)
    due.endpoints(1.0)
    assert due.at_s == 1.0


def test_endpoints_in_quick_succession_go_together():
    due = Due(TIMING)
    due.endpoints(1.0)
    assert due.take(1.0) == 1.0
    due.endpoints(1.001)
    due.endpoints(1.004)
    assert due.at_s == 1.005
    assert due.take(1.005) == 1.001


def test_what_is_urgent_does_not_wait():
    due = Due(TIMING)
    due.take(1.0)
    due.endpoints(1.001)
    due.now(1.002)
    assert due.at_s == 1.002


def test_configuration_waits_for_a_quiet_moment_but_not_for_ever():
    due = Due(TIMING)
    due.config(1.0)
    assert due.at_s == 1.010
    due.config(1.008)
    assert due.at_s == 1.018
    for step in range(9, 101):
        due.config(1.0 + step / 1000)
    assert due.at_s == 1.100


def test_configuration_holds_up_no_endpoint():
    due = Due(TIMING)
    due.config(1.0)
    due.endpoints(1.001)
    due.config(1.002)
    assert due.at_s == 1.001


def test_who_is_busy_reads_what_came_before_the_next():
    due = Due(TIMING)
    due.now(1.0)
    due.take(1.0)
    due.endpoints(1.030)
    due.done(1.060)
    assert due.at_s == pytest.approx(1.060 + REST * 0.060)
    due.now(1.070)
    assert due.at_s == pytest.approx(1.090), (
        "removals too: they go together with what comes meanwhile"
    )
    due.take(1.090)
    due.done(1.0901)
    due.now(2.0)
    assert due.at_s == 2.0, "who was idle waits for nobody"


@given(
    st.lists(
        st.tuples(st.sampled_from(["now", "endpoints", "config", "take"]), st.floats(0, 0.05)),
        max_size=60,
    )
)
def test_nothing_waits_longer_than_it_may(steps):
    due, now_s = Due(TIMING), 0.0
    waiting_since: float | None = None
    for what, later_s in steps:
        now_s += later_s
        if what == "take":
            due.take(now_s)
            waiting_since = None
        else:
            getattr(due, what)(now_s)
            waiting_since = now_s if waiting_since is None else waiting_since
        assert (due.at_s is None) == (waiting_since is None)
        if due.at_s is not None and waiting_since is not None:
            assert due.at_s <= max(now_s, waiting_since + TIMING.longest_s)
