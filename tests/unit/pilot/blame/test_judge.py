"""Refused resources, a real scratch Envoy, and who is to blame: the object, the field, and nobody else."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.pilot.blame.judge import AGREEING, MANY, MOST_CASES, MOST_OPEN, Engine, Judge
from services.pilot.blame.workshop import virtual_hosts
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
            self.state.in_force,
            self.groups.resource,
            self.refused.put_nowait,
            self._hold,
        )
        self.judge = Judge(engine, scratch)
        self.groups.on_failed = self.judge.failed
        self.groups.on_own_failed = self.judge.own_failed

    async def _hold(self, held: Any) -> None:
        self.holds.put_nowait(held)

    async def change(self, *objects: ConfigObject[Any], **more: Any) -> None:
        delta = change(self.state, *objects, **more)
        self.judge.changed((*(item.key for item in objects), *self.state.put_again))
        await self.groups.publish(self.state.snapshot, delta)

    async def taken_back(self) -> ConfigObject[Any]:
        """What the judge takes back next, out of force as the index does it."""
        item = await asyncio.wait_for(self.refused.get(), 20)
        delta = self.state.apply({}, {}, self.state.snapshot.revision, {item.key: item})
        self.judge.changed(self.state.put_again)
        await self.groups.publish(self.state.snapshot, delta)
        return item

    def said(self, item: ConfigObject[Any]) -> list[str]:
        """The fields that are said to be bad."""
        return [
            blame.path
            for case in self.judge.about(item.key)
            for blame in case.blames
            if blame.key == item.key
        ]

    def refuse(
        self,
        view: Watched,
        type_url: str,
        name: str,
        proxy: Any = PROXY,
        had: xds.Resource | None = None,
    ) -> None:
        resource = view.current.get(type_url, name)
        assert resource is not None
        refusal = Refusal(type_url, name, resource.version, "no", 1, 0.0)
        state = TypeState(Subscription(type_url), {name: had} if had is not None else {})
        self.judge.answered(proxy, state, (refusal,))


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


# ---- objects that are in one resource with others -------------------------------------------------------------------


async def test_a_service_that_makes_a_route_configuration_bad_is_taken_back_and_holds_back_no_other():
    odd = unchecked(
        service_entry("odd"), {**service_entry("odd").raw["spec"], "hosts": ["odd\n.shop.svc.cluster.local"]}
    )  # fmt: skip
    async with judging() as world:
        await world.change(service_entry(), odd)
        view = await watch(world.groups, PROXY)
        world.refuse(view, xds.ROUTE, "9080")
        assert (await world.taken_back()).key == odd.key
        assert world.said(odd) == ["spec.hosts[0]"]
        await world.change(service_entry("third"))
        now = view.current.get(xds.ROUTE, "9080")
        assert now is not None
        assert b"odd" not in now.body
        assert b"third.shop" in now.body
        assert world.holds.empty(), "nobody's routes are held"
        assert world.said(odd) == ["spec.hosts[0]"], "it is still not in force"


async def test_what_is_put_again_and_refused_again_is_taken_back_again():
    bad = route(
        [{"match": [{"uri": {"regex": "(("}}], "route": [{"destination": {"host": "reviews"}}]}]
    )
    async with judging() as world:
        await world.change(service_entry(), bad)
        view = await watch(world.groups, PROXY)
        before = view.current.get(xds.ROUTE, "9080")
        world.refuse(view, xds.ROUTE, "9080")
        await world.taken_back()
        # The service changes in what its routes do not say: the very same bytes come again.
        await world.change(service_entry(location="MESH_EXTERNAL"))
        again = view.current.get(xds.ROUTE, "9080")
        assert again is not None
        assert before is not None
        assert again.version == before.version
        assert world.said(bad) == []
        world.refuse(view, xds.ROUTE, "9080")
        assert (await world.taken_back()).key == bad.key
        assert world.said(bad) == ["spec.http[0].match[0].uri.regex"]


async def test_what_is_said_of_a_taken_back_object_outlasts_changes_of_others_in_the_resource():
    bad = route(
        [{"match": [{"uri": {"regex": "(("}}], "route": [{"destination": {"host": "reviews"}}]}]
    )
    async with judging() as world:
        await world.change(service_entry(), service_entry("other"), bad)
        view = await watch(world.groups, PROXY)
        world.refuse(view, xds.ROUTE, "9080")
        await world.taken_back()
        await world.change(
            service_entry("other", ports=[{"number": 9080, "name": "http2", "protocol": "HTTP2"}])
        )
        assert world.said(bad) == ["spec.http[0].match[0].uri.regex"]
        await world.change(route([]))
        assert world.said(bad) == []


async def test_two_bad_objects_of_one_host_are_both_found_and_both_taken_back():
    regex = route(
        [{"match": [{"uri": {"regex": "(("}}], "route": [{"destination": {"host": "reviews"}}]}]
    )
    rule = make("DestinationRule", "r", {"host": "reviews"})
    pool = {"connectionPool": {"tcp": {"maxConnections": -5}}}
    negative = unchecked(rule, {"host": "reviews", "trafficPolicy": pool})
    async with judging() as world:
        await world.change(service_entry())
        view = await watch(world.groups, PROXY)
        await world.change(regex, negative)
        assert (await world.taken_back()).key == negative.key
        world.refuse(view, xds.ROUTE, "9080")
        assert (await world.taken_back()).key == regex.key
        assert world.said(negative) == ["spec.trafficPolicy.connectionPool.tcp.maxConnections"]
        assert world.said(regex) == ["spec.http[0].match[0].uri.regex"]
        assert view.current.get(xds.CLUSTER, NAME) is not None


def a_gateway(name: str = "edge", number: int = 80) -> ConfigObject[Any]:
    server = {"port": {"number": number, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    return make("Gateway", name, {"selector": {"istio": "ingress"}, "servers": [server]})


def at_edge(name: str, *http: Any) -> ConfigObject[Any]:
    there = {"route": [{"destination": {"host": "reviews"}}]}
    spec = {"hosts": [f"{name}.example.com"], "gateways": ["edge"], "http": [there]}
    return unchecked(
        make("VirtualService", name, spec), {**spec, "http": [*({**there, **part} for part in http), there]}
    )  # fmt: skip


async def test_a_gateway_that_comes_when_a_route_of_it_cannot_be_built_has_all_others_at_once():
    bad = at_edge("bad", {"match": [{"uri": {"prefix": "/x"}}], "retries": {"attempts": -1}})
    async with judging(scratch=False) as world:
        await world.change(service_entry(), a_gateway(), at_edge("good"), bad)
        view = await watch(world.groups, router())
        routes = view.current.get(xds.ROUTE, "http.80")
        assert routes is not None
        assert b"good.example.com" in routes.body
        assert b"bad.example.com" not in routes.body
        assert (await world.taken_back()).key == bad.key
        assert world.said(bad) == ["spec.http[0].retries.attempts"]


async def test_a_bad_port_of_a_gateway_is_put_down_to_it():
    good = a_gateway("other", 8080)
    spec = good.raw["spec"]
    server = {**spec["servers"][0], "port": {"number": 70000, "name": "http", "protocol": "HTTP"}}
    bad = unchecked(good, {**spec, "servers": [server]})
    async with judging() as world:
        await world.change(service_entry(), a_gateway(), at_edge("good"), bad)
        view = await watch(world.groups, router())
        world.refuse(view, xds.LISTENER, "0.0.0.0_70000", router())
        held = await asyncio.wait_for(world.holds.get(), 20)
        assert [name for _, name, _ in held] == ["0.0.0.0_70000"]
        assert world.said(bad) == ["spec.servers[0].port.number"]
        assert world.said(a_gateway()) == []


async def test_a_bad_workload_entry_is_told_from_the_service_that_selects_it():
    labels = {"labels": {"app": "reviews"}}
    good = [make("WorkloadEntry", f"w{n}", {"address": f"10.0.0.{n}", **labels}) for n in range(30)]
    bad = unchecked(good[17], {"address": "not-an-ip", **labels})
    subsets = [{"name": "all", "labels": {"app": "reviews"}}]
    rule = make("DestinationRule", "r", {"host": "reviews", "subsets": subsets})
    async with judging() as world:
        await world.change(service_entry(), rule, *good)
        await world.change(bad)
        view = await watch(world.groups, PROXY)
        world.refuse(view, xds.ENDPOINT, f"outbound|9080|all|{REVIEWS}")
        assert (await world.taken_back()).key == bad.key
        assert world.said(bad) == ["spec.address"]
        now = view.current.get(xds.ENDPOINT, NAME)
        assert now is not None
        assert b"10.0.0.17" in now.body, "it is as it was before"
        assert b"not-an-ip" not in now.body


async def test_of_an_inbound_listener_the_service_is_to_blame_and_not_the_policy_that_is_in_it_too():
    there: dict[str, Any] = {"endpoints": [{"address": PROXY.address}], "workloadSelector": None}
    odd = service_entry("odd", **there)
    ports = [{"number": 9090, "name": "http", "protocol": "HTTP", "targetPort": 70000}]
    bad = unchecked(odd, {**odd.raw["spec"], "ports": ports})
    strict = make("PeerAuthentication", "default", {"mtls": {"mode": "STRICT"}})
    async with judging() as world:
        await world.change(service_entry(**there), bad, strict)
        view = await watch(world.groups, PROXY)
        world.refuse(view, xds.LISTENER, "virtualInbound")
        assert (await world.taken_back()).key == bad.key
        assert world.said(bad) == ["spec.ports[0].targetPort"]
        assert world.said(strict) == []
        now = view.current.get(xds.LISTENER, "virtualInbound")
        assert now is not None
        assert b"inbound_9080" in now.body, "the other service's port is there"


class StrictRefused:
    """In the place of a scratch Envoy: one that takes no listener without chains for plaintext."""

    async def refuses(self, resource: xds.Resource) -> str:
        return "" if b"_plaintext" in resource.body else "no plaintext"

    async def close(self) -> None: ...


async def test_a_policy_that_makes_a_listener_bad_is_to_blame_for_it():
    there: dict[str, Any] = {"endpoints": [{"address": PROXY.address}], "workloadSelector": None}
    async with judging() as world:
        world.judge._scratch = StrictRefused()
        await world.change(service_entry(**there))
        strict = make("PeerAuthentication", "default", {"mtls": {"mode": "STRICT"}})
        await world.change(strict)
        view = await watch(world.groups, PROXY)
        world.refuse(view, xds.LISTENER, "virtualInbound")
        assert (await world.taken_back()).key == strict.key
        assert world.said(strict) == ["spec.mtls.mode"]
        assert world.said(service_entry()) == []


# ---- proxies that are wrong -------------------------------------------------------------------------------------------


class Counting:
    """A scratch that takes everything but what says that it is bad, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked = self.largest = 0

    async def refuses(self, resource: xds.Resource) -> str:
        self.asked += 1
        self.largest = max(self.largest, len(resource.body))
        return "bad" if b"(((" in resource.body else ""

    async def close(self) -> None: ...


async def test_who_refuses_everything_harms_nobody_and_costs_little():
    hostile = replace(PROXY, identity=workload_id("cluster.local", "shop", "hostile"))
    bad = route(
        [{"match": [{"uri": {"regex": "((("}}], "route": [{"destination": {"host": "reviews"}}]}]
    )
    async with judging(scratch=False) as world:
        scratch = Counting()
        world.judge._scratch = scratch
        await world.change(service_entry(), *(service_entry(f"s{n}") for n in range(600)), bad)
        view, others = await watch(world.groups, hostile), await watch(world.groups, PROXY)
        for url in (xds.CLUSTER, xds.ENDPOINT, xds.LISTENER):
            for name in view.current.names(url):
                world.refuse(view, url, name, hostile)
        world.refuse(others, xds.ROUTE, "9080")
        assert (await world.taken_back()).key == bad.key, "others are heard"
        assert world.said(bad) == ["spec.http[0].match[0].uri.regex"]
        assert scratch.asked < 150
        assert world.holds.empty()
        assert len(list(world.judge)) <= MOST_CASES
        assert all(case.blames or not case.proved for case in world.judge)


@pytest.mark.parametrize("had", [True, False])
async def test_what_a_proxy_has_taken_before_is_not_looked_at_again(had):
    bad = route(
        [{"match": [{"uri": {"regex": "((("}}], "route": [{"destination": {"host": "reviews"}}]}]
    )
    async with judging(scratch=False) as world:
        scratch = Counting()
        world.judge._scratch = scratch
        await world.change(service_entry(), *(service_entry(f"s{n}") for n in range(250)))
        view = await watch(world.groups, PROXY)
        before = view.current.get(xds.ROUTE, "9080")
        await world.change(bad)
        world.refuse(view, xds.ROUTE, "9080", had=before if had else None)
        assert (await world.taken_back()).key == bad.key
        assert world.said(bad) == ["spec.http[0].match[0].uri.regex"]
        assert (scratch.asked < 16) == had
        assert (scratch.largest < 5000) == had


async def test_what_is_proved_outlasts_a_flood_of_what_is_not():
    good = make("DestinationRule", "r", {"host": "reviews"})
    outlier = {"outlierDetection": {"maxEjectionPercent": 300}}
    bad = unchecked(good, {"host": "reviews", "trafficPolicy": outlier})
    async with judging() as world:
        await world.change(service_entry(), *(service_entry(f"s{n}") for n in range(600)), bad)
        view = await watch(world.groups, PROXY)
        world.refuse(view, xds.CLUSTER, NAME)
        held = await asyncio.wait_for(world.holds.get(), 20)
        names = [
            (url, name) for url in (xds.CLUSTER, xds.ENDPOINT) for name in view.current.names(url)
        ]
        for number in range(0, len(names), MOST_OPEN):
            who = workload_id("cluster.local", "shop", f"hostile-{number}")
            hostile = replace(PROXY, identity=who)
            flood = await watch(world.groups, hostile)
            for url, name in names[number : number + MOST_OPEN + 50]:
                world.refuse(flood, url, name, hostile)
        assert len(list(world.judge)) == MOST_CASES
        assert world.said(bad) == ["spec.trafficPolicy.outlierDetection.maxEjectionPercent"]
        assert [name for _, name, _ in held] == [NAME]
        assert world.holds.empty()


async def test_one_identity_opens_so_many_cases_and_gets_room_again_as_they_end():
    async with judging(scratch=False) as world:
        entries = [service_entry(f"s{n}") for n in range(MOST_OPEN + 10)]
        await world.change(*entries)
        view = await watch(world.groups, PROXY)
        for entry in entries:
            world.refuse(view, xds.CLUSTER, f"outbound|9080||{entry.spec.hosts[0]}")
        assert len(list(world.judge)) == MOST_OPEN
        await world.change(
            service_entry("s0", ports=[{"number": 9080, "name": "g", "protocol": "GRPC"}])
        )
        assert len(list(world.judge)) == MOST_OPEN - 1
        world.refuse(view, xds.CLUSTER, f"outbound|9080||{entries[0].spec.hosts[0]}")
        assert len(list(world.judge)) == MOST_OPEN


async def test_a_rule_that_makes_many_clusters_bad_is_taken_back_after_a_few_of_them():
    good = make("DestinationRule", "all", {"host": "*.shop.svc.cluster.local"})
    outlier = {"outlierDetection": {"maxEjectionPercent": 300}}
    bad = unchecked(good, {"host": "*.shop.svc.cluster.local", "trafficPolicy": outlier})
    entries = [service_entry(f"s{number}") for number in range(100)]
    async with judging() as world:
        await world.change(*entries)
        await world.change(bad)
        view = await watch(world.groups, PROXY)
        for entry in entries:
            world.refuse(view, xds.CLUSTER, f"outbound|9080||{entry.spec.hosts[0]}")
        assert (await world.taken_back()).key == bad.key
        assert world.holds.qsize() == MANY - 1
        cluster = view.current.get(xds.CLUSTER, f"outbound|9080||{entries[99].spec.hosts[0]}")
        assert cluster is not None
        assert b"outlier" not in cluster.body
        async with asyncio.timeout(20):
            while len(list(world.judge)) > MANY + 1:
                await asyncio.sleep(0)
        assert set(world.said(bad)) == {"spec.trafficPolicy.outlierDetection.maxEjectionPercent"}
        await world.change(*(service_entry(f"s{n}", location="MESH_EXTERNAL") for n in range(100)))
        assert world.said(bad) != [], "it is still not in force"
        await world.change(good)
        assert world.said(bad) == []


async def test_a_refusal_about_a_host_that_cannot_be_built_is_not_the_last_that_is_judged():
    rule = make("DestinationRule", "r", {"host": "reviews"})
    pool = {"connectionPool": {"tcp": {"maxConnections": -5}}}
    outlier = {"outlierDetection": {"maxEjectionPercent": 300}}
    unbuilt = unchecked(rule, {"host": "reviews", "trafficPolicy": pool})
    other = make("DestinationRule", "o", {"host": "other"})
    bad = unchecked(other, {"host": "other", "trafficPolicy": outlier})
    async with judging() as world:
        await world.change(service_entry(), service_entry("other"))
        view = await watch(world.groups, PROXY)
        await world.change(unbuilt, bad)
        world.refuse(view, xds.CLUSTER, NAME)
        world.refuse(view, xds.CLUSTER, "outbound|9080||other.shop.svc.cluster.local")
        await asyncio.wait_for(world.holds.get(), 20)
        assert world.said(bad) == ["spec.trafficPolicy.outlierDetection.maxEjectionPercent"]
        assert world.said(unbuilt) == ["spec.trafficPolicy.connectionPool.tcp.maxConnections"]


async def test_a_case_that_cannot_be_judged_is_not_the_last_one():
    class Broken(StrictRefused):
        asked = 0

        async def refuses(self, resource: xds.Resource) -> str:
            self.asked += 1
            if self.asked == 1:
                raise ZeroDivisionError
            return await super().refuses(resource)

    there: dict[str, Any] = {"endpoints": [{"address": PROXY.address}], "workloadSelector": None}
    strict = make("PeerAuthentication", "default", {"mtls": {"mode": "STRICT"}})
    async with judging() as world:
        world.judge._scratch = Broken()
        await world.change(service_entry(**there), strict)
        view = await watch(world.groups, PROXY)
        world.refuse(view, xds.CLUSTER, NAME)
        world.refuse(view, xds.LISTENER, "virtualInbound")
        assert (await world.taken_back()).key == strict.key


# ---- what nobody refuses ------------------------------------------------------------------------------------------------


async def test_hosts_that_several_virtual_services_name_are_refused_by_nobody_and_all_of_them_are_there():
    """Envoy takes a domain once, whatever its case; with its port it is a domain too, and that may be another's host."""
    there = {"route": [{"destination": {"host": "reviews"}}]}

    def named(name: str, host: str) -> ConfigObject[Any]:
        spec = {
            "hosts": [f"{name}.example.com"],
            "gateways": ["edge"],
            "http": [{**there, "name": name}],
        }
        return unchecked(make("VirtualService", name, spec), {**spec, "hosts": [host]})

    hosts = {
        "a": "x.example.com",
        "b": "x.example.com",
        "c": "X.Example.com",
        "d": "x.example.com:80",
        "e": "*",
        "f": "*",
    }
    async with judging() as world:
        await world.change(service_entry(), a_gateway(), *(named(*pair) for pair in hosts.items()))
        view = await watch(world.groups, router())
        routes = view.current.get(xds.ROUTE, "http.80")
        assert routes is not None
        scratch = ScratchEnvoy(find_envoy(""))
        assert await scratch.refuses(routes) == ""
        await scratch.close()
        made = {host.name: [route.name for route in host.routes] for host in virtual_hosts(routes)}
        assert made["x.example.com:80"] == ["a", "b", "c"]
        assert made["*:80"] == ["e", "f"]
