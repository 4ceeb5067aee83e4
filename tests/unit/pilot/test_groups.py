from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from services.pilot import groups as module
from services.pilot.credentials.credential import Credential
from services.pilot.group import group_key
from services.pilot.groups import Groups
from services.pilot.model.proxy import Interception, Proxy, ProxyType
from services.pilot.state import MeshState
from tests.unit.pilot.mesh import (
    OPTIONS,
    REVIEWS,
    change,
    direct,
    generate,
    make,
    port,
    router,
    service_entry,
    sidecar,
    workload,
)
from tests.unit.pilot.watched import Watched, watch
from windward.api.istio.networking.nds.v1 import nds_pb2
from windward.identity.spiffe_id import workload_id
from windward.slices import Turns
from windward.xds import resource as xds

NAME = f"outbound|9080||{REVIEWS}"


class Mesh:
    """Groups, and the state that they follow."""

    def __init__(self) -> None:
        self.groups = Groups(OPTIONS)
        self.state = MeshState()

    async def change(self, *objects, **more) -> int:
        """How many groups had other resources for it."""
        delta = change(self.state, *objects, **more)
        return await self.groups.publish(self.state.snapshot, delta)

    async def watch(self, proxy: Proxy) -> Watched:
        return await watch(self.groups, proxy)


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


def differing(old, new):
    return [
        (type_url, name)
        for type_url in {**old, **new}
        for name in {**old.get(type_url, {}), **new.get(type_url, {})}
        if old.get(type_url, {}).get(name) is not new.get(type_url, {}).get(name)
    ]


async def test_the_first_of_a_group_is_served_at_once(mesh):
    await mesh.change(service_entry(), revision=5)
    view = await mesh.watch(sidecar())
    assert (view.current.version, view.current.revision) == (1, 5)
    assert NAME in view.current.by_type[xds.CLUSTER]


async def test_proxies_of_one_group_share_one_set(mesh):
    first = await mesh.watch(sidecar())
    second = await mesh.watch(replace(sidecar(), id="another", name="another"))
    assert first.current is second.current


async def test_groups_of_one_scope_share_resources(mesh):
    await mesh.change(service_entry(), workloads=[workload()])
    one = (await mesh.watch(sidecar("127.7.0.9"))).current
    other = (await mesh.watch(sidecar("127.7.0.2", account="reviews"))).current
    assert one.layers[1] is other.layers[1]
    assert one.layers[0] != other.layers[0]


async def test_scopes_share_what_is_the_same_in_them(mesh):
    await mesh.change(service_entry(), workloads=[workload()])
    one = (await mesh.watch(sidecar())).current
    other = (await mesh.watch(sidecar(namespace="other"))).current
    for type_url in (xds.CLUSTER, xds.ENDPOINT):
        assert one.get(type_url, NAME) is other.get(type_url, NAME)
    assert one.get(xds.ROUTE, "9080") != other.get(xds.ROUTE, "9080")


ME = sidecar()
LOOK_ALIKES = [
    replace(ME, namespace="evil"),
    replace(ME, service_account="evil"),
    replace(ME, address="127.7.0.66"),
    replace(ME, labels=(("app", "evil"),)),
    replace(ME, type=ProxyType.ROUTER),
    replace(ME, interception=Interception.NONE),
    replace(ME, interception=Interception.TPROXY),
    replace(ME, app_address="127.0.0.66"),
    replace(ME, identity=None),
    replace(ME, vips=True),
    replace(ME, ipv6=True),
    replace(ME, proxyless=True),
    replace(ME, identity=workload_id("evil.example", "shop", "caller")),
]


@pytest.mark.parametrize("other", LOOK_ALIKES)
async def test_a_proxy_that_differs_in_anything_is_of_another_group(mesh, other):
    assert group_key(other) != group_key(ME)
    mine, theirs = await mesh.watch(ME), await mesh.watch(other)
    assert mine.current is not theirs.current


async def test_a_rotated_credential_is_a_changed_secret_for_its_gateways_and_for_nobody_else(mesh):
    tls = {"mode": "SIMPLE", "credentialName": "cert"}
    secure = {"number": 443, "name": "https", "protocol": "HTTPS"}
    servers = [{"port": secure, "hosts": ["a.com"], "tls": tls}]
    gateway = make("Gateway", "edge", {"selector": {"istio": "ingress"}, "servers": servers})
    await mesh.change(service_entry(), gateway)

    async def hold(**held):
        changes = {("shop", "cert"): Credential(b"chain", **held) if held else None}
        delta = mesh.state.apply({}, {}, 1, credentials=changes)
        await mesh.groups.publish(mesh.state.snapshot, delta)

    mine = await mesh.watch(router())
    others = [await mesh.watch(it) for it in (sidecar(), router(namespace="evil"))]
    await hold(key_pem=b"one")
    before = mine.current
    assert before.get(xds.LISTENER, "0.0.0.0_443") is not None
    await hold(key_pem=b"two")
    assert mine.current.changed_since(before.version) == {
        xds.SECRET: frozenset({"kubernetes://cert"})
    }
    await hold()
    assert not mine.current.names(xds.SECRET)
    assert mine.current.get(xds.LISTENER, "0.0.0.0_443") is None
    for other in others:
        assert other.wakes == 0
        assert not other.current.names(xds.SECRET)


async def test_nothing_of_one_namespace_reaches_another(mesh):
    await mesh.change(service_entry(exportTo=["."]), workloads=[workload()])
    assert NAME in (await mesh.watch(sidecar())).current.by_type[xds.CLUSTER]
    hostile = await mesh.watch(sidecar("127.7.0.2", namespace="evil", account="reviews"))
    assert not hostile.current.by_type[xds.ENDPOINT]
    assert "9080" not in hostile.current.by_type[xds.ROUTE]


async def test_streams_are_woken_when_something_differs_for_them(mesh):
    views = [await mesh.watch(sidecar()) for _ in range(50)]
    elsewhere = await mesh.watch(sidecar(namespace="other"))
    assert await mesh.change(service_entry(exportTo=["."])) == 1
    made = {id(view.current) for view in views}
    assert len(made) == 1
    assert [view.wakes for view in views] == [1] * 50
    assert elsewhere.wakes == 0


async def test_what_makes_no_difference_wakes_nobody_and_is_in_force_all_the_same(mesh):
    policy = make("PeerAuthentication", "default", {"mtls": {"mode": "STRICT"}})
    await mesh.change(service_entry(), policy, workloads=[workload()])
    view = await mesh.watch(direct("127.7.0.2", account="reviews"))
    old = view.current
    assert await mesh.change(service_entry(), policy, workloads=[workload()], revision=9) == 0
    assert (view.wakes, view.current.version, view.current.revision) == (0, old.version, 9)
    assert view.current.layers == old.layers
    assert await mesh.change(make("WorkloadGroup", "g", {"template": {}}), revision=10) == 0
    assert view.current.revision == 10


async def test_an_endpoint_changes_one_resource(mesh):
    objects = [service_entry(), service_entry("ratings")]
    await mesh.change(*objects, workloads=[workload()])
    view = await mesh.watch(sidecar())
    old = view.current
    await mesh.change(workloads=[workload(address="127.7.0.3")])
    assert differing(old.by_type, view.current.by_type) == [(xds.ENDPOINT, NAME)]
    assert view.current.changed_since(old.version) == {xds.ENDPOINT: {NAME}}


async def test_scopes_that_had_one_map_have_one_after_the_same_change(mesh):
    await mesh.change(service_entry(), workloads=[workload()])
    one, other = await mesh.watch(sidecar()), await mesh.watch(sidecar(namespace="other"))
    before = one.current
    await mesh.change(workloads=[workload(address="127.7.0.3")])
    now = [view.current.layers[-1][xds.ENDPOINT] for view in (one, other)]
    assert now[0] is now[1]
    assert now[0] is not before.layers[-1][xds.ENDPOINT], "what streams hold on to stays as it was"

    def one_map_each() -> bool:
        shared = one.current.layers[-1], other.current.layers[-1]
        urls = (xds.ENDPOINT, xds.CLUSTER, xds.NAME_TABLE)
        return all(shared[0][url] is shared[1][url] for url in urls)

    await mesh.change(service_entry("details"), service_entry("pages"))
    assert one_map_each()
    await mesh.change(workloads=[workload("details-v1"), workload("pages-v1", "127.7.0.9")])
    assert one_map_each()
    await mesh.change(removed=[service_entry("pages").key])
    assert one_map_each()
    now = [view.current.layers[-1][xds.ENDPOINT] for view in (one, other)]
    await mesh.change(service_entry("ratings", exportTo=["."]))
    assert "outbound|9080||ratings.shop.svc.cluster.local" in one.current.names(xds.ENDPOINT)
    assert other.current.layers[-1][xds.ENDPOINT] is now[1]


async def test_sets_that_changed_alike_share_their_history(mesh):
    await mesh.change(service_entry(), workloads=[workload()])
    views = await mesh.watch(sidecar()), await mesh.watch(sidecar(namespace="other"))

    def check(length: int) -> None:
        one, other = (view.current.changes for view in views)
        assert one is other
        assert len(one) == length

    await mesh.change(workloads=[workload(address="127.7.0.3")])
    check(1)
    # What each scope finds out for itself is the same in most of them.
    await mesh.change(service_entry("details"), service_entry("ratings"))
    check(2)
    await mesh.change(workloads=[workload(address="127.7.0.4")])
    check(3)


async def test_maps_that_were_copied_ahead_of_time_are_in_force_only_with_what_changed(mesh):
    await mesh.change(service_entry(), workloads=[workload()])
    one, other = await mesh.watch(sidecar()), await mesh.watch(sidecar(namespace="other"))
    mesh.state.look_ahead()
    mesh.groups.look_ahead()
    before, snapshot = one.current, mesh.state.snapshot
    kept = dict(snapshot.endpoints), dict(before.layers[-1][xds.ENDPOINT])
    await mesh.change(workloads=[workload(address="127.7.0.3")])
    assert (snapshot.endpoints, before.layers[-1][xds.ENDPOINT]) == kept
    now = [view.current.layers[-1][xds.ENDPOINT] for view in (one, other)]
    assert now[0] is now[1]
    assert now[0][NAME] is not kept[1][NAME]


async def test_intercepted_sidecars_have_the_names_of_what_they_see(mesh):
    host = "reviews.shop.svc.cluster.local"
    own = service_entry("secret", addresses=["10.0.0.9"], namespace="vault", exportTo=["."])
    await mesh.change(service_entry(addresses=["10.0.0.1"]), own)
    view, gateway = await mesh.watch(sidecar()), await mesh.watch(router())
    loopback = await mesh.watch(direct("127.7.0.2"))
    assert set(view.current.names(xds.NAME_TABLE)) == {host}
    assert not gateway.current.names(xds.NAME_TABLE)
    assert not loopback.current.names(xds.NAME_TABLE)
    old = view.current
    await mesh.change(service_entry(addresses=["10.0.0.2"]))
    table = view.current.get(xds.NAME_TABLE, host)
    assert b"10.0.0.2" in table.body
    assert host in view.current.changed_since(old.version)[xds.NAME_TABLE]
    await mesh.change(workloads=[workload()])
    assert view.current.get(xds.NAME_TABLE, host) is table


async def test_a_sidecar_moves_a_proxy_to_another_scope_and_back(mesh):
    ratings = "outbound|9080||ratings.shop.svc.cluster.local"
    await mesh.change(service_entry(), service_entry("ratings"))
    view, other = await mesh.watch(sidecar()), await mesh.watch(sidecar(namespace="other"))
    item = make("Sidecar", "default", {"egress": [{"hosts": ["./reviews.shop.svc.cluster.local"]}]})
    assert await mesh.change(item) == 1
    assert view.current.get(xds.CLUSTER, NAME)
    assert view.current.get(xds.CLUSTER, ratings) is None
    assert view.current.changed_since(1) is None
    assert other.current.get(xds.CLUSTER, ratings)
    assert await mesh.change(removed=[item.key]) == 1
    assert view.current.get(xds.CLUSTER, ratings)
    assert view.wakes == 2


async def test_a_push_that_moves_a_proxy_does_not_wait_for_those_who_are_to_attach(mesh):
    only = {"egress": [{"hosts": ["./*"]}]}
    await mesh.change(*(service_entry(f"s{number}") for number in range(300)))
    view = await mesh.watch(sidecar())
    attaching = [
        asyncio.create_task(mesh.watch(sidecar(namespace=f"n{number}"))) for number in range(30)
    ]
    await asyncio.sleep(0)
    assert await mesh.change(make("Sidecar", "default", only)) == 1
    assert not all(task.done() for task in attaching)
    assert view.current.version == mesh.state.snapshot.version
    assert {(await task).current.version for task in attaching} == {view.current.version}


async def test_what_routes_in_sight_go_to_is_in_sight(mesh):
    ratings = "outbound|9080||ratings.shop.svc.cluster.local"
    route = {"hosts": ["reviews"], "http": [{"route": [{"destination": {"host": "ratings"}}]}]}
    item = make("Sidecar", "default", {"egress": [{"hosts": ["./reviews.shop.svc.cluster.local"]}]})
    rule = make("VirtualService", "r", route)
    await mesh.change(service_entry(), service_entry("ratings"), item)
    view = await mesh.watch(sidecar())
    assert view.current.get(xds.CLUSTER, ratings) is None
    await mesh.change(rule)
    assert view.current.get(xds.CLUSTER, ratings)
    assert view.current.get(xds.ENDPOINT, ratings)
    assert b"ratings.shop.svc.cluster.local:9080" not in view.current.get(xds.ROUTE, "9080").body
    await mesh.change(removed=[rule.key])
    assert view.current.get(xds.CLUSTER, ratings) is None


async def test_a_proxy_that_attaches_while_its_scope_is_built_gets_what_came_meanwhile(mesh):
    entries = [service_entry(f"s{number}") for number in range(300)]
    await mesh.change(*entries)
    attaching = asyncio.create_task(mesh.watch(sidecar()))
    await asyncio.sleep(0)
    assert not attaching.done()
    await mesh.change(service_entry(), removed=[entries[0].key])
    view = await attaching
    assert view.current.get(xds.CLUSTER, NAME)
    assert view.current.get(xds.CLUSTER, "outbound|9080||s0.shop.svc.cluster.local") is None


async def test_a_scope_takes_nothing_from_one_that_a_push_is_half_way_through(mesh, monkeypatch):
    monkeypatch.setattr(module, "PUSH_SLICE_S", 0.0)
    names = [f"s{number}" for number in range(9)]
    hosts = [f"{name}.shop.svc.cluster.local" for name in names]
    await mesh.change(*(service_entry(it, ports=[port(9000 + int(it[1:]))]) for it in names))
    await mesh.watch(sidecar(namespace="one"))
    attaching = asyncio.create_task(mesh.watch(sidecar(namespace="other")))
    await asyncio.sleep(0)
    # It waits for its first turn, which comes when some of these are exchanged, and no port is assembled again.
    route = {"hosts": hosts, "http": [{"route": [{"destination": {"host": hosts[0]}}]}]}
    await mesh.change(make("VirtualService", "all-to-one", route))
    made = (await attaching).current
    fresh = generate(mesh.state.snapshot, sidecar(namespace="other"))
    assert {name: made.get(xds.ROUTE, name).body for name in made.names(xds.ROUTE)} == {
        name: item.body for name, item in fresh[xds.ROUTE].items()
    }


async def test_a_scope_that_nobody_waits_for_any_more_is_built_by_the_next(mesh):
    await mesh.change(*(service_entry(f"s{number}") for number in range(300)))
    attaching = asyncio.create_task(mesh.watch(sidecar()))
    await asyncio.sleep(0)
    attaching.cancel()
    await asyncio.wait({attaching})
    view = await mesh.watch(sidecar())
    assert view.current.get(xds.CLUSTER, "outbound|9080||s299.shop.svc.cluster.local")


async def test_a_group_ends_with_its_last_member(mesh):
    first, second = await mesh.watch(sidecar()), await mesh.watch(sidecar())
    shared = second.current
    first.detach()
    first.detach()
    third = await mesh.watch(sidecar())
    assert third.current is shared
    second.detach()
    third.detach()
    assert (await mesh.watch(sidecar())).current is not shared


async def test_names_of_services_with_virtual_addresses_for_those_who_resolve_by_the_mesh(mesh):
    await mesh.change(service_entry(), service_entry("db", ports=[port(3306, "TCP", "tcp")]))
    plain = (await mesh.watch(sidecar())).current
    assert not plain.names(xds.NAME_TABLE)
    assert plain.get(xds.LISTENER, "0.0.0.0_3306")
    view = await mesh.watch(replace(sidecar(), vips=True))
    db = "db.shop.svc.cluster.local"
    assert {REVIEWS, db} == set(view.current.names(xds.NAME_TABLE))
    table = nds_pb2.NameTable.FromString(view.current.get(xds.NAME_TABLE, db).body)
    v4, v6 = table.table[db].ips
    assert view.current.get(xds.LISTENER, f"{v4}_3306")
    assert view.current.get(xds.LISTENER, f"{v6}_3306")
    assert view.current.get(xds.LISTENER, "0.0.0.0_3306") is None
    own = service_entry("db", ports=[port(3306, "TCP", "tcp")], addresses=["10.7.7.7"])
    await mesh.change(own)
    assert view.current.get(xds.LISTENER, f"{v4}_3306") is None
    assert view.current.get(xds.LISTENER, "10.7.7.7_3306")


async def test_an_address_that_a_user_gave_is_nobody_elses(mesh):
    await mesh.change(service_entry())
    view = await mesh.watch(replace(sidecar(), vips=True))

    def addresses():
        table = nds_pb2.NameTable.FromString(view.current.get(xds.NAME_TABLE, REVIEWS).body)
        return list(table.table[REVIEWS].ips)

    taken = addresses()
    other = service_entry("other", addresses=[taken[0]])
    await mesh.change(other)
    assert not set(addresses()) & set(taken)
    await mesh.change(removed=[other.key])
    assert addresses() == taken


async def test_a_workload_keeps_inbound_clusters_while_its_listeners_drain():
    """Others may still send what the service that is gone was asked for."""
    mesh = Mesh()
    mesh.groups = Groups(OPTIONS, linger_s=0.02)
    proxy = sidecar("127.7.0.2", account="reviews")
    await mesh.change(service_entry(), workloads=[workload()])
    view = await mesh.watch(proxy)
    assert view.current.get(xds.CLUSTER, "inbound|9080||")
    await mesh.change(removed=[service_entry().key])
    assert view.current.get(xds.CLUSTER, NAME) is None
    assert view.current.get(xds.CLUSTER, "inbound|9080||")
    woken = view.wakes
    async with asyncio.timeout(10):
        while view.wakes == woken:
            await asyncio.sleep(0)
    assert view.current.get(xds.CLUSTER, "inbound|9080||") is None


async def test_what_lingered_goes_also_when_its_time_is_up_while_a_push_is_half_way(monkeypatch):
    monkeypatch.setattr(module, "PUSH_SLICE_S", 0.0)
    monkeypatch.setattr(module, "Turns", lambda: Turns(0.0))
    timers: list[Callable[[], None]] = []
    loop = asyncio.get_running_loop()
    peers = {"mtls": {"mode": "STRICT"}}
    rounds, done = 0, False
    while not done:
        mesh = Mesh()
        mesh.groups = Groups(OPTIONS, linger_s=1.0)
        await mesh.change(service_entry(), workloads=[workload()])
        view = await mesh.watch(sidecar("127.7.0.2", account="reviews"))
        with monkeypatch.context() as patch:
            patch.setattr(loop, "call_later", lambda _, *call: timers.append(partial(*call)))
            await mesh.change(removed=[service_entry().key])
        assert view.current.get(xds.CLUSTER, "inbound|9080||")
        pushing = asyncio.create_task(mesh.change(make("PeerAuthentication", "default", peers)))
        for _ in range(rounds):
            await asyncio.sleep(0)
        done = pushing.done()
        timers.pop()()
        await pushing
        assert view.current.get(xds.CLUSTER, "inbound|9080||") is None
        rounds += 1
    assert rounds > 2


async def test_what_comes_back_while_it_lingers_stays():
    mesh = Mesh()
    mesh.groups = Groups(OPTIONS, linger_s=0.01)
    await mesh.change(service_entry(), workloads=[workload()])
    view = await mesh.watch(sidecar("127.7.0.2", account="reviews"))
    await mesh.change(removed=[service_entry().key])
    await mesh.change(service_entry())
    await asyncio.sleep(0.03)
    assert view.current.get(xds.CLUSTER, "inbound|9080||")


async def test_of_which_objects_things_are_is_said_though_nothing_is_sent(mesh):
    """The same bytes of other objects: nobody is woken, and whoever looks finds those of now."""
    rule = {"host": "reviews", "subsets": [{"name": "v1", "labels": {"version": "v1"}}]}
    await mesh.change(service_entry(), make("DestinationRule", "old", rule), workloads=[workload()])
    view = await mesh.watch(sidecar("127.7.0.2", account="reviews"))
    before = view.current

    def names(url, name):
        return {item.name for item in view.current.get(url, name).origins}

    old = make("DestinationRule", "old", rule)
    await mesh.change(make("DestinationRule", "new", rule), removed=[old.key])
    await mesh.change(make("PeerAuthentication", "late", {"mtls": {"mode": "PERMISSIVE"}}))
    assert names(xds.CLUSTER, NAME) == {"reviews", "new"}
    assert "late" in names(xds.LISTENER, "virtualInbound")
    assert view.wakes == 0
    assert view.current.version == before.version
