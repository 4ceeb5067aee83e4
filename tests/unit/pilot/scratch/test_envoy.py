"""The scratch Envoy, a real one: what it takes, what it refuses, and what it says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from google.protobuf import duration_pb2

from services.pilot.envoy.common import address
from services.pilot.scratch.envoy import ScratchEnvoy, Unanswered, find_envoy
from tests.unit.pilot.mesh import WITH_MIXER, generate
from tests.unit.pilot.whole import MESH_PROXIES, whole_mesh
from windward.xds import resource as xds
from windward.xds.resource import Resource


def a_cluster(**fields: Any) -> Resource:
    message = cluster_pb2.Cluster(name="c", **fields)
    return Resource(xds.CLUSTER, "c", message.SerializeToString())


def a_route(regex: str) -> Resource:
    match = route_components_pb2.RouteMatch()
    match.safe_regex.regex = regex
    action = route_components_pb2.RouteAction(cluster="anywhere")
    host = route_components_pb2.VirtualHost(
        name="h", domains=["*"], routes=[route_components_pb2.Route(match=match, route=action)]
    )
    message = route_pb2.RouteConfiguration(name="80", virtual_hosts=[host])
    return Resource(xds.ROUTE, "80", message.SerializeToString())


def an_endpoint(host: str) -> Resource:
    message = endpoint_pb2.ClusterLoadAssignment(cluster_name="c")
    message.endpoints.add().lb_endpoints.add().endpoint.address.CopyFrom(address(host, 80))
    return Resource(xds.ENDPOINT, "c", message.SerializeToString())


def a_listener(host: str) -> Resource:
    message = listener_pb2.Listener(name="l", address=address(host, 80))
    message.filter_chains.add()
    return Resource(xds.LISTENER, "l", message.SerializeToString())


BAD_TIMEOUT = duration_pb2.Duration(seconds=-1)


async def test_good_and_bad_of_every_type_in_any_order():
    scratch = ScratchEnvoy(find_envoy(""))
    try:
        for _ in range(2):
            assert await scratch.refuses(a_cluster(connect_timeout=BAD_TIMEOUT))
            assert await scratch.refuses(a_cluster()) == ""
            assert await scratch.refuses(a_route("(("))
            assert await scratch.refuses(a_route("/a.*")) == ""
            assert await scratch.refuses(an_endpoint("not-an-ip"))
            assert await scratch.refuses(an_endpoint("10.0.0.1")) == ""
            assert await scratch.refuses(a_listener("not-an-ip"))
            assert await scratch.refuses(a_listener("0.0.0.0")) == ""
    finally:
        await scratch.close()


async def test_it_takes_a_whole_mesh():
    scratch = ScratchEnvoy(find_envoy(""))
    try:
        for proxy in MESH_PROXIES:
            made = generate(whole_mesh(), proxy, WITH_MIXER)
            for type_url in (xds.CLUSTER, xds.ENDPOINT, xds.LISTENER, xds.ROUTE):
                for item in made[type_url].values():
                    assert await scratch.refuses(item) == "", item
    finally:
        await scratch.close()


async def test_what_cannot_be_asked_is_said():
    scratch = ScratchEnvoy(find_envoy(""))
    with pytest.raises(Unanswered, match="cannot be tried alone"):
        await scratch.refuses(Resource(xds.SECRET, "s", b""))
    with pytest.raises(Unanswered, match="does not start"):
        await ScratchEnvoy("/nowhere/envoy").refuses(a_cluster())
    assert find_envoy("/nowhere/envoy") == ""


async def test_it_comes_back_after_it_was_killed():
    scratch = ScratchEnvoy(find_envoy(""))
    try:
        assert await scratch.refuses(a_cluster()) == ""
        running = scratch._running
        assert running is not None
        assert running._process is not None
        running._process.kill()
        await asyncio.wait_for(running._process.wait(), 10)
        assert await scratch.refuses(a_cluster()) == ""
        assert scratch._running is not running
    finally:
        await scratch.close()
