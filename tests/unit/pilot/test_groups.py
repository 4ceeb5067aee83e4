from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from services.pilot.groups import Groups, group_key
from services.pilot.model.proxy import Interception, ProxyType
from tests.unit.pilot.mesh import (
    OPTIONS,
    REVIEWS,
    direct,
    make,
    service_entry,
    sidecar,
    snap,
    workload,
)
from tests.unit.pilot.watched import Watched
from windward.identity.spiffe_id import workload_id
from windward.xds import resource as xds

NAME = f"outbound|9080||{REVIEWS}"


@pytest.fixture
def groups() -> Groups:
    return Groups(OPTIONS)


async def test_the_first_of_a_group_is_served_at_once(groups):
    await groups.publish(snap(service_entry(), revision=5))
    view = Watched(groups, sidecar())
    assert (view.current.version, view.current.revision) == (1, 5)
    assert NAME in view.current.by_type[xds.CLUSTER]


async def test_proxies_of_one_group_share_one_set(groups):
    first = Watched(groups, sidecar())
    second = Watched(groups, replace(sidecar(), id="another", name="another"))
    assert first.current is second.current


async def test_groups_of_one_scope_share_resources(groups):
    await groups.publish(snap(service_entry(), workloads=[workload()]))
    one = Watched(groups, sidecar("127.7.0.9")).current.by_type
    other = Watched(groups, sidecar("127.7.0.2", account="reviews")).current.by_type
    for type_url, name in (
        (xds.CLUSTER, NAME),
        (xds.ENDPOINT, NAME),
        (xds.ROUTE, "9080"),
        (xds.LISTENER, "virtualOutbound"),
    ):
        assert one[type_url][name] is other[type_url][name]
    assert one[xds.LISTENER]["virtualInbound"] != other[xds.LISTENER]["virtualInbound"]


ME = sidecar()
LOOK_ALIKES = [
    replace(ME, namespace="evil"),
    replace(ME, service_account="evil"),
    replace(ME, address="127.7.0.66"),
    replace(ME, labels=(("app", "evil"),)),
    replace(ME, type=ProxyType.ROUTER),
    replace(ME, interception=Interception.NONE),
    replace(ME, app_address="127.0.0.66"),
    replace(ME, identity=None),
    replace(ME, identity=workload_id("evil.example", "shop", "caller")),
]


@pytest.mark.parametrize("other", LOOK_ALIKES)
async def test_a_proxy_that_differs_in_anything_is_of_another_group(groups, other):
    assert group_key(other) != group_key(ME)
    mine, theirs = Watched(groups, ME), Watched(groups, other)
    assert mine.current is not theirs.current


async def test_nothing_of_one_namespace_reaches_another(groups):
    await groups.publish(snap(service_entry(exportTo=["."]), workloads=[workload()]))
    assert NAME in Watched(groups, sidecar()).current.by_type[xds.CLUSTER]
    hostile = Watched(groups, sidecar("127.7.0.2", namespace="evil", account="reviews")).current
    assert not hostile.by_type[xds.ENDPOINT]
    assert "9080" not in hostile.by_type[xds.ROUTE]


async def test_waiting_for_what_is_newer(groups):
    view = Watched(groups, sidecar())
    waiting = asyncio.create_task(view.changed(view.current.version))
    await asyncio.sleep(0)
    assert not waiting.done()
    await groups.publish(snap(service_entry()))
    made = await asyncio.wait_for(waiting, 5)
    assert made is view.current
    assert made.version == 1
    assert await view.changed(0) is made


async def test_many_wait_for_one_change(groups):
    views = [Watched(groups, sidecar()) for _ in range(5)]
    waiting = [asyncio.create_task(view.changed(0)) for view in views]
    await asyncio.sleep(0)
    await groups.publish(snap())
    made = await asyncio.wait_for(asyncio.gather(*waiting), 5)
    assert all(item is made[0] for item in made)


async def test_an_endpoint_changes_one_resource(groups):
    objects = [service_entry(), service_entry("ratings")]
    before = snap(*objects, workloads=[workload()])
    await groups.publish(before)
    view = Watched(groups, sidecar())
    old = view.current.by_type
    moved = snap(*objects, workloads=[workload(address="127.7.0.3")], before=before)
    await groups.publish(moved)
    new = view.current.by_type
    changed = [
        (type_url, name)
        for type_url, named in new.items()
        for name, item in named.items()
        if old[type_url].get(name) is not item
    ]
    assert changed == [(xds.ENDPOINT, NAME)]


async def test_a_snapshot_without_a_difference_changes_no_resource(groups):
    policy = make("PeerAuthentication", "default", {"mtls": {"mode": "STRICT"}})
    first = snap(service_entry(), policy, workloads=[workload()])
    await groups.publish(first)
    view = Watched(groups, direct("127.7.0.2", account="reviews"))
    old = view.current.by_type
    await groups.publish(snap(service_entry(), policy, workloads=[workload()], before=first))
    assert view.current.version == 2
    for type_url, named in view.current.by_type.items():
        assert all(item is old[type_url][name] for name, item in named.items())


async def test_a_group_ends_with_its_last_member(groups):
    first, second = Watched(groups, sidecar()), Watched(groups, sidecar())
    shared = second.current
    first.detach()
    first.detach()
    third = Watched(groups, sidecar())
    assert third.current is shared
    second.detach()
    third.detach()
    assert Watched(groups, sidecar()).current is not shared


async def test_who_left_is_not_woken(groups):
    gone, stays = Watched(groups, sidecar()), Watched(groups, sidecar())
    gone.detach()
    await groups.publish(snap(service_entry()))
    assert (gone.wakes, stays.wakes) == (0, 1)
