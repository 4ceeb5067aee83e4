"""What is held is what Envoy accepted; whoever keeps it is told of every change and of nothing else."""

from __future__ import annotations

from services.agent.xds_proxy.cache import Cache, Held
from windward.xds.resource import CLUSTER, ENDPOINT

ONE, TWO = Held("1", b"one"), Held("2", b"two")


def test_changes_are_told_and_repetitions_are_not():
    told: list[int] = []
    cache = Cache()
    cache.on_change = lambda: told.append(cache.changes)
    cache.accept(CLUSTER, {"a": ONE}, (), set())
    cache.accept(CLUSTER, {"a": ONE}, (), set())
    cache.accept(CLUSTER, {"a": TWO}, (), set())
    cache.accept(CLUSTER, {}, ("a",), {"a"})
    cache.accept(CLUSTER, {}, ("a",), {"a"})
    cache.forget(CLUSTER, ["a"])
    cache.forget(CLUSTER, ["a"])
    assert told == [1, 2, 3, 4]


def test_a_frozen_copy_stays_as_it_was_and_leaves_out_what_nobody_has_answered():
    cache = Cache()
    cache.of(ENDPOINT)
    cache.accept(CLUSTER, {"a": ONE}, (), {"b"})
    frozen = cache.frozen()
    cache.accept(CLUSTER, {"a": TWO, "b": TWO}, (), set())
    assert frozen.keys() == {CLUSTER}
    assert frozen[CLUSTER].resources == {"a": ONE}
    assert frozen[CLUSTER].missing == {"b"}


def test_the_last_that_a_pilot_said_of_the_store_counts():
    cache = Cache(revision="7.7")
    for seen, now in (("9.8", "9.8"), ("", "9.8"), ("3.3", "3.3")):
        cache.saw(seen)
        assert cache.revision == now
