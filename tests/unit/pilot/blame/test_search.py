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
    assert asyncio.run(bad_path(wide, refused, "spec")) == "spec.last"
    assert len(tried) < 40


async def _taken_unless_bad_time(changed):
    """``time`` counts only where ``attempts`` does, and a direct response is needed."""
    if "answer" not in changed:
        return True
    retries = changed.get("retries", {})
    return retries.get("attempts", 0) > 0 and retries.get("time", "1s") != "1s"


def test_of_two_fields_without_which_it_is_taken_the_one_with_a_bad_value_is_to_blame():
    bad = {"answer": {"status": 1}, "retries": {"time": "-1s", "attempts": 2}}
    assert asyncio.run(bad_path(bad, _taken_unless_bad_time, "spec")) == "spec.retries.time"


def test_a_field_that_cannot_be_left_out_is_found_by_a_harmless_value_in_its_place():
    async def refused(changed):
        return changed.get("answer", {}).get("status") != 200

    bad = {"match": {"path": "/x"}, "answer": {"status": 99, "body": "b"}}
    assert asyncio.run(bad_path(bad, refused, "spec")) == "spec.answer.status"


def test_one_bad_item_of_a_thousand_takes_few_trials():
    tried = []

    async def refused(changed):
        tried.append(changed)
        return 777 in changed.get("items", ())

    bad = {"items": list(range(1000))}
    assert asyncio.run(bad_path(bad, refused, "spec")) == "spec.items[777]"
    assert len(tried) < 60
