"""Which Sidecar applies to a proxy, and which hosts it leaves in sight."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.pilot.model.sidecar_scope import EVERYTHING, EgressScope, Sidecars, egress_scope
from tests.unit.pilot.mesh import make
from windward.config.hosts import matches

ROOT = "istio-system"
HOSTS = ("a.com", "b.com", "x.a.com", "y.x.a.com", "*.a.com", "*.com")
NAMESPACES = ("shop", "pay", ROOT)
host = st.sampled_from(HOSTS)
namespace = st.sampled_from(NAMESPACES)
place = st.sampled_from((*NAMESPACES, ".", "*", "~", "~shop", "~pay"))
entries = st.lists(
    st.tuples(place, st.sampled_from((*HOSTS, "*"))).map("/".join), min_size=1, max_size=6
)
labels = st.dictionaries(st.sampled_from("ab"), st.sampled_from("12"), max_size=2)


def a_sidecar(name: str = "x", *hosts: str, **more: Any) -> Any:
    selector = more.pop("selector", None)
    spec: dict[str, Any] = {"egress": [{"hosts": list(hosts) or ["./*"]}]}
    if selector is not None:
        spec["workloadSelector"] = {"labels": selector}
    return make("Sidecar", name, spec, **more)


@pytest.mark.parametrize(
    ("hosts", "seen", "unseen"),
    [
        (["*/*"], [("a.com", "shop"), ("*.a.com", "pay")], []),
        (["./*"], [("a.com", "shop"), ("*.a.com", "shop")], [("a.com", "pay")]),
        (["pay/*"], [("a.com", "pay")], [("a.com", "shop")]),
        (["~/*"], [], [("a.com", "shop"), ("a.com", "pay")]),
        (["*/a.com"], [("a.com", "shop"), ("a.com", "pay")], [("b.com", "shop"), ("x.a.com", "shop")]),
        (["./*.a.com"], [("x.a.com", "shop"), ("y.x.a.com", "shop"), ("*.a.com", "shop"), ("*.x.a.com", "shop")],
         [("a.com", "shop"), ("x.a.com", "pay"), ("*.com", "shop"), ("xa.com", "shop")]),
        (["pay/a.com", "./*"], [("a.com", "pay"), ("b.com", "shop")], [("b.com", "pay")]),
        (["*/*", "~pay/*"], [("a.com", "shop")], [("a.com", "pay")]),
        (["*/*", "~pay/*.a.com"], [("a.com", "pay"), ("x.a.com", "shop")], [("x.a.com", "pay")]),
    ],
)  # fmt: skip
def test_what_hosts_mean(
    hosts: list[str], seen: list[tuple[str, str]], unseen: list[tuple[str, str]]
) -> None:
    scope = egress_scope(a_sidecar("x", *hosts), "shop")
    assert all(scope.allows(*one) for one in seen)
    assert not any(scope.allows(*one) for one in unseen)


def test_own_namespace_is_the_proxys_also_in_the_roots_sidecar() -> None:
    sidecars = Sidecars.of([a_sidecar("x", "./*", namespace=ROOT)], ROOT)
    scope = sidecars.scope("shop", {})
    assert scope.allows("a.com", "shop")
    assert not scope.allows("a.com", ROOT)


def test_without_a_sidecar_everything_is_seen() -> None:
    assert Sidecars.of([], ROOT).scope("shop", {}) is EVERYTHING
    assert EVERYTHING.allows("a.com", "anywhere")


def test_the_selectors_come_first_then_the_namespace_then_the_root() -> None:
    young = a_sidecar("young", selector={"app": "a"}, born=5)
    old = a_sidecar("old", selector={"app": "a", "v": "1"}, born=3)
    own, later = a_sidecar("own", born=9), a_sidecar("later", born=10)
    mesh = a_sidecar("mesh", namespace=ROOT, born=1)
    only_there = a_sidecar("there", namespace=ROOT, selector={"app": "a"}, born=0)
    found = Sidecars.of([later, own, mesh, only_there, young, old], ROOT)
    assert found.applies_to("shop", {"app": "a", "v": "1"}) is old
    assert found.applies_to("shop", {"app": "a"}) is young
    assert found.applies_to("shop", {"app": "b"}) is own
    assert found.applies_to("pay", {"app": "a"}) is mesh
    assert found.applies_to(ROOT, {"app": "a"}) is only_there
    assert found.applies_to(ROOT, {}) is mesh


def test_a_selector_without_labels_is_none() -> None:
    plain = a_sidecar("plain", selector={})
    assert Sidecars.of([plain], ROOT).applies_to("shop", {"app": "a"}) is plain


def slow_allows(listed: list[str], own: str, name: str, of: str) -> bool:
    """The rules as the documentation says them, entry by entry."""

    def covers(place: str, pattern: str) -> bool:
        return place in ("*", of) and matches(pattern, name)

    pairs = [entry.split("/") for entry in listed]
    shown = any(
        covers(own if place == "." else place, pattern)
        for place, pattern in pairs
        if not place.startswith("~")
    )
    hidden = any(
        covers(place[1:], pattern)
        for place, pattern in pairs
        if place.startswith("~") and place != "~"
    )
    return shown and not hidden


@given(entries, namespace, host, namespace)
def test_allows_is_what_the_entries_say_one_by_one(
    listed: list[str], own: str, name: str, of: str
) -> None:
    scope = egress_scope(a_sidecar("x", *listed), own)
    assert scope.allows(name, of) == slow_allows(listed, own, name, of)


@given(entries, namespace, st.randoms(use_true_random=False))
def test_scopes_that_list_the_same_are_one(
    listed: list[str], own: str, chance: random.Random
) -> None:
    mixed = list(dict.fromkeys(listed))
    chance.shuffle(mixed)
    one = egress_scope(a_sidecar("x", *listed), own)
    other = egress_scope(a_sidecar("y", *mixed, namespace="pay"), own)
    assert one == other
    assert hash(one) == hash(other)


@given(entries, entries, namespace, host, namespace)
def test_more_entries_show_more_and_exclusions_show_less(
    listed: list[str], more: list[str], own: str, name: str, of: str
) -> None:
    shown = [entry for entry in more if not entry.startswith("~")]
    hidden = [entry for entry in more if entry.startswith("~")]
    scope = egress_scope(a_sidecar("x", *listed), own)
    if scope.allows(name, of):
        assert egress_scope(a_sidecar("x", *listed, *shown), own).allows(name, of)
    else:
        assert not egress_scope(a_sidecar("x", *listed, *hidden), own).allows(name, of)


given_sidecars = st.lists(
    st.tuples(namespace, st.none() | labels, st.integers(0, 3)), max_size=6
).map(
    lambda made: [
        a_sidecar(f"s{index}", namespace=of, selector=selector, born=born)
        for index, (of, selector, born) in enumerate(made)
    ]
)


@given(given_sidecars, namespace, labels, st.randoms(use_true_random=False))
def test_the_choice_is_the_least_by_rank_in_any_order(
    made: list[Any], own: str, mine: dict[str, str], chance: random.Random
) -> None:
    def rank(item: Any) -> tuple[Any, ...]:
        selector = item.spec.workload_selector
        selects = bool(selector and selector.labels)
        level = 0 if selects else 1 if item.key.namespace == own else 2
        return (level, item.created_at, item.key.name)

    def fits(item: Any) -> bool:
        selector = item.spec.workload_selector.labels if item.spec.workload_selector else {}
        if item.key.namespace == own:
            return selector.items() <= mine.items()
        return item.key.namespace == ROOT and not selector

    expected = min(filter(fits, made), key=rank, default=None)
    chance.shuffle(made)
    assert Sidecars.of(made, ROOT).applies_to(own, mine) is expected


def test_a_scope_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        EgressScope().included = frozenset()  # type: ignore[misc]
