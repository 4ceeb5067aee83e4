from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from services.pilot.blame.search import bad_ones, bad_path


def find(items, bad):
    tried = []

    async def refused(kept):
        tried.append(list(kept))
        return bool(bad & set(kept))

    return asyncio.run(bad_ones(items, refused)), tried


@given(st.lists(st.integers(0, 60), unique=True, max_size=40), st.sets(st.integers(0, 60)))
def test_exactly_the_bad_ones_are_found(items, bad):
    found, _ = find(items, bad)
    assert found == [item for item in items if item in bad]


def test_one_bad_among_a_thousand_is_found_in_few_trials():
    found, tried = find(list(range(1000)), {617})
    assert found == [617]
    assert len(tried) <= 22


def test_what_is_only_bad_together_is_told_together():
    async def refused(kept):
        return {1, 2} <= set(kept)

    assert asyncio.run(bad_ones([0, 1, 2, 3], refused)) == [0, 1, 2, 3]
    assert asyncio.run(bad_ones([0, 3, 1, 2], refused)) == [1, 2]


def path_of(value, bad):
    """``bad`` is a text somewhere in the value: with it the value is refused, without it taken."""

    async def refused(changed):
        return bad in repr(changed)

    return asyncio.run(bad_path(value, refused, "spec"))


def test_the_smallest_field_is_found():
    spec = {
        "hosts": ["a"],
        "http": [
            {"route": [{"destination": {"host": "a"}}]},
            {"match": [{"uri": {"prefix": "/"}}, {"uri": {"regex": "BAD"}, "name": "m"}]},
        ],
    }
    assert path_of(spec, "BAD") == "spec.http[1].match[1].uri.regex"


def test_a_value_that_is_refused_whatever_is_left_out_is_to_blame_as_a_whole():
    async def refused(_):
        return True

    assert asyncio.run(bad_path({"a": 1, "b": [1]}, refused, "spec")) == "spec"


def test_what_says_nothing_is_passed_over():
    async def refused(changed):
        return None if "needed" not in changed else "bad" in changed

    assert asyncio.run(bad_path({"needed": 1, "bad": 2}, refused, "spec")) == "spec.bad"


def test_trials_are_bounded():
    tried = []

    async def refused(changed):
        tried.append(changed)
        return "last" in changed

    wide = {str(number): 0 for number in range(500)} | {"last": 0}
    assert asyncio.run(bad_path(wide, refused, "spec")) == "spec"
    assert len(tried) <= 200
