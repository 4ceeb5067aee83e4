"""RegistryService: leases, templates, and who may register what."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from services.pilot.api.access import Access
from services.pilot.api.config import ConfigService
from services.pilot.api.registry import AT_ONCE, ATTEMPTS, MOST_LABELS, RegistryService
from services.pilot.xds.connected import ConnectedProxies
from tests.unit.pilot_api.callers import (
    ADMINISTRATOR,
    TRUST_DOMAIN,
    WORKLOAD,
    Caller,
    Contested,
    a_workload_group,
    an_apply,
)
from windward import registration
from windward.api.registry.v1 import registry_pb2
from windward.registration import RegisteredWorkload
from windward.rpc.errors import RefusedError
from windward.store.errors import LeaseLost
from windward.store.keys import REGISTRATIONS, endpoint_key, endpoint_lease_key
from windward.store.memory import MemoryStore
from windward.store.protocol import Deleted, Entry, Lease

TTL_S = 15.0
KEY = endpoint_key("shop", "reviews-v1")
LEASE_KEY = endpoint_lease_key("shop", "reviews-v1")
AGENT: Any = Caller(WORKLOAD)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def a_service(
    store: MemoryStore, clock: Clock | None = None, **template: Any
) -> RegistryService:
    access = Access(TRUST_DOMAIN)
    config = ConfigService(store, access, ConnectedProxies(), "")
    administrator: Any = Caller(ADMINISTRATOR)
    answer = await config.Apply(an_apply(a_workload_group("reviews", **template)), administrator)
    assert answer.revision, answer.findings
    return RegistryService(store, access, TTL_S, clock or Clock())


def a_request(lease_id: int = 0, **fields: Any) -> registry_pb2.RegisterRequest:
    workload = {
        "namespace": "shop",
        "name": "reviews-v1",
        "address": "10.0.0.7",
        "workload_group": "reviews",
        **fields,
    }
    return registry_pb2.RegisterRequest(
        workload=registry_pb2.Workload(**workload), lease_id=lease_id
    )


async def record(store: MemoryStore) -> RegisteredWorkload:
    entry = await store.get(KEY)
    assert entry is not None
    return registration.decode(entry.value)


async def lease_of(store: MemoryStore) -> int:
    """The lease on which the workload lives; 0: none."""
    found = (await store.list(LEASE_KEY)).entries
    return found[0].lease if found else 0


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(RefusedError) as caught:
        await call
    return caught.value.code


async def test_a_registration_carries_its_groups_template_with_its_own_words_over_it():
    store = MemoryStore()
    service = await a_service(
        store, labels={"tier": "back"}, locality="eu/west", weight=3, ports={"http": 80, "admin": 1}
    )
    answer = await service.Register(
        a_request(labels={"version": "v1", "tier": "front"}, ports={"http": 9080}), AGENT
    )
    assert answer.ttl.ToMilliseconds() == TTL_S * 1000
    workload = await record(store)
    assert workload.labels == {"app": "reviews", "tier": "front", "version": "v1"}
    assert workload.ports == {"http": 9080, "admin": 1}
    assert (workload.locality, workload.weight) == ("eu/west", 3)
    assert workload.service_account == "reviews"


async def test_a_renewal_writes_nothing():
    store = MemoryStore()
    service = await a_service(store)
    first = await service.Register(a_request(), AGENT)
    again = await service.Register(a_request(first.lease_id), AGENT)
    assert (again.lease_id, again.revision) == (first.lease_id, first.revision)


async def test_a_renewal_keeps_the_lease_alive():
    clock = Clock()
    store = MemoryStore(clock)
    service = await a_service(store)
    lease = (await service.Register(a_request(), AGENT)).lease_id
    for _ in range(10):
        clock.now += TTL_S / 3
        await service.Register(a_request(lease), AGENT)
    assert await lease_of(store) == lease
    clock.now += TTL_S + 1
    assert await lease_of(store) == 0


async def test_the_record_outlives_its_lease():
    """What lapsed while no Pilot was there is known to the next one."""
    clock = Clock()
    store = MemoryStore(clock)
    service = await a_service(store)
    await service.Register(a_request(), AGENT)
    clock.now += 10 * TTL_S
    assert await lease_of(store) == 0
    assert (await record(store)).name == "reviews-v1"


async def test_a_lost_lease_is_claimed_again_without_a_word_about_the_record():
    clock = Clock()
    store = MemoryStore(clock)
    service = await a_service(store)
    first = await service.Register(a_request(), AGENT)
    clock.now += TTL_S + 1
    answer = await service.Register(a_request(first.lease_id), AGENT)
    assert answer.lease_id != first.lease_id
    assert await lease_of(store) == answer.lease_id
    entry = await store.get(KEY)
    assert entry is not None
    assert entry.mod_revision == first.revision


class Counted(MemoryStore):
    """Counts what is asked of it; can be slow."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.at_once = self.most_at_once = 0
        self.slow = asyncio.Event()
        self.slow.set()

    async def get(self, key: str, *, revision: int | None = None) -> Entry | None:
        self.reads += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.slow.wait()
        self.at_once -= 1
        return await super().get(key, revision=revision)


async def test_two_of_three_renewals_do_not_look_at_the_store():
    clock, store = Clock(), Counted()
    service = await a_service(store, clock)
    answer = await service.Register(a_request(), AGENT)
    store.reads = 0
    for _ in range(2):
        clock.now += TTL_S / 3
        assert await service.Register(a_request(answer.lease_id), AGENT) == answer
    assert store.reads == 0
    clock.now += TTL_S / 3
    await service.Register(a_request(answer.lease_id), AGENT)
    assert store.reads > 0


async def test_a_lapsed_lease_is_replaced_without_looking_and_looked_at_next_time():
    clock, store = Clock(), Counted()
    service = await a_service(store, clock)
    first = await service.Register(a_request(), AGENT)
    await store.revoke(first.lease_id)
    clock.now += 3 * TTL_S
    store.reads = 0
    answer = await service.Register(a_request(first.lease_id), AGENT)
    assert store.reads == 0
    assert await lease_of(store) == answer.lease_id != first.lease_id
    assert answer.revision == first.revision
    await service.Register(a_request(answer.lease_id), AGENT)
    assert store.reads > 0


async def test_a_lapsed_lease_of_a_record_that_is_another_by_now_is_looked_at():
    store = Counted()
    service = await a_service(store)
    first = await service.Register(a_request(), AGENT)
    await store.revoke(first.lease_id)
    other = RegistryService(store, Access(TRUST_DOMAIN), TTL_S)
    await other.Register(a_request(address="10.0.0.8"), AGENT)
    answer = await service.Register(a_request(first.lease_id), AGENT)
    assert (await record(store)).address == "10.0.0.7"
    assert await lease_of(store) == answer.lease_id


async def test_what_is_said_differently_is_looked_at():
    store = Counted()
    service = await a_service(store)
    answer = await service.Register(a_request(), AGENT)
    for request in (a_request(answer.lease_id, unhealthy=True), a_request(labels={"a": "b"})):
        store.reads = 0
        await service.Register(request, AGENT)
        assert store.reads > 0
    store.reads = 0
    other: Any = Caller("spiffe://cluster.local/ns/shop/sa/ratings")
    call = service.Register(a_request(answer.lease_id), other)
    assert await code_of(call) is grpc.StatusCode.PERMISSION_DENIED


async def test_a_workload_that_was_deregistered_is_written_again():
    store = MemoryStore()
    service = await a_service(store)
    answer = await service.Register(a_request(), AGENT)
    request = registry_pb2.DeregisterRequest(namespace="shop", name="reviews-v1")
    await service.Deregister(request, AGENT)
    await service.Register(a_request(answer.lease_id), AGENT)
    assert await lease_of(store)
    assert (await record(store)).name == "reviews-v1"


async def test_many_agents_at_once_wait_in_line():
    store = Counted()
    service = await a_service(store)
    store.slow.clear()
    calls = [
        asyncio.create_task(service.Register(a_request(name=f"reviews-{number}"), AGENT))
        for number in range(3 * AT_ONCE)
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert store.most_at_once == AT_ONCE
    calls[0].cancel()
    store.slow.set()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert (
        sum(isinstance(item, registry_pb2.RegisterResponse) for item in answers) == len(calls) - 1
    )


async def test_any_pilot_renews_the_lease_that_another_granted():
    store = MemoryStore()
    one = await a_service(store)
    other = RegistryService(store, Access(TRUST_DOMAIN), TTL_S)
    first = await one.Register(a_request(), AGENT)
    again = await other.Register(a_request(first.lease_id), AGENT)
    assert (again.lease_id, again.revision) == (first.lease_id, first.revision)


class Brief(MemoryStore):
    """Its next leases end before anything is written on them."""

    brief = 0

    async def grant(self, ttl_s: float) -> Lease:
        lease = await super().grant(ttl_s)
        if self.brief:
            self.brief -= 1
            await self.revoke(lease.id)
        return lease


async def test_a_lease_that_ends_before_it_is_used_is_granted_anew():
    store = Brief()
    service = await a_service(store)
    store.brief = 2
    answer = await service.Register(a_request(), AGENT)
    assert await lease_of(store) == answer.lease_id != 0


async def test_a_change_is_written_under_the_same_lease():
    store = MemoryStore()
    service = await a_service(store)
    first = await service.Register(a_request(), AGENT)
    second = await service.Register(a_request(first.lease_id, unhealthy=True), AGENT)
    assert second.lease_id == first.lease_id
    assert second.revision > first.revision
    assert (await record(store)).unhealthy


async def test_an_agent_that_forgot_its_lease_takes_its_record_over():
    clock = Clock()
    store = MemoryStore(clock)
    service = await a_service(store)
    await service.Register(a_request(), AGENT)
    clock.now += TTL_S / 2
    await service.Register(a_request(), AGENT)
    clock.now += TTL_S * 0.75
    assert await lease_of(store), "the old lease must not take the new claim along"


async def test_a_lost_race_is_run_again_a_few_times():
    store = Contested(times=0)
    service = await a_service(store)
    store.commits, store.times = 0, ATTEMPTS - 1
    assert (await service.Register(a_request(), AGENT)).revision
    store.commits, store.times = 0, ATTEMPTS
    call = service.Register(a_request(unhealthy=True), AGENT)
    assert await code_of(call) is grpc.StatusCode.ABORTED


@pytest.mark.parametrize(
    "identity",
    [
        "spiffe://cluster.local/ns/shop/sa/ratings",
        "spiffe://cluster.local/ns/other/sa/reviews",
        "spiffe://cluster.local/reviews",
        ADMINISTRATOR,
    ],
)
async def test_nobody_registers_or_deregisters_for_another(identity):
    store = MemoryStore()
    service = await a_service(store)
    other: Any = Caller(identity)
    denied = grpc.StatusCode.PERMISSION_DENIED
    assert await code_of(service.Register(a_request(), other)) is denied
    assert await store.get(KEY) is None
    await service.Register(a_request(), AGENT)
    request = registry_pb2.DeregisterRequest(namespace="shop", name="reviews-v1")
    assert await code_of(service.Deregister(request, other)) is denied
    assert await store.get(KEY) is not None


async def test_callers_without_a_certificate_are_refused():
    service = await a_service(MemoryStore())
    nobody: Any = Caller()
    unauthenticated = grpc.StatusCode.UNAUTHENTICATED
    assert await code_of(service.Register(a_request(), nobody)) is unauthenticated
    request = registry_pb2.DeregisterRequest(namespace="shop", name="reviews-v1")
    assert await code_of(service.Deregister(request, nobody)) is unauthenticated


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"namespace": ""}, "workload.namespace"),
        ({"namespace": "a/b"}, "workload.namespace"),
        ({"name": "Reviews"}, "workload.name"),
        ({"name": "x" * 64}, "workload.name"),
        ({"address": ""}, "workload.address"),
        ({"address": "reviews.shop"}, "workload.address"),
        ({"address": "10.0.0.7:80"}, "workload.address"),
        ({"workload_group": ""}, "workload_group"),
        ({"labels": {str(n): "" for n in range(MOST_LABELS + 1)}}, "labels"),
        ({"ports": {str(n): n for n in range(MOST_LABELS + 1)}}, "ports"),
    ],
)
async def test_what_cannot_be_registered_is_refused_by_field(fields, word):
    service = await a_service(MemoryStore())
    with pytest.raises(RefusedError, match=word) as caught:
        await service.Register(a_request(**fields), AGENT)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_group_that_is_not_there_is_named():
    service = await a_service(MemoryStore())
    with pytest.raises(RefusedError, match="WorkloadGroup shop/absent") as caught:
        await service.Register(a_request(workload_group="absent"), AGENT)
    assert caught.value.code is grpc.StatusCode.NOT_FOUND


async def test_a_deregistration_takes_record_and_lease_in_one_go():
    """Who watches must know that it went on purpose, and did not lose its lease."""
    store = MemoryStore()
    service = await a_service(store)
    answer = await service.Register(a_request(), AGENT)
    watch = store.watch(REGISTRATIONS, from_revision=answer.revision + 1)
    request = registry_pb2.DeregisterRequest(
        namespace="shop", name="reviews-v1", lease_id=answer.lease_id
    )
    await service.Deregister(request, AGENT)
    gone = (await anext(watch)).changes
    await watch.aclose()
    assert {item.key for item in gone if isinstance(item, Deleted)} == {KEY, LEASE_KEY}
    with pytest.raises(LeaseLost):
        await store.keep_alive(answer.lease_id)


async def test_deregistering_what_has_lapsed_removes_it_still():
    clock = Clock()
    store = MemoryStore(clock)
    service = await a_service(store)
    lease = (await service.Register(a_request(), AGENT)).lease_id
    clock.now += TTL_S + 1
    request = registry_pb2.DeregisterRequest(namespace="shop", name="reviews-v1", lease_id=lease)
    await service.Deregister(request, AGENT)
    assert await store.get(KEY) is None


async def test_a_contested_deregistration_is_tried_a_few_times():
    store = Contested(times=0)
    service = await a_service(store)
    request = registry_pb2.DeregisterRequest(namespace="shop", name="reviews-v1")
    await service.Register(a_request(), AGENT)
    store.commits, store.times = 0, ATTEMPTS
    assert await code_of(service.Deregister(request, AGENT)) is grpc.StatusCode.ABORTED
    store.commits, store.times = 0, ATTEMPTS - 1
    await service.Deregister(request, AGENT)
    assert await store.get(KEY) is None


async def test_deregistering_what_another_lease_holds_changes_nothing():
    store = MemoryStore()
    service = await a_service(store)
    lease = (await service.Register(a_request(), AGENT)).lease_id
    request = registry_pb2.DeregisterRequest(
        namespace="shop", name="reviews-v1", lease_id=lease + 1
    )
    await service.Deregister(request, AGENT)
    assert await lease_of(store) == lease


async def test_deregistering_what_is_gone_is_no_error():
    service = await a_service(MemoryStore())
    request = registry_pb2.DeregisterRequest(namespace="shop", name="reviews-v1", lease_id=7)
    assert await service.Deregister(request, AGENT) == registry_pb2.DeregisterResponse()


async def test_workloads_are_listed_by_namespace_to_readers_alone():
    clock = Clock()
    service = await a_service(MemoryStore(clock))
    await service.Register(a_request(labels={"version": "v1"}), AGENT)
    administrator: Any = Caller(ADMINISTRATOR)

    async def listed(namespace: str) -> list[registry_pb2.Workload]:
        request = registry_pb2.ListWorkloadsRequest(namespace=namespace)
        return list((await service.ListWorkloads(request, administrator)).workloads)

    (found,) = await listed("shop")
    assert (found.name, found.address, found.service_account) == (
        "reviews-v1",
        "10.0.0.7",
        "reviews",
    )
    assert found.labels["version"] == "v1"
    assert not found.unhealthy
    assert await listed("") == [found]
    assert await listed("sho") == []
    clock.now += TTL_S + 1
    assert [item.unhealthy for item in await listed("shop")] == [True]
    call = service.ListWorkloads(registry_pb2.ListWorkloadsRequest(), AGENT)
    assert await code_of(call) is grpc.StatusCode.PERMISSION_DENIED


async def test_the_groups_probe_is_told_with_every_answer():
    store = MemoryStore()
    clock = Clock()
    service = await a_service(store, clock)
    answer = await service.Register(a_request(), AGENT)
    assert not answer.HasField("readiness_probe")
    config = ConfigService(store, Access(TRUST_DOMAIN), ConnectedProxies(), "")
    group = a_workload_group("reviews")
    group["spec"]["probe"] = {"tcpSocket": {"port": 8080}}
    administrator: Any = Caller(ADMINISTRATOR)
    applied = await config.Apply(an_apply(group), administrator)
    assert applied.revision, applied.findings
    clock.now += TTL_S
    answer = await service.Register(a_request(answer.lease_id), AGENT)
    assert answer.readiness_probe.tcp_socket.port == 8080
