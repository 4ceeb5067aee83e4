"""The law of the engine: what a long history arrives at, step by step, is what a fresh Pilot makes of its end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from services.pilot import groups as module
from services.pilot.groups import Groups
from services.pilot.model.proxy import Proxy
from services.pilot.snapshot import Delta, MeshSnapshot
from services.pilot.state import MeshState
from tests.unit.pilot.mesh import (
    OPTIONS,
    WITH_MIXER,
    change,
    direct,
    generate,
    make,
    port,
    router,
    service_entry,
    sidecar,
    snap,
    workload,
)
from tests.unit.pilot.watched import watch
from windward.config.object import ConfigObject
from windward.registration import RegisteredWorkload
from windward.slices import Turns

NAMES = ["reviews", "ratings", "details"]
VERSIONS = ["v1", "v2"]
PROXIES = [
    sidecar("10.0.0.1", account="reviews", labels={"app": "reviews"}),
    sidecar("10.0.0.2", account="ratings", labels={"app": "ratings"}),
    direct("10.0.0.1", account="reviews", labels={"app": "reviews"}),
    sidecar("10.0.0.3", namespace="other"),
    router(),
    replace(sidecar("10.0.0.5"), vips=True),
    replace(sidecar("10.0.0.6"), proxyless=True),
]

names = st.sampled_from(NAMES)
versions = st.sampled_from(VERSIONS)
born = st.integers(0, 3)
namespaces = st.sampled_from(["shop", "other", "istio-system"])


@st.composite
def entries(draw) -> ConfigObject[Any]:
    protocols = st.sampled_from(["HTTP", "GRPC", "TCP"])
    ports = [port(9080, draw(protocols), "a"), port(9081, draw(protocols), "b")]
    changes: dict[str, Any] = {"ports": ports[: draw(st.integers(1, 2))], "born": draw(born)}
    if draw(st.booleans()):
        changes["exportTo"] = ["."]
    if draw(st.booleans()):
        changes["addresses"] = [f"10.1.0.{draw(st.integers(1, 3))}"]
    return service_entry(draw(names), **changes)


@st.composite
def destination_rules(draw) -> ConfigObject[Any]:
    name = draw(names)
    subsets = [
        {"name": subset, "labels": {"version": draw(versions)}}
        for subset in draw(st.sets(versions))
    ]
    spec: dict[str, Any] = {"host": f"{name}.shop.svc.cluster.local", "subsets": subsets}
    if draw(st.booleans()):
        mode = draw(st.sampled_from(["ISTIO_MUTUAL", "DISABLE"]))
        spec["trafficPolicy"] = {"tls": {"mode": mode}}
    return make("DestinationRule", name, spec, namespace=draw(namespaces), born=draw(born))


@st.composite
def virtual_services(draw) -> ConfigObject[Any]:
    name = draw(names)
    target = draw(names)
    destination = {"host": f"{target}.shop.svc.cluster.local", "subset": draw(versions)}
    http: dict[str, Any] = {"route": [{"destination": destination}]}
    if draw(st.booleans()):
        http["match"] = [{"uri": {"prefix": "/a"}, "sourceLabels": {"app": draw(names)}}]
    spec: dict[str, Any] = {
        "hosts": [f"{name}.shop.svc.cluster.local"],
        "http": [http],
        "gateways": draw(st.sampled_from([["mesh"], ["shop/edge"], ["mesh", "shop/edge"]])),
    }
    return make("VirtualService", f"{name}-{target}", spec, namespace="shop", born=draw(born))


@st.composite
def gateways(draw) -> ConfigObject[Any]:
    numbers = draw(st.lists(st.sampled_from([80, 8080]), min_size=1, unique=True))
    servers = [
        {"port": {"number": item, "name": f"p{item}", "protocol": "HTTP"}, "hosts": ["*"]}
        for item in numbers
    ]
    hosts = st.sampled_from([["*"], ["a.com"], ["a.com", "b.com"]])
    for number in range(draw(st.integers(0, 2))):
        tls = draw(
            st.sampled_from([{"mode": "ISTIO_MUTUAL"}, {"mode": "SIMPLE", "credentialName": "c"}])
        )
        port_ = {"number": 443, "name": f"s{number}", "protocol": "HTTPS"}
        servers.append({"port": port_, "hosts": draw(hosts), "tls": tls})
    return make("Gateway", "edge", {"selector": {"istio": "ingress"}, "servers": servers})


@st.composite
def policies(draw) -> ConfigObject[Any]:
    spec: dict[str, Any] = {
        "mtls": {"mode": draw(st.sampled_from(["UNSET", "STRICT", "PERMISSIVE", "DISABLE"]))}
    }
    if draw(st.booleans()):
        spec["selector"] = {"matchLabels": {"app": draw(names)}}
    return make("PeerAuthentication", "p", spec, namespace=draw(namespaces), born=draw(born))


@st.composite
def workloads(draw) -> RegisteredWorkload:
    number = draw(st.integers(1, 3))
    name = f"{NAMES[number - 1]}-{draw(versions)}"
    ports = {"a": draw(st.sampled_from([8080, 9080]))} if draw(st.booleans()) else {}
    return workload(name, f"10.0.0.{number}", ports=ports, unhealthy=draw(st.booleans()))


@st.composite
def sidecars(draw) -> ConfigObject[Any]:
    host = st.sampled_from(
        ["./*", "*/*", "~/*", *(f"*/{name}.shop.svc.cluster.local" for name in NAMES)]
    )
    spec: dict[str, Any] = {"egress": [{"hosts": draw(st.lists(host, min_size=1, unique=True))}]}
    if draw(st.booleans()):
        spec["workloadSelector"] = {"labels": {"app": draw(names)}}
    return make("Sidecar", draw(names), spec, namespace=draw(namespaces), born=draw(born))


objects = st.one_of(
    entries(), destination_rules(), virtual_services(), gateways(), policies(), sidecars()
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), objects),
        st.tuples(st.just("register"), workloads()),
        st.tuples(st.just("remove"), st.integers(0, 30)),
        st.tuples(st.just("deregister"), st.integers(0, 5)),
    ),
    min_size=1,
    max_size=25,
)


class Mesh:
    """A history, applied one step at a time; what there is now is kept beside it, for a state that starts from nothing."""

    def __init__(self) -> None:
        self.state = MeshState()
        self.objects: dict[Any, ConfigObject[Any]] = {}
        self.workloads: dict[Any, RegisteredWorkload] = {}

    def step(self, what: str, given: Any) -> Delta:
        if what == "put":
            self.objects[given.key] = given
            return change(self.state, given)
        if what == "register":
            self.workloads[given.namespace, given.name] = given
            return change(self.state, workloads=[given])
        held = self.objects if what == "remove" else self.workloads
        if not held:
            return change(self.state)
        key = sorted(held)[given % len(held)]
        del held[key]
        if what == "remove":
            return change(self.state, removed=[key])
        return change(self.state, gone=[key])

    def at_once(self) -> MeshSnapshot:
        return snap(*self.objects.values(), workloads=self.workloads.values())


def bodies(made):
    return {
        type_url: {name: item.body for name, item in named.items()}
        for type_url, named in made.items()
    }


@settings(max_examples=60, deadline=None)
@given(steps)
def test_step_by_step_is_the_same_as_at_once(history):
    """States, scopes and groups that lived through a history hold what new ones would build; nothing else wakes them."""
    asyncio.run(_step_by_step(history))


async def _step_by_step(history):
    mesh, groups = Mesh(), Groups(WITH_MIXER)
    await groups.publish(mesh.state.snapshot, Delta(checks=True))
    views = [await watch(groups, proxy) for proxy in PROXIES]
    for what, item in history:
        before = [(view.current, view.wakes) for view in views]
        delta = mesh.step(what, item)
        await groups.publish(mesh.state.snapshot, delta)
        if mesh.state.snapshot.version % 2:
            # As after a quiet moment.
            mesh.state.look_ahead()
            groups.look_ahead()
        for view, (old, wakes) in zip(views, before, strict=True):
            named = view.current.changed_since(old.version)
            differs = _differences(old.by_type, view.current.by_type)
            assert view.wakes == wakes + bool(differs) or named is None
            if named is not None:
                assert differs == {(url, name) for url, found in named.items() for name in found}
    at_once = mesh.at_once()
    assert replace(at_once, version=0, revision=0) == replace(
        mesh.state.snapshot, version=0, revision=0
    )
    # Who comes late gets scopes that are taken, for the most part, from those of other namespaces.
    late = [
        replace(proxy, address="10.0.0.9", namespace=namespace)
        for proxy in (PROXIES[0], PROXIES[2], PROXIES[-1])
        for namespace in ("late", "other", "istio-system")
    ]
    views += [await watch(groups, proxy) for proxy in late]
    for proxy, view in zip([*PROXIES, *late], views, strict=True):
        assert bodies(view.current.by_type) == bodies(generate(at_once, proxy, WITH_MIXER))


SERVICES = [f"s{number}" for number in range(6)]
HOSTS = [f"{name}.shop.svc.cluster.local" for name in SERVICES]


def _any_object(random) -> ConfigObject[Any]:
    """About services with a port each, so that a push assembles many, in many steps."""
    number = random.randrange(len(SERVICES))
    name, host = SERVICES[number], HOSTS[number]
    kind = random.choice(["ServiceEntry", "DestinationRule", "VirtualService"])
    if kind == "ServiceEntry":
        protocol = random.choice(["HTTP", "TCP"])
        return service_entry(name, ports=[port(9000 + number, protocol)])
    if kind == "DestinationRule":
        subsets = [
            {"name": it, "labels": {"version": it}} for it in VERSIONS[: random.randrange(3)]
        ]
        return make(kind, name, {"host": host, "subsets": subsets})
    hosts = random.sample(HOSTS, random.randint(1, len(HOSTS)))
    http = [{"route": [{"destination": {"host": random.choice(HOSTS)}}]}]
    return make(kind, "many", {"hosts": hosts, "http": http})


@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.randoms(use_true_random=False))
def test_whoever_comes_or_goes_while_a_push_is_half_way_has_what_all_have(random):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PUSH_SLICE_S", 0.0)
        patch.setattr(module, "Turns", lambda: Turns(0.0))
        asyncio.run(_while_pushes_are_half_way(random))


async def _while_pushes_are_half_way(random):
    state, groups, objects = MeshState(), Groups(OPTIONS), {}
    views: dict[Any, Any] = {}

    async def push(*items: ConfigObject[Any]) -> None:
        objects.update({item.key: item for item in items})
        delta = change(state, *items)
        await groups.publish(state.snapshot, delta)

    async def come(proxy: Proxy) -> None:
        for _ in range(random.randrange(25)):
            await asyncio.sleep(0)
        views[proxy] = await watch(groups, proxy)

    await push(*(service_entry(name, ports=[port(9000 + n)]) for n, name in enumerate(SERVICES)))
    for number in range(6):
        coming = [
            asyncio.create_task(come(sidecar(f"10.0.0.{number}", namespace=f"n{namespace}")))
            for namespace in random.sample(range(5), 2)
        ]
        await asyncio.sleep(0)
        await push(*(_any_object(random) for _ in range(random.randint(1, 4))))
        if random.random() < 0.3:
            coming[0].cancel()
        await asyncio.wait(coming)
        if views and random.random() < 0.5:
            views.pop(random.choice(list(views))).detach()
    for proxy, view in views.items():
        fresh = generate(snap(*objects.values()), proxy)
        assert bodies(view.current.by_type) == bodies(fresh)
        view.detach()
    assert groups.scopes() == []


def _differences(old, new):
    return {
        (url, name)
        for url in {**old, **new}
        for name in {**old.get(url, {}), **new.get(url, {})}
        if getattr(old.get(url, {}).get(name), "version", None)
        != getattr(new.get(url, {}).get(name), "version", None)
    }


@settings(max_examples=40, deadline=None)
@given(st.lists(objects, min_size=2, max_size=12, unique_by=lambda item: item.key), st.randoms())
def test_the_order_of_independent_changes_does_not_matter(items, random):
    shuffled = list(items)
    random.shuffle(shuffled)
    for proxy in PROXIES:
        assert bodies(generate(snap(*items), proxy)) == bodies(generate(snap(*shuffled), proxy))


@settings(max_examples=40, deadline=None)
@given(st.lists(objects, min_size=1, max_size=12, unique_by=lambda item: item.key))
def test_what_routes_and_listeners_refer_to_is_there(items):
    """Every EDS cluster has its endpoints, every RDS listener its routes, and nothing stands there unused."""
    from tests.unit.pilot.mesh import cluster, listener, manager
    from windward.xds import resource as xds

    snapshot = snap(*items)
    for proxy in PROXIES:
        made = generate(snapshot, proxy)
        eds = {
            name for name in made[xds.CLUSTER] if cluster(made, name).HasField("eds_cluster_config")
        }
        assert eds == set(made[xds.ENDPOINT])
        wanted = set()
        for name in made[xds.LISTENER]:
            for chain in listener(made, name).filter_chains:
                if chain.filters[0].name.endswith("http_connection_manager"):
                    wanted.add(manager(chain).rds.route_config_name)
        assert wanted - {""} <= set(made[xds.ROUTE])
