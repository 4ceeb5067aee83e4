"""Copies made ahead of time: each is given once, and is like one that is made when it is asked for."""

from __future__ import annotations

from services.pilot.ahead import Ahead


def test_a_prepared_copy_is_given_once_and_is_the_callers_own():
    ahead, held = Ahead(), {"a": 1}
    ahead.prepare([held])
    first, second = ahead.copy(held), ahead.copy(held)
    assert first == second == held
    first["b"] = 2
    assert second == held == {"a": 1}


def test_what_was_not_prepared_is_copied_all_the_same():
    ahead, held = Ahead(), {"a": 1}
    ahead.prepare([{"a": 1}])
    made = ahead.copy(held)
    assert made == held
    assert made is not held


def test_a_copy_is_of_the_very_map_and_the_latest_preparation_counts():
    ahead, old, new = Ahead(), {"a": 1}, {"a": 2}
    ahead.prepare([old])
    ahead.prepare([new])
    assert ahead.copy(old) == {"a": 1}
    assert ahead.copy(new) == {"a": 2}
