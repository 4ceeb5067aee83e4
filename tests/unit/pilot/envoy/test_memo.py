from __future__ import annotations

import itertools

import pytest

from services.pilot.envoy.memo import Memo
from windward.slices import at_once
from windward.xds.resource import CLUSTER, Resource


def maker(body=b"x"):
    return lambda: Resource(CLUSTER, "c", body)


def test_built_once_for_equal_inputs():
    memo = Memo()
    first = memo.get("host", "k", ((1, 2), "a"), maker())
    assert memo.get("host", "k", ((1, 2), "a"), maker(b"never")) is first
    assert memo.built == 1


def test_several_inputs_are_kept_side_by_side():
    memo = Memo()
    first = memo.get("host", "k", (1,), maker())
    other = memo.get("host", "k", (2,), maker(b"y"))
    assert memo.get("host", "k", (1,), maker(b"never")) is first
    assert memo.get("host", "k", (2,), maker(b"never")) is other


def test_other_inputs_with_the_same_outcome_are_one_object():
    memo = Memo()
    first = memo.get("host", "k", (1,), maker())
    assert memo.get("host", "k", (2,), maker()) is first
    assert memo.built == 2


def test_what_every_scope_does_alike_at_one_version_is_done_once():
    memo, numbers, of = Memo(), itertools.count(1), object()
    memo.version = 7
    key = (id(of), "replaced")
    for _ in range(3):
        assert memo.once(key, of, lambda: next(numbers)) == 1
    memo.version = 8
    assert memo.once(key, of, lambda: next(numbers)) == 2


def test_a_sweep_forgets_what_newer_values_stand_in_for():
    memo = Memo()
    old = memo.get("host", "k", (1,), maker(b"old"))
    untouched = memo.get("host", "other", (1,), maker(b"o"))
    memo.version = 2
    new = memo.get("host", "k", (2,), maker(b"new"))
    at_once(memo.sweep(["host", "never heard of"]))
    assert memo.get("host", "k", (2,), maker(b"never")) is new
    assert memo.get("host", "other", (1,), maker(b"never")) is untouched
    assert memo.get("host", "k", (1,), maker(b"old")) is not old


def test_of_many_hosts_others_get_their_turn_between_any_two():
    memo = Memo()
    for host in ("a", "b", "c"):
        memo.get(host, "k", (1,), maker(b"old"))
    memo.version = 2
    for host in ("a", "b", "c"):
        memo.get(host, "k", (2,), maker(b"new"))
    assert sum(1 for _ in memo.sweep(["a", "b", "c"])) == 3
    for host in ("a", "b", "c"):
        memo.get(host, "k", (1,), maker(b"new"))
    assert memo.built == 9, "what was swept is built again"


def test_a_host_that_is_gone_is_forgotten():
    memo = Memo()
    old = memo.get("host", "k", (1,), maker())
    memo.forget(["host", "never heard of"])
    assert memo.get("host", "k", (1,), maker()) is not old


def test_of_what_is_kept_for_use_nothing_else_stays():
    memo = Memo()
    old, used = memo.get("host", "k", (1,), maker()), memo.get("host", "other", (1,), maker())
    elsewhere = memo.get("elsewhere", "k", (1,), maker())
    memo.version = 2
    assert memo.get("host", "other", (1,), maker()) is used
    memo.keep_used("host")
    memo.keep_used("never heard of")
    assert memo.get("host", "other", (1,), maker()) is used
    assert memo.get("elsewhere", "k", (1,), maker()) is elsewhere
    assert memo.get("host", "k", (1,), maker()) is not old


def test_a_sweep_passes_over_what_could_not_be_built():
    def refuses():
        raise ValueError

    memo = Memo()
    with pytest.raises(ValueError):  # noqa: PT011  the builder's own
        memo.get("host", "k", (1,), refuses)
    at_once(memo.sweep(["host"]))
    assert memo.get("host", "k", (1,), maker()).body == b"x"
