"""What the fleet's streams ask and answer, seen from a server."""

from google.protobuf import json_format

from tests.unit.benchmarks.ads import (
    a_cluster,
    a_listener,
    a_route,
    bring_up,
    endpoints,
    fleet_at,
)
from windward.xds.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE


async def test_it_asks_what_an_envoy_would_ask(tmp_path):
    async with fleet_at(tmp_path) as (server, fleet):
        stream = await server.stream()
        first = await stream.request(CLUSTER)
        assert first.node.id == "sidecar~10.0.0.1~app-0.shop~shop.svc.cluster.local"
        assert json_format.MessageToDict(first.node.metadata)["SERVICE_ACCOUNT"] == "account-0"
        nonce = stream.send(CLUSTER, [a_cluster("a"), a_cluster("b")])
        subscription = await stream.request(ENDPOINT)
        assert sorted(subscription.resource_names_subscribe) == ["a", "b"]
        assert not subscription.node.id
        assert (await stream.request(CLUSTER)).response_nonce == nonce
        stream.send(ENDPOINT, [endpoints("a", "10.9.0.1")])
        await stream.request(ENDPOINT)
        # Listeners are asked for once every cluster has its endpoints.
        stream.send(ENDPOINT, [endpoints("b", "10.9.0.2")])
        await stream.request(ENDPOINT)
        await stream.request(LISTENER)
        stream.send(LISTENER, [a_listener("l", "r")])
        assert list((await stream.request(ROUTE)).resource_names_subscribe) == ["r"]
        await stream.request(LISTENER)
        stream.send(ROUTE, [a_route("r", "a", "b")])
        await stream.request(ROUTE)
        await fleet.synced(10)
        report = await fleet.report()
    assert report["synced"] == 1
    assert report["acks"] == 5
    assert [report[f"resources_{kind}"] for kind in ("cds", "eds", "lds", "rds")] == [2, 2, 1, 1]


async def test_a_removed_cluster_takes_its_subscription_along(tmp_path):
    async with fleet_at(tmp_path) as (server, _):
        stream = await server.stream()
        await stream.request(CLUSTER)
        stream.send(CLUSTER, [a_cluster("a"), a_cluster("b")])
        await stream.request(ENDPOINT)
        await stream.request(CLUSTER)
        stream.send(CLUSTER, removed=["b"])
        assert list((await stream.request(ENDPOINT)).resource_names_unsubscribe) == ["b"]


async def test_a_reconnect_says_which_versions_it_has(tmp_path):
    async with fleet_at(tmp_path) as (server, fleet):
        stream = await server.stream()
        await bring_up(stream)
        await fleet.synced(10)
        stream.end()
        again = await server.stream()
        asked = {}
        for type_url in (CLUSTER, ENDPOINT, LISTENER, ROUTE):
            request = await again.request(type_url)
            asked[type_url] = dict(request.initial_resource_versions)
        await fleet.synced(10)
        report = await fleet.report()
    assert asked[CLUSTER] == {"a": a_cluster("a").version}
    assert asked[ENDPOINT] == {"a": endpoints("a", "10.9.0.1").version}
    assert asked[ROUTE] == {"r": a_route("r", "a").version}
    assert report["connects"] == 2
    assert report["disconnects"] == 1


async def test_state_of_the_world_repeats_all_names_and_the_version(tmp_path):
    async with fleet_at(tmp_path, sotw=True) as (server, fleet):
        stream = await server.stream()
        await stream.request(CLUSTER)
        stream.send(CLUSTER, [a_cluster("a"), a_cluster("b")], version="7")
        await stream.request(ENDPOINT)
        assert (await stream.request(CLUSTER)).version_info == "7"
        stream.send(ENDPOINT, [endpoints("a", "10.9.0.1"), endpoints("b", "10.9.0.2")])
        answer = await stream.request(ENDPOINT)
        assert sorted(answer.resource_names) == ["a", "b"]
        await stream.request(LISTENER)
        stream.send(CLUSTER, [a_cluster("a")], version="8")
        assert list((await stream.request(ENDPOINT)).resource_names) == ["a"]
        await stream.request(CLUSTER)
        assert (await fleet.report())["removed_cds"] == 1


async def test_refusals_on_demand_name_the_resource_and_change_nothing(tmp_path):
    async with fleet_at(tmp_path) as (server, fleet):
        stream = await server.stream()
        await bring_up(stream)
        fleet.say("nack 1 rds r*")
        await fleet.report()
        nonce = stream.send(ROUTE, [a_route("r", "a", "nowhere")])
        answer = await stream.request(ROUTE)
        report = await fleet.report()
    assert answer.response_nonce == nonce
    assert "refused on demand: r" in answer.error_detail.message
    assert report["nacks"] == 1
    assert report["missing_references"] == 0


async def test_a_change_is_met_when_every_stream_has_answered_it(tmp_path):
    async with fleet_at(tmp_path, streams=2) as (server, fleet):
        streams = [await server.stream(), await server.stream()]
        for stream in streams:
            await bring_up(stream)
        await fleet.synced(10)
        number = await fleet.expect("eds", "a", "10.9.9.9")
        fleet.wrote(number, 1, 1)
        for stream in streams:
            stream.send(ENDPOINT, [endpoints("a", "10.9.1.1")])  # another change: not this one
        streams[0].send(ENDPOINT, [endpoints("a", "10.9.9.9")])
        await streams[0].request(ENDPOINT)
        await streams[0].request(ENDPOINT)
        report = await fleet.report()
        assert report["waiting"] == 1
        streams[1].send(ENDPOINT, [endpoints("a", "10.9.9.9")])
        assert await fleet.acked(number, 10) > 0
        report = await fleet.report()
    assert report["waiting"] == 0
    assert report["ack_ms_count"] == 2


async def test_a_later_change_of_the_same_resource_meets_the_earlier_one(tmp_path):
    async with fleet_at(tmp_path) as (server, fleet):
        stream = await server.stream()
        await bring_up(stream)
        earlier = await fleet.expect("eds", "a", "10.9.1.1")
        later = await fleet.expect("eds", "a", "10.9.2.2")
        fleet.wrote(earlier, 1, 1)
        fleet.wrote(later, 1, 1)
        stream.send(ENDPOINT, [endpoints("a", "10.9.2.2")])
        await fleet.acked(earlier, 10)
        await fleet.acked(later, 10)
