"""Exchanging endpoints: what ``advance`` would have made of the same change, at once and in shared maps."""

from __future__ import annotations

from services.pilot.envoy.memo import Memo
from services.pilot.envoy.outbound import Scope, Shape
from services.pilot.envoy.scope import ScopeResources
from services.pilot.snapshot import Delta, MeshSnapshot
from tests.unit.pilot.envoy.test_name_table import HEADLESS, endpoint
from tests.unit.pilot.mesh import OPTIONS
from windward.slices import at_once
from windward.xds.resource import NAME_TABLE

HOST = HEADLESS.host


def snapshot(version, *endpoints) -> MeshSnapshot:
    return MeshSnapshot(
        version=version, services={HOST: HEADLESS}, endpoints={HOST: tuple(endpoints)}
    )


def scopes(memo, before):
    memo.version = before.version
    made = [
        ScopeResources(Scope(Shape.INTERCEPTED, namespace), OPTIONS, memo)
        for namespace in ("shop", "other")
    ]
    for item in made:
        at_once(item.build(before))
    return made


def test_a_resource_may_go_and_come_with_the_endpoints():
    memo, some, none = Memo(), snapshot(1, endpoint("10.0.0.1")), snapshot(2)
    one, other = scopes(memo, some)
    held = one.made
    for version, now in ((2, none), (3, snapshot(3, endpoint("10.0.0.2")))):
        memo.version = version
        for scope in (one, other):
            scope.exchange(now, [HOST])
            fresh = ScopeResources(scope.scope, OPTIONS, Memo())
            at_once(fresh.build(now))
            assert scope.made == fresh.made
            assert scope.changed == {NAME_TABLE: {HOST}}
            assert scope.touched == {HOST}
    assert HOST in held[NAME_TABLE], "what streams hold on to stays as it was"


def test_exchanging_is_advancing():
    memo, before, now = Memo(), snapshot(1, endpoint("10.0.0.1")), snapshot(2)
    one, other = scopes(memo, before)
    memo.version = now.version
    one.exchange(now, [HOST])
    at_once(other.advance(now, Delta(endpoints=frozenset({HOST}))))
    assert one.made == other.made
    assert one.changed == other.changed


def test_what_is_out_of_sight_is_left_alone():
    memo, before = Memo(), snapshot(1, endpoint("10.0.0.1"))
    one, _ = scopes(memo, before)
    made = one.made
    one.exchange(snapshot(2), ["elsewhere.example.com"])
    assert one.made is made
    assert not one.touched
    assert not one.changed
