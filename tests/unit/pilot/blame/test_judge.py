"""Refused resources, a real scratch Envoy, and who is to blame: the object, the field, and nobody else."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.pilot.blame.judge import AGREEING, Engine, Judge
from services.pilot.groups import Groups
from services.pilot.scratch.envoy import ScratchEnvoy, find_envoy
from services.pilot.state import MeshState
from tests.unit.pilot.mesh import (
    BORN,
    OPTIONS,
    REVIEWS,
    change,
    make,
    router,
    service_entry,
    sidecar,
    workload,
)
from tests.unit.pilot.watched import Watched, watch
from windward.config.object import ConfigObject
from windward.config.report import Report
from windward.config.walk import walk_partial
from windward.identity.spiffe_id import workload_id
from windward.xds import resource as xds
from windward.xds.knowledge import Refusal, TypeState
from windward.xds.subscription import Subscription

NAME = f"outbound|9080||{REVIEWS}"
PROXY = sidecar()


def unchecked(good: ConfigObject[Any], spec: dict[str, Any]) -> ConfigObject[Any]:
    """An object as it would be if nobody had validated it."""
    made = walk_partial(type(good.spec), spec, Report("spec"))
    return replace(
        good, spec=made, raw={**good.raw, "spec": spec}, created_at=BORN + timedelta(seconds=9)
    )


def route(http: list[Any], name: str = "reviews", **more: Any) -> ConfigObject[Any]:
    there = [{"route": [{"destination": {"host": "reviews"}}]}]
    good = make("VirtualService", name, {"hosts": ["reviews"], "http": there, **more})
    return unchecked(good, {"hosts": ["reviews"], "http": [*http, *there], **more})


class World:
    """An engine without streams: refusals are told to the judge as a stream would."""

    def __init__(self, scratch: ScratchEnvoy | None) -> None:
        self.state, self.groups = MeshState(), Groups(OPTIONS)
        self.refused: asyncio.Queue[ConfigObject[Any]] = asyncio.Queue()
        self.holds: asyncio.Queue[dict[Any, Any]] = asyncio.Queue()
        engine = Engine(
            OPTIONS,
            lambda: self.state.snapshot,
            lambda: {key: o for kind in self.state.objects.values() for key, o in kind.items()},
            self.groups.resource,
            self.refused.put_nowait,
            self._hold,
        )
        self.judge = Judge(engine, scratch)

    async def _hold(self, held: Any) -> None:
        self.holds.put_nowait(held)

    async def change(self, *objects: ConfigObject[Any], **more: Any) -> None:
        delta = change(self.state, *objects, **more)
        self.judge.changed(item.key for item in objects)
        await self.groups.publish(self.state.snapshot, delta)

    def refuse(self, view: Watched, type_url: str, name: str, proxy: Any = PROXY) -> None:
        resource = view.current.get(type_url, name)
        assert resource is not None
        refusal = Refusal(type_url, name, resource.version, "no", 1, 0.0)
        self.judge.answered(proxy, TypeState(Subscription(type_url)), (refusal,))


@asynccontextmanager
async def judging(*, scratch: bool = True):
    world = World(ScratchEnvoy(find_envoy("")) if scratch else None)
    task = asyncio.create_task(world.judge.run())
    try:
        yield world
    finally:
        task.cancel()
        await asyncio.wait({task})


BAD_ROUTES = [
    ({"match": [{"uri": {"prefix": "/a"}}, {"uri": {"regex": "(("}}]}, "match[1].uri.regex"),
    ({"match": [{"headers": {"x": {"regex": "a{9999}"}}}]}, "match[0].headers.x.regex"),
    ({"headers": {"request": {"set": {"": "v"}}}}, "headers.request.set."),
    ({"headers": {"response": {"add": {"a b\n": "v"}}}}, "headers.response.add.a b\n"),
    ({"rewrite": {"uri": "/x\n"}, "match": [{"uri": {"prefix": "/a"}}]}, "rewrite.uri"),
    ({"headers": {"request": {"remove": [""]}}}, "headers.request.remove[0]"),
]


@pytest.mark.parametrize(("bad", "path"), BAD_ROUTES, ids=[path for _, path in BAD_ROUTES])
async def test_of_a_thousand_routes_the_bad_one_is_found_and_its_field(bad, path):
    part = {**bad, "route": [{"destination": {"host": "reviews"}}]}
    async with judging() as world:
        others = [service_entry(f"s{number}") for number in range(200)]
        await world.change(*others, service_entry(), workloads=[workload()])
        await world.change(route([part]))
        view = await watch(world.groups, PROXY)
        world.refuse(view, xds.ROUTE, "9080")
        item = await asyncio.wait_for(world.refused.get(), 20)
        assert item.key.name == "reviews"
        [case] = world.judge.about(item.key)
        assert [blame.path for blame in case.blames] == [f"spec.http[0].{path}"]
        assert case.proved
        assert world.judge.about(others[0].key) == []
        assert world.holds.empty()


async def test_a_bad_cluster_is_held_for_all_and_released_when_its_object_changes():
    good = make("DestinationRule", "r", {"host": "reviews"})
    outlier = {"consecutive5xxErrors": 5, "interval": "1s", "maxEjectionPercent": 300}
    bad = unchecked(good, {"host": "reviews", "trafficPolicy": {"outlierDetection": outlier}})
    async with judging() as world:
        await world.change(service_entry(), bad)
        view = await watch(world.groups, PROXY)
        world.refuse(view, xds.CLUSTER, NAME)
        held = await asyncio.wait_for(world.holds.get(), 20)
        refused = view.current.get(xds.CLUSTER, NAME)
        assert refused is not None
        assert set(held) == {(xds.CLUSTER, NAME, refused.version)}
        [case] = world.judge.about(bad.key)
        assert [(blame.key, blame.path) for blame in case.blames] == [
            (bad.key, "spec.trafficPolicy.outlierDetection.maxEjectionPercent")
        ]
        await world.change(good)
        assert await asyncio.wait_for(world.holds.get(), 20) == {}
        assert world.judge.about(bad.key) == []


async def test_of_a_gateways_virtual_services_only_the_bad_one_is_to_blame():
    server = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    gateway = make("Gateway", "edge", {"selector": {"istio": "ingress"}, "servers": [server]})
    there = [{"route": [{"destination": {"host": "reviews"}}]}]
    fine = [
        make(
            "VirtualService",
            f"v{number}",
            {"hosts": [f"v{number}.example.com"], "gateways": ["edge"], "http": there},
        )
        for number in range(20)
    ]
    part = {"match": [{"uri": {"regex": "(("}}], **there[0]}
    bad = unchecked(
        fine[7], {"hosts": ["v7.example.com"], "gateways": ["edge"], "http": [part, *there]}
    )
    async with judging() as world:
        await world.change(service_entry(), gateway, *fine)
        await world.change(bad)
        view = await watch(world.groups, router())
        world.refuse(view, xds.ROUTE, "http.80", router())
        item = await asyncio.wait_for(world.refused.get(), 20)
        assert item.key == bad.key
        [case] = world.judge.about(bad.key)
        assert [blame.path for blame in case.blames] == ["spec.http[0].match[0].uri.regex"]


async def test_what_the_scratch_takes_is_no_ones_fault_until_three_identities_refuse_it():
    async with judging() as world:
        await world.change(service_entry())
        for number in range(AGREEING):
            assert world.holds.empty()
            who = replace(PROXY, identity=workload_id("cluster.local", "shop", f"a{number}"))
            view = await watch(world.groups, who)
            world.refuse(view, xds.CLUSTER, NAME, who)
            world.refuse(view, xds.CLUSTER, NAME, who)
        held = await asyncio.wait_for(world.holds.get(), 20)
        assert [name for _, name, _ in held] == [NAME]
        [case] = world.judge.about(service_entry().key)
        assert case.blames == ()


async def test_what_cannot_even_be_built_has_its_object_and_field_to_blame():
    there = {"route": [{"destination": {"host": "reviews"}}]}
    bad = route([{**there, "match": [{"uri": {"prefix": "/a"}}], "retries": {"attempts": -3}}])
    async with judging(scratch=False) as world:
        world.groups.on_failed = world.judge.failed
        await world.change(service_entry(), service_entry("other"))
        view = await watch(world.groups, PROXY)
        before = view.current.get(xds.ROUTE, "9080")
        await world.change(bad, service_entry("third"))
        async with asyncio.timeout(10):
            while not (cases := world.judge.about(bad.key)) or not cases[0].blames:
                await asyncio.sleep(0)
        assert [blame.path for blame in cases[0].blames] == ["spec.http[0].retries.attempts"]
        assert world.judge.about(service_entry("other").key) == []
        # The host stays as it was, others go on.
        now = view.current.get(xds.ROUTE, "9080")
        assert now is not None
        assert before is not None
        assert now.version != before.version
        assert b"reviews.shop" in now.body
        await world.change(route([]))
        assert world.judge.about(bad.key) == []


async def test_without_a_scratch_one_identity_freezes_nobody():
    async with judging(scratch=False) as world:
        await world.change(service_entry())
        view = await watch(world.groups, PROXY)
        for _ in range(10):
            world.refuse(view, xds.CLUSTER, NAME)
        [case] = list(world.judge)
        await asyncio.sleep(0)
        assert not case.proved
        assert world.holds.empty()


async def test_a_refusal_of_what_is_another_one_already_says_nothing():
    async with judging(scratch=False) as world:
        await world.change(service_entry())
        view = await watch(world.groups, PROXY)
        refusal = Refusal(xds.CLUSTER, NAME, "an older version", "no", 1, 0.0)
        world.judge.answered(PROXY, TypeState(Subscription(xds.CLUSTER)), (refusal,))
        assert list(world.judge) == []
        assert view.wakes == 0
