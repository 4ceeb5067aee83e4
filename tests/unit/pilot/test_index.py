"""The index over a store in memory: what is written there is what groups serve."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from envoy.config.core.v3 import health_check_pb2
from structlog.testing import capture_logs

from services.pilot import index as module
from services.pilot.credentials.folder import Folder
from services.pilot.due import Timing
from services.pilot.groups import Groups
from services.pilot.index import Index
from services.pilot.registry.sources import parse_sources
from services.pilot.state import MeshState
from tests.unit.pilot.credentials.test_folder import write
from tests.unit.pilot.mesh import (
    OPTIONS,
    REVIEWS,
    assignment,
    make,
    router,
    service_entry,
    sidecar,
)
from tests.unit.pilot.mesh import workload as registered
from tests.unit.pilot.watched import Watched, watch
from tests.unit.rpc.pki import Authority
from windward import registration
from windward.config.object import ConfigObject, ObjectKey
from windward.config.stored import Author, plan_changes, store_key
from windward.registration import RegisteredWorkload
from windward.slices import at_once
from windward.store.follow import follow
from windward.store.keys import endpoint_key, endpoint_lease_key
from windward.store.memory import MemoryStore
from windward.store.protocol import Deleted, Listing, Put, Remove, Transaction, Write
from windward.xds import resource as xds
from windward.xds.resource import ResourceSet

NAME = f"outbound|9080||{REVIEWS}"
AT = datetime(2030, 1, 1, tzinfo=UTC)


@asynccontextmanager
async def running(
    store: MemoryStore,
    *,
    ttl_s: float = 30.0,
    registries: tuple[str, ...] = (),
    credentials: Folder | None = None,
    on_changing: Callable[[tuple[ObjectKey, ...]], None] = lambda _: None,
    on_push: Callable[[bool], None] = lambda _: None,
):
    groups = Groups(OPTIONS)
    sources = parse_sources(registries)
    index = Index(store, groups, ttl_s, Timing(0.001, 0.001, 0.01), sources, credentials)
    index.on_changing = on_changing
    index.on_push = on_push
    task = asyncio.create_task(index.run())
    try:
        await asyncio.wait_for(index.ready.wait(), 10)
        yield groups
    finally:
        task.cancel()
        await asyncio.wait({task})
    assert task.cancelled()


async def until(view: Watched, holds: Callable[[ResourceSet], bool]) -> ResourceSet:
    """The first set for which something holds."""
    async with asyncio.timeout(10):
        made = view.current
        while not holds(made):
            made = await view.changed(made.version)
    return made


async def put(store: MemoryStore, *objects: ConfigObject[Any]) -> int:
    present = {item.key: await store.get(store_key(item.key)) for item in objects}
    plan = plan_changes(present, objects, (), Author("test", AT, ""))
    assert plan.transaction is not None
    return await store.commit(plan.transaction)


async def register(store: MemoryStore, workload: RegisteredWorkload) -> int:
    """Record and lease, as Pilot writes them; the lease."""
    place = (workload.namespace, workload.name)
    lease = await store.grant(3600)
    record = Write(endpoint_key(*place), registration.encode(workload))
    beside = Write(endpoint_lease_key(*place), b"", lease.id)
    await store.commit(Transaction((record, beside)))
    return lease.id


async def deregister(store: MemoryStore, workload: RegisteredWorkload) -> None:
    place = (workload.namespace, workload.name)
    gone = Remove(endpoint_key(*place)), Remove(endpoint_lease_key(*place))
    await store.commit(Transaction(gone))


def health(made: ResourceSet) -> dict[str, bool]:
    if NAME not in made.by_type[xds.ENDPOINT]:
        return {}
    return {
        item.endpoint.address.socket_address.address: item.health_status == health_check_pb2.HEALTHY
        for place in assignment(made.by_type, NAME).endpoints
        for item in place.lb_endpoints
    }


async def test_ready_with_what_was_there_already():
    store = MemoryStore()
    await put(store, service_entry())
    await register(store, registered())
    async with running(store) as groups:
        assert health((await watch(groups, sidecar())).current) == {"127.7.0.2": True}


async def test_ready_with_an_empty_store():
    async with running(MemoryStore()) as groups:
        assert (await watch(groups, sidecar())).current.version == 1


async def test_config_written_later_arrives_with_its_revision():
    store = MemoryStore()
    async with running(store) as groups:
        view = await watch(groups, sidecar())
        revision = await put(store, service_entry())
        made = await until(view, lambda item: NAME in item.by_type[xds.CLUSTER])
        assert made.revision == revision
        await store.commit(Transaction((Remove(store_key(service_entry().key)),)))
        await until(view, lambda item: NAME not in item.by_type[xds.CLUSTER])


async def test_workloads_come_and_go():
    store = MemoryStore()
    await put(store, service_entry())
    async with running(store) as groups:
        view = await watch(groups, sidecar())
        await register(store, registered())
        await until(view, lambda item: health(item) == {"127.7.0.2": True})
        await register(store, registered(unhealthy=True))
        await until(view, lambda item: health(item) == {"127.7.0.2": False})
        await deregister(store, registered())
        await until(view, lambda item: health(item) == {})


async def test_a_lease_that_ends_marks_then_forgets():
    store = MemoryStore()
    await put(store, service_entry())
    async with running(store, ttl_s=0.05) as groups:
        view = await watch(groups, sidecar())
        lease = await register(store, registered())
        await until(view, lambda item: health(item) == {"127.7.0.2": True})
        await store.revoke(lease)
        await until(view, lambda item: health(item) == {"127.7.0.2": False})
        await until(view, lambda item: health(item) == {})


async def test_the_record_of_what_stayed_away_leaves_the_store(monkeypatch):
    monkeypatch.setattr(module, "PROBE_S", 0.01)
    store = MemoryStore()
    async with running(store, ttl_s=0.05):
        lease = await register(store, registered())
        watch = store.watch(endpoint_key("shop", ""), from_revision=1)
        assert isinstance((await anext(watch)).changes[0], Put)
        await store.revoke(lease)
        async with asyncio.timeout(10):
            (gone,) = (await anext(watch)).changes
        await watch.aclose()
    assert isinstance(gone, Deleted)


async def test_a_lease_that_lapsed_before_this_pilot_came_is_not_believed_at_once():
    store = MemoryStore()
    await put(store, service_entry())
    await store.revoke(await register(store, registered()))
    async with running(store) as groups:
        view = await watch(groups, sidecar())
        assert health(view.current) == {"127.7.0.2": True}


async def test_a_lease_claimed_again_pushes_nothing():
    store = MemoryStore()
    await put(store, service_entry())
    lease = await register(store, registered())
    async with running(store) as groups:
        view = await watch(groups, sidecar())
        before = view.current.version
        await store.revoke(lease)
        await register(store, registered())
        await register(store, registered("reviews-v2", "127.7.0.3"))
        made = await until(view, lambda item: len(health(item)) == 2)
        assert all(health(made).values())
        assert made.version == before + 1


FILE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: db, namespace: shop}
spec:
  hosts: [db.example.com]
  resolution: STATIC
  ports: [{number: 5432, name: tcp, protocol: TCP}]
  endpoints: [{address: 10.0.0.1}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: w1, namespace: shop}
spec: {address: 127.7.0.9, labels: {app: reviews}}
"""


async def test_what_a_registry_finds_is_as_if_a_user_had_written_it(tmp_path):
    store = MemoryStore()
    await put(store, service_entry())
    (tmp_path / "db.yaml").write_text(FILE)
    async with running(store, registries=(f"file:{tmp_path}",)) as groups:
        view = await watch(groups, sidecar())
        assert "outbound|5432||db.example.com" in view.current.by_type[xds.CLUSTER]
        assert health(view.current) == {"127.7.0.9": True}
        origins = view.current.by_type[xds.CLUSTER]["outbound|5432||db.example.com"].origins
        assert {item.name for item in origins} == {"file:db"}
        (tmp_path / "db.yaml").unlink()
        made = await until(view, lambda item: health(item) == {})
        assert "outbound|5432||db.example.com" not in made.by_type[xds.CLUSTER]


async def test_listing_everything_again_without_a_difference_pushes_nothing(monkeypatch):
    class Listed(MemoryStore):
        lists = 0

        async def list(self, prefix: str, **rest: Any) -> Listing:
            self.lists += 1
            return await super().list(prefix, **rest)

    monkeypatch.setitem(follow.__kwdefaults__, "relist_every_s", 0.01)
    store = Listed()
    await put(store, service_entry())
    await register(store, registered())
    async with running(store) as groups:
        view = await watch(groups, sidecar())
        before, store.lists = view.current.version, 0
        async with asyncio.timeout(10):
            while store.lists < 10:
                await asyncio.sleep(0.01)
        assert (view.current.version, view.wakes) == (before, 0)
        await register(store, registered("reviews-v2", "127.7.0.3"))
        made = await until(view, lambda item: len(health(item)) == 2)
        assert made.version == before + 1


async def test_what_cannot_be_read_hurts_nothing_else():
    store = MemoryStore()
    bad = [
        Write(endpoint_key("shop", "broken"), b"{"),
        Write(store_key(service_entry("broken").key), b"not json"),
    ]
    await store.commit(Transaction(tuple(bad)))
    await put(store, service_entry())
    await register(store, registered())
    async with running(store) as groups:
        view = await watch(groups, sidecar())
        assert health(view.current) == {"127.7.0.2": True}
        await store.commit(Transaction((Write(endpoint_key("shop", "again"), b"\xff"),)))
        await register(store, registered("reviews-v2", "127.7.0.3"))
        await until(view, lambda item: len(health(item)) == 2)


async def test_many_changes_are_few_snapshots_and_the_last_one_has_all():
    store = MemoryStore()
    async with running(store) as groups:
        view = await watch(groups, sidecar())
        before = view.current.version
        for number in range(50):
            await put(store, service_entry(f"s{number}"))
        last = "outbound|9080||s49.shop.svc.cluster.local"
        made = await until(view, lambda item: last in item.by_type[xds.CLUSTER])
        assert made.version - before <= 50
        assert sum(name.startswith("outbound|") for name in made.by_type[xds.CLUSTER]) == 50


async def test_what_is_read_while_a_snapshot_is_made_is_of_the_next_one(monkeypatch):
    reading, making, read = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def held_up(work: Any) -> Any:
        """What is read waits until a snapshot is being made, and that one until it was read."""
        if work.gi_code is MeshState.applying.__code__ and reading.is_set():
            next(work)
            making.set()
            await read.wait()
        made = at_once(work)
        if isinstance(made, dict) and made:
            reading.set()
            await making.wait()
            read.set()
        return made

    told: list[tuple[ObjectKey, ...]] = []
    store = MemoryStore()
    async with running(store, on_changing=told.append) as groups:
        monkeypatch.setattr(module, "in_slices", held_up)
        view = await watch(groups, sidecar())
        await put(store, service_entry())
        await asyncio.wait_for(reading.wait(), 10)
        await register(store, registered())
        await until(view, lambda item: health(item) == {"127.7.0.2": True})
    assert told == [(), (), (service_entry().key,)]


async def test_the_beginning_of_a_push_is_told_and_its_end_after_the_last_stream_was_woken():
    told: list[bool | str] = []
    store = MemoryStore()
    async with running(store, on_push=told.append) as groups:
        view = await groups.attach(sidecar(), lambda: told.append("woken"))
        told.clear()
        await put(store, service_entry())
        async with asyncio.timeout(10):
            while told[-1:] != [False]:
                await asyncio.sleep(0)
        view.detach()
    assert told == [True, "woken", False]


async def test_every_kind_that_is_not_pilots_is_left_alone():
    store = MemoryStore()
    group = make(
        "WorkloadGroup",
        "reviews",
        {"template": {"serviceAccount": "reviews"}, "metadata": {"labels": {"app": "reviews"}}},
    )
    await put(store, group, service_entry())
    async with running(store) as groups:
        made = (await watch(groups, replace(sidecar(), name="other"))).current
        assert NAME in made.by_type[xds.CLUSTER]


async def test_credentials_are_there_from_the_first_and_those_that_are_not_are_said_once(tmp_path):
    port = {"number": 443, "name": "https", "protocol": "HTTPS"}
    servers = [
        {
            "port": {**port, "name": name},
            "hosts": [f"{name}.com"],
            "tls": {"mode": "SIMPLE", "credentialName": name},
        }
        for name in ("cert", "none")
    ]
    gateway = make("Gateway", "edge", {"selector": {"istio": "ingress"}, "servers": servers})
    store = MemoryStore()
    await put(store, gateway)
    material = Authority().material("gateway")
    write(tmp_path / "shop" / "cert", material)
    with capture_logs() as logs:
        async with running(store, credentials=Folder(tmp_path)) as groups:
            view = await watch(groups, router())
            assert view.current.names(xds.SECRET) == {"kubernetes://cert"}
            write(tmp_path / "shop" / "other", material)
            write(tmp_path / "shop" / "none", material)
            await until(view, lambda item: "kubernetes://none" in item.names(xds.SECRET))
    said = [item for item in logs if item["event"] == "credential.absent"]
    assert [(item["credential"], item["gateway"]) for item in said] == [("none", "shop/edge")]
    assert "PRIVATE KEY" not in str(logs)
