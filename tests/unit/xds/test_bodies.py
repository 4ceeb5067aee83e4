"""A memo that only ever gives back what it was asked to make."""

from __future__ import annotations

from tests.unit.xds.meshes import a_resource
from windward.xds.bodies import GENERATION_S, Bodies
from windward.xds.envelope import delta_body, sotw_body
from windward.xds.resource import CLUSTER


def test_the_same_resources_at_the_same_version_are_spliced_once():
    bodies, resources = Bodies(), (a_resource(CLUSTER, "a"), a_resource(CLUSTER, "b"))
    first = bodies.body(delta_body, CLUSTER, resources, (), "1")
    again = bodies.body(delta_body, CLUSTER, tuple(resources), (), "1")
    assert first[0] is again[0]
    assert first[1] is again[1]
    assert first[0] == delta_body(CLUSTER, resources, (), "1")


def test_everything_that_a_body_depends_on_is_in_its_key():
    bodies, a, b = Bodies(), a_resource(CLUSTER, "a"), a_resource(CLUSTER, "b")
    made = [
        bodies.body(build, CLUSTER, resources, removed, version)[0]
        for build in (delta_body, sotw_body)
        for resources in ((a,), (b,), (a, b), (a_resource(CLUSTER, "a", "2"),))
        for removed in ((), ("x",))
        for version in ("1", "2")
    ]
    expected = [
        build(CLUSTER, resources, removed, version)
        for build in (delta_body, sotw_body)
        for resources in ((a,), (b,), (a, b), (a_resource(CLUSTER, "a", "2"),))
        for removed in ((), ("x",))
        for version in ("1", "2")
    ]
    assert made == expected


def test_a_full_memo_begins_anew():
    bodies = Bodies(limit_bytes=3000)
    kept = []
    for number in range(100):
        resource = a_resource(CLUSTER, "a", str(number) * 500)
        made, _ = bodies.body(delta_body, CLUSTER, (resource,), (), "1")
        assert made == delta_body(CLUSTER, (resource,), (), "1")
        kept.append(len(bodies))
    assert max(kept) <= 5


def test_what_nobody_asked_for_since_the_last_generation_is_let_go():
    bodies, used, left = Bodies(), (a_resource(CLUSTER, "a"),), (a_resource(CLUSTER, "b"),)
    bodies.age(0.0)
    first = bodies.body(delta_body, CLUSTER, used, (), "1")
    bodies.body(delta_body, CLUSTER, left, (), "1")
    bodies.age(GENERATION_S / 2)
    bodies.age(GENERATION_S)
    assert len(bodies) == 2
    assert bodies.body(delta_body, CLUSTER, used, (), "1") is first
    bodies.age(2 * GENERATION_S)
    assert len(bodies) == 1
    assert bodies.body(delta_body, CLUSTER, used, (), "1") is first
