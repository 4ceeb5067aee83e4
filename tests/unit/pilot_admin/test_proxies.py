"""Views of proxies: in sync or not, and what one should have."""

from __future__ import annotations

import grpc
import pytest

from tests.unit.pilot.mesh import REVIEWS, service_entry, sidecar
from tests.unit.pilot_admin.world import PILOT, running
from windward.rpc.errors import RefusedError
from windward.xds.resource import CLUSTER

NAME = f"outbound|9080||{REVIEWS}"


async def test_a_proxy_is_stale_until_it_has_answered():
    async with running() as world:
        revision = await world.put(service_entry())
        follower = await world.follow(sidecar())
        follower.stream.take()
        (row,) = await world.read("sync")
        assert (row["proxy"], row["pilot"]) == (follower.proxy.id, PILOT)
        assert row["identity"] == str(follower.proxy.identity)
        assert row["types"]["cluster"]["state"] == "STALE"
        assert row["types"]["cluster"]["ackedRevision"] == 0
        follower = await world.follow(sidecar("127.7.0.8"))
        follower.answer()
        (row,) = await world.read("sync", proxy="127.7.0.8")
        cluster = row["types"]["cluster"]
        assert {kind["state"] for kind in row["types"].values()} == {"SYNCED"}
        assert (cluster["sentRevision"], cluster["ackedRevision"]) == (revision, revision)
        assert cluster["ackedVersion"] == row["version"]
        assert cluster["resources"] == len(follower.stream.current.names(CLUSTER))


async def test_a_refusal_shows_its_words_and_names():
    async with running() as world:
        await world.put(service_entry())
        follower = await world.follow(sidecar())
        follower.answer("no such thing", CLUSTER)
        (row,) = await world.read("sync")
        cluster = row["types"]["cluster"]
        assert (cluster["state"], cluster["lastError"]) == ("ERROR", "no such thing")
        assert NAME in cluster["refused"]
        config = await world.read("config", proxy=follower.proxy.name, name=NAME, type="cluster")
        assert [(item["acked"], item["error"]) for item in config] == [(False, "no such thing")]


async def test_proxies_are_chosen_by_name_and_namespace():
    async with running() as world:
        for namespace in ("shop", "test"):
            await world.follow(sidecar(namespace=namespace))
        for view in ("sync", "connections"):
            assert len(await world.read(view)) == 2
            (one,) = await world.read(view, namespace="test")
            assert one["identity"].startswith("spiffe://cluster.local/ns/test/")
            assert await world.read(view, proxy="nobody") == []


async def test_a_connection_says_what_it_follows():
    async with running() as world:
        follower = await world.follow(sidecar())
        follower.answer()
        (row,) = await world.read("connections")
        assert row["watches"]["cluster"] == "*"
        assert row["protocol"] == "delta"


async def test_what_one_proxy_should_have_in_envoys_words_with_its_origins():
    async with running() as world:
        await world.put(service_entry())
        follower = await world.follow(sidecar())
        asked = {"proxy": follower.proxy.name, "name": NAME, "type": "cluster"}
        (row,) = await world.read("config", **asked)
        assert not row["acked"]
        assert row["body"]["name"] == NAME
        assert row["body"]["type"] == "EDS"
        assert row["origins"] == ["ServiceEntry/shop/reviews"]
        follower.answer()
        (row,) = await world.read("config", **asked)
        assert row["acked"]
        assert row["ackedVersion"] == row["version"]
        types = {item["type"] for item in await world.read("config", proxy=follower.proxy.name)}
        assert len(types) == 4


async def test_a_name_of_several_proxies_is_refused():
    async with running() as world:
        await world.follow(sidecar("127.7.0.8", account="web"))
        await world.follow(sidecar("127.7.0.9", account="web"))
        with pytest.raises(RefusedError, match="names several proxies") as caught:
            await world.read("config", proxy="web")
        assert caught.value.code is grpc.StatusCode.NOT_FOUND
