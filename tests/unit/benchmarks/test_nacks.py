"""What the benchmark of bad objects says: its rows are held only when every trial was good."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.nacks.run import SEEDS, among_many, figures_of, rows
from benchmarks.nacks.seeds import AMONG_MANY, seeds
from benchmarks.nacks.trial import Outcome

GOOD = Outcome("a seed", sotw=False, first=False, seconds=0.1, by_envoy=True, mended=True)


def held(*odd: Outcome) -> list[bool]:
    return judged([GOOD] * (2 * SEEDS) + list(odd))


def judged(found: list[Outcome], many: tuple[Outcome, ...] = (GOOD,)) -> list[bool]:
    return [row.held for row in rows(figures_of(found, 0.0) | among_many(many))]


def test_all_good_is_held():
    assert all(held())
    assert all(held(replace(GOOD, by_envoy=False))), "one more, that cannot be built"


@pytest.mark.parametrize(
    "odd",
    [
        replace(GOOD, seconds=None),
        replace(GOOD, seconds=1.5),
        replace(GOOD, wrongly=["VirtualService/shop/other"]),
        replace(GOOD, held_back=[("proxy", "type", "name")]),
        replace(GOOD, mended=False),
    ],
    ids=["never", "late", "wrongly", "held back", "not mended"],
)
def test_one_bad_trial_is_not(odd):
    assert not all(held(odd))


def test_without_enough_that_envoy_refuses_the_rest_says_little():
    few = [GOOD] * (2 * SEEDS - 1) + [replace(GOOD, by_envoy=False)]
    assert not all(judged(few))


def test_without_a_single_attribution_there_is_no_time():
    figures = figures_of([], 0.0) | among_many(())
    assert not any(row.held for row in rows(figures) if "p99" in row.name)


def test_what_is_held_back_among_many_is_not_held_either():
    assert not all(judged([GOOD] * 2 * SEEDS, (GOOD, replace(GOOD, mended=False))))


def test_seeds_have_names_of_their_own_and_are_more_than_the_bar_asks_for():
    names = [seed.name for seed in seeds()]
    assert len(set(names)) == len(names) >= SEEDS
    assert set(AMONG_MANY) <= set(names)
    assert sum(seed.first for seed in seeds()) >= len(names) // 5
