"""Agents spread over Pilots, leave one at once, and wait ever longer when none answers."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from services.agent.xds_proxy.pilots import (
    FIRST_BACKOFF_S,
    LONGEST_BACKOFF_S,
    SPREAD_S,
    Attempts,
    in_random_order,
)


def test_agents_spread_over_all_pilots():
    addresses = ("a:1", "b:1", "c:1")
    firsts = Counter(in_random_order(addresses, Random(seed))[0] for seed in range(300))
    assert set(firsts) == set(addresses)
    assert min(firsts.values()) > 60
    assert set(in_random_order(addresses, Random(1))) == set(addresses)


@given(st.integers(1, 5), st.integers(0, 2**32))
def test_all_are_tried_before_anyone_waits_long(count, seed):
    attempts = Attempts(count, Random(seed))
    for _ in range(count - 1):
        assert attempts.wait_s() <= SPREAD_S
    waits = [attempts.wait_s() for _ in range(30 * count)]
    rounds = waits[::count]
    for number, wait in enumerate(rounds):
        longest = min(FIRST_BACKOFF_S * 2**number, LONGEST_BACKOFF_S)
        assert 0.5 * longest <= wait <= 1.5 * longest
    assert max(waits) <= 1.5 * LONGEST_BACKOFF_S


def test_one_pilot_that_served_is_tried_again_soon():
    attempts = Attempts(1, Random(1))
    for _ in range(10):
        last = attempts.wait_s()
    assert last > 1
    attempts.served()
    assert attempts.wait_s() <= 1.5 * FIRST_BACKOFF_S


def test_agents_do_not_come_in_step():
    assert len({Attempts(3, Random(seed)).wait_s() for seed in range(100)}) == 100
