"""What the fleet finds wrong with a server."""

import pytest

from benchmarks.fleet.process import FleetError
from tests.unit.benchmarks.ads import (
    a_cluster,
    a_listener,
    a_route,
    bring_up,
    endpoints,
    fleet_at,
)
from windward.xds.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE, Resource

TIMEOUT = "type.googleapis.com/google.protobuf.Duration"


def renamed(resource: Resource, name: str) -> Resource:
    return Resource(resource.type_url, name, resource.body)


def other_bytes(name: str) -> Resource:
    """Other bytes under the version of the first."""
    return Resource(
        CLUSTER, name, a_cluster(name, connect_s=9).body, version=a_cluster(name).version
    )


@pytest.mark.parametrize(
    ("type_url", "resources", "fault"),
    [
        (ROUTE, [a_route("r", "a", "nowhere")], "missing_references"),
        (ENDPOINT, [endpoints("a", "10.9.0.1")], "versions_back"),
        (ENDPOINT, [endpoints("b", "10.9.0.1")], "unasked"),
        (ENDPOINT, [renamed(endpoints("b", "10.9.0.1"), "a")], "malformed"),
        (LISTENER, [Resource(LISTENER, "l", b"\x0a\x01l\x1a\x05\x01")], "malformed"),
        (
            CLUSTER,
            [other_bytes("a")],
            "changed_under_version",
        ),
        (TIMEOUT, [], "unknown_type"),
    ],
)
async def test_a_fault_is_counted(tmp_path, type_url, resources, fault):
    async with fleet_at(tmp_path) as (server, fleet):
        stream = await server.stream()
        await bring_up(stream)
        stream.send(ENDPOINT, [endpoints("a", "10.9.0.2")])
        await stream.request(ENDPOINT)
        before = await fleet.report()
        assert not any(before[name] for name in (fault, "malformed", "versions_back"))
        stream.send(type_url, resources)
        stream.send(ENDPOINT, [endpoints("a", "10.9.0.3")])
        for _ in range(2 if resources else 1):
            await stream.requests.get()
        report = await fleet.report()
    assert report[fault] == 1


async def test_a_cluster_that_a_route_still_names_may_not_go(tmp_path):
    async with fleet_at(tmp_path) as (server, fleet):
        stream = await server.stream()
        await bring_up(stream)
        stream.send(CLUSTER, removed=["a"])
        await stream.request(ENDPOINT)
        await stream.request(CLUSTER)
        assert (await fleet.report())["removed_in_use"] == 1


async def test_a_set_older_than_the_last_is_counted(tmp_path):
    async with fleet_at(tmp_path) as (server, fleet):
        stream = await server.stream()
        await stream.request(CLUSTER)
        stream.send(CLUSTER, [a_cluster("a")], version="8")
        await stream.request(ENDPOINT)
        await stream.request(CLUSTER)
        stream.send(ENDPOINT, [endpoints("a", "10.9.0.1")], version="7")
        await stream.request(ENDPOINT)
        assert (await fleet.report())["versions_back"] == 1


async def test_a_correct_server_has_no_faults(tmp_path):
    async with fleet_at(tmp_path) as (server, fleet):
        stream = await server.stream()
        await bring_up(stream)
        stream.send(LISTENER, [a_listener("l", "r2")])
        assert list((await stream.request(ROUTE)).resource_names_unsubscribe) == ["r"]
        await stream.request(LISTENER)
        stream.send(ROUTE, [a_route("r2", "a")])
        await stream.request(ROUTE)
        report = await fleet.report()
    faults = ("missing_references", "versions_back", "unasked", "malformed", "removed_in_use",
              "changed_under_version", "unknown_type", "protocol_errors")  # fmt: skip
    assert {name: report[name] for name in faults if report[name]} == {}


async def test_a_resource_that_the_same_response_takes_back_is_gone(tmp_path):
    async with fleet_at(tmp_path) as (server, fleet):
        stream = await server.stream()
        await bring_up(stream)
        stream.send(ROUTE, [a_route("r", "nowhere")], removed=["r"])
        await stream.request(ROUTE)
        assert (await fleet.report())["missing_references"] == 0


async def test_a_fleet_that_has_ended_says_so_at_once(tmp_path):
    async with fleet_at(tmp_path) as (_, fleet):
        fleet._process.kill()
        with pytest.raises(FleetError, match="ended"):
            await fleet.synced(60)
        with pytest.raises(FleetError, match="ended"):
            await fleet.report()
