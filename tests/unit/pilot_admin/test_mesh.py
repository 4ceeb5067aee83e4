"""Views of the mesh: services, endpoints with their leases, scopes, and pushes with cause and effect."""

from __future__ import annotations

import pytest

from tests.unit.pilot.mesh import REVIEWS, make, service_entry, sidecar, workload
from tests.unit.pilot.test_index import register
from tests.unit.pilot_admin.world import World, running
from windward.xds.resource import CLUSTER


async def endpoints(world: World, count: int) -> None:
    await world.reached(lambda: len(world.index.snapshot.endpoints.get(REVIEWS, ())) == count)


async def test_services_with_their_ports_and_how_many_endpoints_are_healthy():
    async with running() as world:
        await world.put(service_entry(), service_entry("ratings", namespace="test"))
        await register(world.store, workload())
        await register(world.store, workload("reviews-v2", "127.7.0.3", unhealthy=True))
        await endpoints(world, 2)
        (row,) = await world.read("services", namespace="shop")
        assert (row["host"], row["endpoints"], row["healthy"]) == (REVIEWS, 2, 1)
        assert row["ports"][0]["number"] == 9080
        assert row["selector"] == {"app": "reviews"}
        assert row["origin"] == "ServiceEntry/shop/reviews"
        assert row["virtualAddresses"]
        assert [row["host"] for row in await world.read("services", host=REVIEWS)] == [REVIEWS]
        assert await world.read("services", host="no.such") == []
        assert await world.read("services", host=REVIEWS, namespace="test") == []


async def test_endpoints_say_whether_their_lease_is_held():
    async with running(ttl_s=1.0) as world:
        listed = service_entry(
            "ratings", endpoints=[{"address": "10.0.0.1"}], workloadSelector=None
        )
        await world.put(service_entry(), listed)
        lease = await register(world.store, workload())
        await endpoints(world, 1)
        leases = {row["address"]: row["lease"] for row in await world.read("endpoints")}
        assert leases == {"127.7.0.2": "alive", "10.0.0.1": "none"}
        await world.store.revoke(lease)
        await world.reached(
            lambda: not any(e.healthy for e in world.index.snapshot.endpoints[REVIEWS])
        )
        (row,) = await world.read("endpoints", host=REVIEWS)
        assert (row["lease"], row["healthy"]) == ("expired", False)
        assert (row["workload"], row["ports"]) == ("reviews-v1", {})


async def test_scopes_say_who_shares_what():
    async with running() as world:
        narrow = make("Sidecar", "default", {"egress": [{"hosts": ["./*"]}]}, namespace="test")
        await world.put(service_entry(), narrow)
        for address in ("127.7.0.8", "127.7.0.9"):
            await world.follow(sidecar(address))
        await world.follow(sidecar("127.7.0.7", namespace="test"))
        rows = {row["namespace"]: row for row in await world.read("scopes")}
        assert rows["shop"]["egress"] is None
        assert rows["shop"]["proxies"] == rows["shop"]["groups"] == 2
        assert rows["test"]["egress"] == {"hosts": ["test/*"], "excluded": []}
        sizes = [rows[name]["resources"]["cluster"]["count"] for name in ("shop", "test")]
        assert sizes[0] == sizes[1] + 1
        assert len(await world.read("scopes", namespace="test")) == 1


async def test_an_event_has_its_cause_and_its_effect_in_words():
    async with running() as world:
        await world.put(service_entry())
        follower = await world.follow(sidecar())
        follower.answer()
        http = [{"route": [{"destination": {"host": "reviews"}}], "timeout": "3s"}]
        route = make("VirtualService", "reviews", {"hosts": ["reviews"], "http": http})
        revision = await world.put(route)
        (before, *_) = await world.read("events")
        assert before["text"] == (
            "VirtualService shop/reviews changed -> 1 route, 1 proxy, not accepted yet"
        )
        follower.answer()
        (row, *others) = await world.read("events")
        assert row["text"].startswith("VirtualService shop/reviews changed -> 1 route, 1 proxy, ")
        assert row["text"].endswith(" ms")
        assert (row["revision"], row["accepted"], row["proxies"]) == (revision, 1, 1)
        assert row["p50Ms"] > 0
        assert row["objects"] == ["VirtualService/shop/reviews"]
        assert others
        assert await world.read("events", kind="virtualservice", name="reviews") == [row]
        assert await world.read("events", namespace="nowhere") == []


async def test_an_event_that_moves_proxies_to_another_scope_says_what_differs_there():
    async with running() as world:
        await world.put(service_entry())
        for number in (8, 9):
            (await world.follow(sidecar(f"127.7.0.{number}"))).answer()
        nothing = make("Sidecar", "default", {"egress": [{"hosts": ["test/*"]}]})
        await world.put(nothing)
        row = (await world.read("events"))[0]
        assert row["text"] == (
            "Sidecar shop/default changed -> "
            "1 cluster, 1 endpoint set, 1 listener, 1 route, 2 proxies, not accepted yet"
        )


@pytest.mark.parametrize(
    "filters",
    [{"namespace": "shop"}, {"name": "reviews-v1"}, {"kind": "Workload"}, {"kind": "workload"}],
)
async def test_what_a_workload_caused_is_found_by_it(filters):
    async with running() as world:
        world.index.pushes.begin(98, 1, 0.0, (), (("shop", "reviews-v1"),))
        world.index.pushes.begin(99, 1, 0.0, (), (("test", "ratings-v1"),))
        found = [row["workloads"] for row in await world.read("events", **filters)]
        assert ["shop/reviews-v1"] in found
        assert (["test/ratings-v1"] in found) == ("kind" in filters)


async def test_refusals_name_who_refused_what():
    async with running() as world:
        await world.put(service_entry())
        follower = await world.follow(sidecar())
        follower.answer("bad cluster", CLUSTER)
        rows = await world.read("refusals")
        name = f"outbound|9080||{REVIEWS}"
        (row,) = [row for row in rows if row["name"] == name]
        assert (row["type"], row["error"]) == ("cluster", "bad cluster")
        assert row["by"] == [str(follower.proxy.identity)]
        assert not row["heldForAll"]


async def test_the_status_counts_proxies_by_their_worst_type():
    async with running() as world:
        await world.put(service_entry())
        (await world.follow(sidecar("127.7.0.7"))).answer()
        (await world.follow(sidecar("127.7.0.8"))).stream.take()
        (await world.follow(sidecar("127.7.0.9"))).answer("bad", CLUSTER)
        (row,) = await world.read("status")
        assert (row["proxies"], row["synced"], row["stale"], row["error"]) == (3, 1, 1, 1)
        assert (row["services"], row["revision"]) == (1, world.index.snapshot.revision)
        assert row["refusals"] > 0
