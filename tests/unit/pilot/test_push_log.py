from __future__ import annotations

from services.pilot.push_log import MOST_SAMPLES, PushLog, short_name
from windward.config.object import ObjectKey
from windward.xds.resource import CLUSTER, ENDPOINT, ROUTE, Changes, ResourceSet

KEY = ObjectKey("networking.istio.io", "VirtualService", "shop", "reviews")


def a_set(version, *sinces):
    return ResourceSet.of(version, 1, {}, tuple(Changes(since, {}) for since in sinces))


def test_cause_and_effect_in_words():
    log = PushLog()
    push = log.begin(3, 7, 10.0, (KEY,), ())
    push.tell(12, {ROUTE: frozenset({"9080"})})
    assert push.cause() == "VirtualService shop/reviews changed"
    assert push.effect() == "1 route, 12 proxies, not accepted yet"
    log.accepted(a_set(3, 2), 2, 10.008)
    assert push.effect() == "1 route, 12 proxies, 8 ms"
    several = log.begin(4, 7, 11.0, (KEY,), (("shop", "reviews-v1"),))
    several.tell(1, {CLUSTER: frozenset({"a"}), ENDPOINT: frozenset({"a", "b"})})
    assert several.cause() == "VirtualService shop/reviews and 1 more changed"
    assert several.effect() == "1 cluster, 2 endpoint sets, 1 proxy, not accepted yet"
    nobody = log.begin(5, 7, 12.0, (), ())
    assert nobody.cause() == "time passed"
    assert nobody.effect() == "0 proxies", "there is nothing to accept"


def test_one_ack_is_counted_in_every_push_that_it_covers():
    log = PushLog()
    pushes = [log.begin(version, 1, float(version), (), ()) for version in (2, 3, 4, 5)]
    # The group differed at 2, 4 and 5; the stream had accepted 2.
    assert log.accepted(a_set(5, 4, 2, 1), 2, 10.0) == [5.0, 6.0]
    assert [push.accepted for push in pushes] == [0, 0, 1, 1]
    assert log.accepted(a_set(5, 4, 2, 1), 5, 11.0) == []


def test_percentiles_and_bounded_samples():
    log = PushLog()
    push = log.begin(1, 1, 0.0, (), ())
    assert push.percentile_s(0.5) is None
    for number in range(5001):
        log.accepted(a_set(1), 0, number / 50)  # the later a proxy is told, the longer it takes
    assert push.accepted == 5001
    assert len(push.samples_s) <= MOST_SAMPLES
    assert abs((push.percentile_s(0.5) or 0) - 50) < 2
    assert abs((push.percentile_s(0.99) or 0) - 99) < 2
    assert push.effect().endswith(" 100000 ms")


def test_the_last_push_of_an_object_and_the_newest_first():
    log = PushLog()
    first = log.begin(1, 1, 0.0, (KEY,), ())
    assert log.of(KEY) is first
    second = log.begin(2, 1, 0.0, (KEY,), ())
    assert log.of(KEY) is second
    assert list(log.latest(1)) == [second]
    assert list(log.latest(9)) == [second, first]
    assert log.of(ObjectKey("g", "k", "n", "other")) is None


def test_types_have_short_names():
    assert short_name(ROUTE) == "route"
    assert short_name("type.googleapis.com/x.y.Unheard") == "Unheard"
