"""The rules of the xDS protocol's "How the client specifies what resources to return"."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from windward.xds.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE
from windward.xds.subscription import WILDCARD, Subscription

NAMES = st.lists(st.sampled_from(["a", "b", "c", WILDCARD]), max_size=4)


def a_subscription(type_url: str = CLUSTER) -> Subscription:
    return Subscription(type_url)


def test_a_first_delta_request_that_names_nothing_asks_for_everything():
    for type_url in (CLUSTER, LISTENER):
        subscription = a_subscription(type_url)
        subscription.subscribe(())
        assert subscription.wildcard
        assert subscription.wants("anything")


def test_types_that_are_asked_for_by_name_have_no_legacy_wildcard():
    for type_url in (ENDPOINT, ROUTE):
        subscription = a_subscription(type_url)
        subscription.subscribe(())
        assert not subscription.wants("anything")
        subscription.replace(())
        assert not subscription.wants("anything")


def test_a_star_asks_for_everything_of_any_type():
    subscription = a_subscription(ROUTE)
    subscription.subscribe((WILDCARD,))
    assert subscription.wants("anything")
    assert subscription.names == set()


def test_naming_something_ends_a_legacy_wildcard():
    subscription = a_subscription()
    subscription.subscribe(())
    subscription.subscribe(("a",))
    assert not subscription.wildcard
    assert subscription.wants("a")
    assert not subscription.wants("b")


def test_naming_something_beside_a_star_keeps_it():
    subscription = a_subscription()
    subscription.subscribe((WILDCARD,))
    subscription.subscribe(("a",))
    assert subscription.wants("b")
    subscription.unsubscribe((WILDCARD,))
    assert subscription.wants("a")
    assert not subscription.wants("b")


def test_naming_a_star_in_legacy_mode_makes_it_explicit():
    subscription = a_subscription()
    subscription.subscribe(())
    subscription.subscribe((WILDCARD, "a"))
    subscription.subscribe(("b",))
    assert subscription.wildcard
    assert subscription.names == {"a", "b"}


def test_an_empty_request_after_the_first_asks_for_nothing_new():
    subscription = a_subscription()
    subscription.subscribe(("a",))
    subscription.subscribe(())
    assert not subscription.wildcard


def test_unsubscribing_from_a_name_leaves_the_others():
    subscription = a_subscription(ENDPOINT)
    subscription.subscribe(("a", "b"))
    subscription.unsubscribe(("a", "never-named"))
    assert subscription.names == {"b"}


def test_a_sotw_request_replaces_the_whole_list():
    subscription = a_subscription(ENDPOINT)
    subscription.replace(("a", "b"))
    subscription.replace(("b", "c"))
    assert subscription.names == {"b", "c"}
    subscription.replace(())
    assert not subscription.wants("b")


def test_an_empty_sotw_list_stays_a_legacy_wildcard_until_something_is_named():
    subscription = a_subscription()
    seen = []
    for wanted in ((), (), ("a",), ()):
        subscription.replace(wanted)
        seen.append((subscription.wildcard, subscription.wants("a")))
    assert seen == [(True, True), (True, True), (False, True), (False, False)]


def test_a_sotw_star_is_dropped_by_a_list_without_it():
    subscription = a_subscription()
    subscription.replace((WILDCARD, "a"))
    assert subscription.wants("b")
    subscription.replace(("a",))
    assert not subscription.wants("b")


@given(st.lists(st.tuples(NAMES, NAMES), max_size=12))
def test_what_is_named_is_wanted_until_it_is_unsubscribed(steps):
    subscription = a_subscription(ENDPOINT)
    named: set[str] = set()
    star = False
    for subscribed, unsubscribed in steps:
        subscription.unsubscribe(unsubscribed)
        subscription.subscribe(subscribed)
        star = WILDCARD in subscribed or (star and WILDCARD not in unsubscribed)
        named = (named - set(unsubscribed)) | (set(subscribed) - {WILDCARD})
        assert subscription.names == named
        assert subscription.wildcard == star
        assert WILDCARD not in subscription.names


@given(st.lists(NAMES, min_size=1, max_size=8))
def test_a_sotw_subscription_remembers_only_the_last_list(lists):
    subscription = a_subscription(ROUTE)
    for wanted in lists:
        subscription.replace(wanted)
    assert subscription.names == set(lists[-1]) - {WILDCARD}
    assert subscription.wildcard == (WILDCARD in lists[-1])
