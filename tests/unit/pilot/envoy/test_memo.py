from __future__ import annotations

from services.pilot.envoy.memo import Memo
from windward.xds.resource import CLUSTER, Resource


def maker(body=b"x"):
    return lambda: Resource(CLUSTER, "c", body)


def test_built_once_for_equal_inputs():
    memo = Memo()
    first = memo.get("k", ((1, 2), "a"), maker())
    assert memo.get("k", ((1, 2), "a"), maker(b"never")) is first
    assert memo.built == 1


def test_built_again_for_other_inputs_and_kept_if_the_bytes_are_the_same():
    memo = Memo()
    first = memo.get("k", (1,), maker())
    assert memo.get("k", (2,), maker()) is first
    assert memo.get("k", (3,), maker(b"y")) is not first
    assert memo.built == 3


def test_what_nobody_asks_for_is_forgotten():
    memo = Memo()
    used, unused = memo.get("a", (1,), maker()), memo.get("b", (1,), maker())
    memo.sweep()
    memo.get("a", (1,), maker())
    memo.sweep()
    assert memo.get("a", (1,), maker()) is used
    assert memo.get("b", (1,), maker()) is not unused
