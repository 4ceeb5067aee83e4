from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from services.pilot.blame.search import NO_NAMES, Names, bad_fields, bad_ones, bad_path


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


def fields(value, refused, names=NO_NAMES):
    found = asyncio.run(bad_fields(value, refused, "spec", names))
    return [(item.path, item.sure) for item in found]


def test_a_harmless_value_says_more_than_that_all_is_well_without_something_else():
    """Without endpoints nobody looks at the ports of endpoints: that does not make the endpoints bad."""

    async def refused(changed):
        ports = [port.get("target", 80) for port in changed.get("ports", ())]
        return bool(changed.get("endpoints")) and max(ports, default=80) > 65535

    bad = {"endpoints": [{"address": "10.0.0.2"}], "ports": [{"name": "http", "target": 70000}]}
    assert fields(bad, refused) == [("spec.ports[0].target", True)]


def test_what_says_where_it_applies_is_only_to_blame_when_nothing_else_is():
    async def elsewhere(changed):
        """Taken where it does not apply at all."""
        return changed.get("hosts") == ["a", "b\n"] and "good" not in changed

    spec = {"hosts": ["a", "b\n"], "http": [{"name": "x"}]}
    assert fields(spec, elsewhere, Names(placing={"hosts"})) == [("spec.hosts[0]", True)]

    async def of_http(changed):
        return changed.get("hosts") == ["a", "b\n"] and {"re": "(("} in changed.get("http", [])

    bad = {"hosts": ["a", "b\n"], "http": [{"re": "(("}]}
    assert fields(bad, of_http, Names(placing={"hosts"})) == [("spec.http[0].re", True)]


def test_the_name_of_an_entry_is_told_from_its_value():
    async def refused(changed):
        return any("\n" in key for key in changed.get("set", {}))

    assert fields({"set": {"a\n": "v", "b": "w"}}, refused) == [("spec.set.a\n", True)]


def test_too_many_of_what_is_good_is_put_down_to_the_list():
    async def refused(changed):
        return len(changed.get("endpoints", ())) > 1

    many = {"mode": "ONE", "endpoints": [{"address": "a"}, {"address": "b"}]}
    assert fields(many, refused) == [("spec.endpoints", True)]


@given(st.sets(st.integers(0, 5), min_size=1), st.integers(2, 4))
def test_all_of_several_bad_fields_are_found(bad, width):
    """Fields spread over lists, each refused by itself: places stay what they are while others are left out."""
    spec = {
        "rows": [
            {"cells": [f"{'BAD' if cell in bad else 'good'}{cell}" for cell in row]}
            for row in (range(at, min(at + width, 6)) for at in range(0, 6, width))
        ]
    }

    async def refused(changed):
        return "BAD" in repr(changed)

    found = fields(spec, refused)
    assert {path for path, _ in found} == {
        f"spec.rows[{cell // width}].cells[{cell % width}]" for cell in bad
    }
    assert len(found) == len(bad)


@settings(max_examples=25)
@given(st.sets(st.integers(0, 99), min_size=1, max_size=4))
def test_several_bad_ones_of_a_long_row_are_all_found(bad):
    spec = {
        "http": [{"re": "BAD" if row in bad else "ok", "to": {"host": "a"}} for row in range(100)]
    }

    async def refused(changed):
        return "BAD" in repr(changed)

    found = fields(spec, refused)
    assert {path for path, _ in found} == {f"spec.http[{row}].re" for row in bad}


def test_too_many_entries_are_put_down_to_what_has_them():
    async def refused(changed):
        return len(changed.get("set", ())) > 1000

    many = {"to": "a", "set": {f"x-{number}": "v" for number in range(1001)}}
    assert fields(many, refused) == [("spec.set", True)]


def test_what_cannot_be_left_out_is_looked_into():
    """Without servers there is nothing to refuse; a hash has no value that is harmless anywhere."""

    async def refused(changed):
        servers = changed.get("servers")
        if not servers or not all(server.keys() <= {"port", "hashes"} for server in servers):
            return None
        return any("hashes" in server for server in servers)

    bad = {"servers": [{"port": 1}, {"port": 1, "hashes": ["zz"]}]}
    assert fields(bad, refused) == [("spec.servers[1].hashes", False)]
    assert fields({"servers": bad["servers"][1:]}, refused) == [("spec.servers[0].hashes", False)]
