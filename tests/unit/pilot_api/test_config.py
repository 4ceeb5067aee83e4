"""ConfigService: all or nothing, every finding at once, and how far the proxies are."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from services.pilot.api import config as config_api
from services.pilot.api.access import Access
from services.pilot.api.checking import line_of
from services.pilot.api.config import ConfigService
from services.pilot.credentials.credential import Credential, pair_resource
from services.pilot.model.proxy import Proxy
from services.pilot.xds.connected import Connected, ConnectedProxies
from tests.unit.pilot_api.callers import (
    ADMINISTRATOR,
    MIXER,
    NETWORKING,
    TRUST_DOMAIN,
    WORKLOAD,
    Caller,
    Contested,
    a_ref,
    a_service_entry,
    a_workload_group,
    an_apply,
)
from tests.unit.xds.meshes import StillView, a_set, deltas
from windward.api.config.v1 import config_pb2
from windward.config.changing import ATTEMPTS
from windward.rpc.errors import RefusedError
from windward.slices import Slices
from windward.store.keys import CONFIG, HISTORY
from windward.store.memory import MemoryStore
from windward.store.protocol import Store
from windward.xds.resource import CLUSTER, ROUTE, SECRET, Origin, Resource
from windward.xds.stream import DeltaRequest, DeltaStream

ADMIN: Any = Caller(ADMINISTRATOR)
Applied = config_pb2.Applied


def a_service(store: Store, connected: ConnectedProxies | None = None) -> ConfigService:
    return ConfigService(
        store, Access(TRUST_DOMAIN), connected or ConnectedProxies(), "pilot.example:15012"
    )


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(RefusedError) as caught:
        await call
    return caught.value.code


# ---- changing ---------------------------------------------------------------------------------------------------------


async def test_apply_stores_every_object_at_one_revision_with_its_history():
    store = MemoryStore()
    answer = await a_service(store).Apply(
        an_apply(a_service_entry("a"), a_service_entry("b"), reason="first"), ADMIN
    )
    assert [item.action for item in answer.applied] == [Applied.CREATED] * 2
    entries = (await store.list(CONFIG)).entries
    assert {entry.mod_revision for entry in entries} == {answer.revision}
    records = [json.loads(entry.value) for entry in (await store.list(HISTORY)).entries]
    assert [(r["who"], r["why"], r["action"]) for r in records] == [
        (ADMINISTRATOR, "first", "created")
    ] * 2


async def test_apply_again_changes_nothing():
    store = MemoryStore()
    service = a_service(store)
    first = await service.Apply(an_apply(a_service_entry("a")), ADMIN)
    before = (await store.list("")).revision
    with capture_logs() as logs:
        again = await service.Apply(an_apply(a_service_entry("a")), ADMIN)
    assert not logs
    assert [item.action for item in again.applied] == [Applied.UNCHANGED]
    assert again.revision == first.revision
    assert (await store.list("")).revision == before


async def test_the_log_names_what_was_changed_of_what_was_applied():
    service = a_service(MemoryStore())
    await service.Apply(an_apply(a_service_entry("a")), ADMIN)
    with capture_logs() as logs:
        await service.Apply(an_apply(a_service_entry("a"), a_service_entry("b")), ADMIN)
    ((event, objects, count),) = ((log["event"], log["objects"], log["count"]) for log in logs)
    assert (event, objects, count) == ("config.changed", ["ServiceEntry/shop/b"], 1)


async def test_a_changed_object_has_the_next_generation():
    service = a_service(MemoryStore())
    await service.Apply(an_apply(a_service_entry("a", 80)), ADMIN)
    answer = await service.Apply(an_apply(a_service_entry("a", 81)), ADMIN)
    assert [(item.action, item.generation) for item in answer.applied] == [(Applied.CONFIGURED, 2)]


async def test_one_bad_object_stores_nothing_and_names_every_error():
    store = MemoryStore()
    bad = a_service_entry("bad")
    bad["spec"]["ports"][0]["number"] = "eighty"
    bad["spec"]["nonsense"] = 1
    answer = await a_service(store).Apply(an_apply(a_service_entry("good"), bad), ADMIN)
    assert answer.revision == 0
    assert list(answer.applied) == []
    paths = {finding.path for finding in answer.findings}
    assert {"spec.ports[0].number", "spec.nonsense"} <= paths
    assert {finding.object_index for finding in answer.findings} == {1}
    assert {finding.ref.name for finding in answer.findings} == {"bad"}
    assert (await store.list("")).entries == ()


async def test_findings_carry_the_file_and_the_line_of_their_field():
    bad = a_service_entry("bad")
    bad["spec"]["ports"][0]["number"] = 99_999
    given = config_pb2.ObjectInput(
        json=json.dumps(bad).encode(), file="mesh.yaml", lines={"": 1, "spec.ports[0]": 9}
    )
    answer = await a_service(MemoryStore()).Validate(
        config_pb2.ApplyRequest(objects=[given]), ADMIN
    )
    assert {(finding.file, finding.line) for finding in answer.findings} == {("mesh.yaml", 9)}


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("spec.http[0].route[1].weight", 5),
        ("spec.http[0].route[0]", 3),
        ("spec.http[1]", 2),
        ("metadata.name", 1),
        ("", 1),
    ],
)
def test_a_line_is_that_of_the_nearest_field_around(path, line):
    lines = {"": 1, "spec": 2, "spec.http[0]": 3, "spec.http[0].route[1]": 5}
    assert line_of(lines, path) == line


def test_without_lines_there_is_none():
    assert line_of({}, "spec.http[0]") == 0


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"1", b'"x"', b"null", b"\xff"])
async def test_what_is_no_object_is_a_finding(text):
    request = config_pb2.ApplyRequest(objects=[config_pb2.ObjectInput(json=text)])
    answer = await a_service(MemoryStore()).Apply(request, ADMIN)
    assert [finding.code for finding in answer.findings] == ["not-readable"]


async def test_objects_without_a_namespace_go_to_the_default_one():
    store = MemoryStore()
    request = an_apply(a_service_entry("a", namespace=""), default_namespace="shop")
    answer = await a_service(store).Apply(request, ADMIN)
    assert [item.ref.namespace for item in answer.applied] == ["shop"]
    stored = await a_service(store).Get(
        config_pb2.GetRequest(ref=a_ref("ServiceEntry", "a")), ADMIN
    )
    assert json.loads(stored.json)["metadata"]["namespace"] == "shop"


async def test_validate_stores_nothing():
    store = MemoryStore()
    answer = await a_service(store).Validate(an_apply(a_service_entry("a")), ADMIN)
    assert (list(answer.applied), answer.revision) == ([], 0)
    assert (await store.list("")).entries == ()


async def test_an_object_named_twice_is_refused():
    service = a_service(MemoryStore())
    request = an_apply(a_service_entry("a", 80), a_service_entry("a", 81))
    assert await code_of(service.Apply(request, ADMIN)) is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_lost_race_is_run_again():
    store = Contested(times=ATTEMPTS - 1)
    answer = await a_service(store).Apply(an_apply(a_service_entry("a")), ADMIN)
    assert answer.revision > 0
    assert store.commits == ATTEMPTS


async def test_a_race_that_is_lost_every_time_is_said():
    store = Contested(times=ATTEMPTS)
    call = a_service(store).Apply(an_apply(a_service_entry("a")), ADMIN)
    assert await code_of(call) is grpc.StatusCode.ABORTED
    assert (await store.list("")).entries == ()


async def test_writers_at_once_all_succeed_and_none_is_lost():
    store = MemoryStore()
    service = a_service(store)
    answers = await asyncio.gather(
        *(service.Apply(an_apply(a_service_entry("a", port)), ADMIN) for port in (81, 82, 83))
    )
    generations = sorted(answer.applied[0].generation for answer in answers)
    assert generations == [1, 2, 3]
    assert len((await store.list(HISTORY)).entries) == 3


async def test_delete_removes_all_or_nothing():
    store = MemoryStore()
    service = a_service(store)
    await service.Apply(an_apply(a_service_entry("a"), a_service_entry("b")), ADMIN)
    both = [a_ref("ServiceEntry", "a"), a_ref("ServiceEntry", "absent")]
    request = config_pb2.DeleteRequest(refs=both)
    assert await code_of(service.Delete(request, ADMIN)) is grpc.StatusCode.NOT_FOUND
    assert len((await store.list(CONFIG)).entries) == 2
    answer = await service.Delete(config_pb2.DeleteRequest(refs=both[:1] * 2), ADMIN)
    assert [item.action for item in answer.applied] == [Applied.DELETED]
    assert len((await store.list(CONFIG)).entries) == 1
    assert len((await store.list(HISTORY)).entries) == 3


async def test_objects_by_the_hundred_are_applied_and_deleted_whole():
    store = MemoryStore()
    service = a_service(store)
    names = [f"s{number}" for number in range(200)]
    answer = await service.Apply(an_apply(*map(a_service_entry, names)), ADMIN)
    assert {item.action for item in answer.applied} == {Applied.CREATED}
    listed = await service.List(config_pb2.ListRequest(), ADMIN)
    assert {item.ref.name for item in listed.objects} == set(names)
    bad = a_service_entry("bad")
    bad["spec"]["nonsense"] = 1
    refused = await service.Apply(an_apply(*map(a_service_entry, [*names, "new"]), bad), ADMIN)
    assert ([f.object_index for f in refused.findings], refused.revision) == ([201], 0)
    refs = [a_ref("ServiceEntry", name) for name in names]
    await service.Delete(config_pb2.DeleteRequest(refs=refs), ADMIN)
    assert (await store.list(CONFIG)).entries == ()


@pytest.mark.parametrize("method", ["Apply", "Delete"])
@pytest.mark.parametrize("identity", [WORKLOAD, MIXER])
async def test_only_the_administrator_writes(method, identity):
    store = MemoryStore()
    request = (
        an_apply(a_service_entry("a"))
        if method == "Apply"
        else config_pb2.DeleteRequest(refs=[a_ref("ServiceEntry", "a")])
    )
    call = getattr(a_service(store), method)(request, Caller(identity))
    assert await code_of(call) is grpc.StatusCode.PERMISSION_DENIED
    assert (await store.list("")).entries == ()


# ---- reading ----------------------------------------------------------------------------------------------------------


async def test_lists_are_of_a_kind_and_a_namespace():
    store = MemoryStore()
    service = a_service(store)
    await service.Apply(
        an_apply(
            a_service_entry("a"),
            a_service_entry("b", namespace="other"),
            a_workload_group("reviews"),
        ),
        ADMIN,
    )

    async def listed(**fields: str) -> list[tuple[str, str]]:
        answer = await service.List(config_pb2.ListRequest(**fields), ADMIN)
        return [(item.ref.kind, item.ref.name) for item in answer.objects]

    assert len(await listed()) == 3
    assert await listed(group=NETWORKING, kind="ServiceEntry", namespace="shop") == [
        ("ServiceEntry", "a")
    ]
    assert await listed(group=NETWORKING, kind="ServiceEntry") == [
        ("ServiceEntry", "b"),
        ("ServiceEntry", "a"),
    ]
    assert await listed(namespace="shop") == [("ServiceEntry", "a"), ("WorkloadGroup", "reviews")]


async def test_get_gives_what_was_written_with_its_revision():
    service = a_service(MemoryStore())
    applied = await service.Apply(an_apply(a_service_entry("a")), ADMIN)
    found = await service.Get(config_pb2.GetRequest(ref=a_ref("ServiceEntry", "a")), ADMIN)
    assert json.loads(found.json) == a_service_entry("a")
    assert (found.revision, found.generation) == (applied.revision, 1)


@pytest.mark.parametrize(
    ("ref", "code"),
    [
        (a_ref("ServiceEntry", "absent"), grpc.StatusCode.NOT_FOUND),
        (a_ref("ServiceEntry", ""), grpc.StatusCode.INVALID_ARGUMENT),
        (a_ref("ServiceEntry", "a/b"), grpc.StatusCode.INVALID_ARGUMENT),
        (config_pb2.ObjectRef(), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_what_cannot_be_got_says_why(ref, code):
    call = a_service(MemoryStore()).Get(config_pb2.GetRequest(ref=ref), ADMIN)
    assert await code_of(call) is code


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("Get", config_pb2.GetRequest(ref=a_ref("ServiceEntry", "a"))),
        ("List", config_pb2.ListRequest()),
        ("Validate", config_pb2.ApplyRequest()),
        ("ListProxies", config_pb2.ListProxiesRequest()),
        ("GetProxyConfig", config_pb2.GetProxyConfigRequest(proxy="a")),
        ("GetObjectStatus", config_pb2.GetRequest(ref=a_ref("ServiceEntry", "a"))),
    ],
)
async def test_workloads_read_nothing(method, request_):
    call = getattr(a_service(MemoryStore()), method)(request_, Caller(WORKLOAD))
    assert await code_of(call) is grpc.StatusCode.PERMISSION_DENIED


# ---- proxies ----------------------------------------------------------------------------------------------------------

ORIGIN = Origin(NETWORKING, "ServiceEntry", "shop", "a")


def a_proxy(name: str, *, bad: bool = False, answered: bool = True) -> Connected:
    """A proxy that was sent a cluster of ServiceEntry a and a route of nobody's."""
    proxy = Proxy.from_node(f"sidecar~10.0.0.1~{name}.shop~shop.svc.cluster.local", {}, None)
    cluster = Resource(CLUSTER, "outbound|80||a", b"body", (ORIGIN,))
    stream = DeltaStream(a_set(3, cluster, Resource(ROUTE, "unasked", b"")))
    stream.request(DeltaRequest(CLUSTER))
    for response in deltas(stream.take()):
        if answered:
            error = "ring size" if bad else ""
            stream.request(DeltaRequest(CLUSTER, nonce=response.nonce, error=error))
    stream.take()
    return Connected(proxy, stream, datetime(2026, 1, 1, tzinfo=UTC), StillView(stream.current))


async def a_mesh(*proxies: Connected) -> ConfigService:
    connected = ConnectedProxies()
    for proxy in proxies:
        connected.add(proxy)
    service = a_service(MemoryStore(), connected)
    await service.Apply(an_apply(a_service_entry("a"), a_service_entry("unused")), ADMIN)
    return service


async def test_the_status_of_an_object_counts_proxies_and_names_refusals():
    service = await a_mesh(
        a_proxy("good"), a_proxy("bad", bad=True), a_proxy("waiting", answered=False)
    )
    request = config_pb2.GetRequest(ref=a_ref("ServiceEntry", "a"))
    status = await service.GetObjectStatus(request, ADMIN)
    assert (status.proxies, status.acked) == (3, 1)
    (rejection,) = status.rejections
    assert rejection.startswith("sidecar~10.0.0.1~bad.shop~")
    assert rejection.endswith("outbound|80||a: ring size")


async def test_others_have_their_turn_while_proxies_are_asked_about_an_object(monkeypatch):
    monkeypatch.setattr(config_api, "Slices", lambda: Slices(0.0))
    service, turns = await a_mesh(*(a_proxy(f"web-{number}") for number in range(5))), 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    going_on = asyncio.create_task(others())
    request = config_pb2.GetRequest(ref=a_ref("ServiceEntry", "a"))
    assert (await service.GetObjectStatus(request, ADMIN)).proxies == 5
    going_on.cancel()
    assert turns >= 5


async def test_an_object_that_no_proxy_uses_waits_for_none():
    service = await a_mesh(a_proxy("good"))
    request = config_pb2.GetRequest(ref=a_ref("ServiceEntry", "unused"))
    status = await service.GetObjectStatus(request, ADMIN)
    assert (status.proxies, status.acked, list(status.rejections)) == (0, 0, [])


async def test_proxies_are_listed_with_their_state_by_type():
    service = await a_mesh(a_proxy("good"), a_proxy("bad", bad=True))
    answer = await service.ListProxies(config_pb2.ListProxiesRequest(), ADMIN)
    states = {item.id.split("~")[2]: item.types[CLUSTER] for item in answer.proxies}
    good, bad = states["good.shop"], states["bad.shop"]
    assert (good.state, good.resources, good.last_error) == ("SYNCED", 1, "")
    assert good.sent_revision == good.acked_revision == 30
    assert (bad.state, bad.last_error) == ("ERROR", "ring size")
    assert {item.pilot for item in answer.proxies} == {"pilot.example:15012"}


async def test_what_is_asked_about_many_lets_others_have_their_turn_after_each():
    """A thousand proxies of a thousand services held the event loop for nearly a second."""
    proxies = [a_proxy(f"web-{number}") for number in range(5)]
    service = await a_mesh(*proxies)
    assert sum(1 for _ in service._statuses()) == 5
    assert sum(1 for _ in config_api._resources(proxies[0], set())) == 1
    entries = (await service._store.list(CONFIG)).entries
    assert sum(1 for _ in config_api._objects(entries, "")) == 2


async def test_a_proxys_config_is_what_it_asked_for_with_origins():
    service = await a_mesh(a_proxy("good"))
    request = config_pb2.GetProxyConfigRequest(proxy="good.shop")
    (resource,) = (await service.GetProxyConfig(request, ADMIN)).resources
    assert (resource.type_url, resource.name, resource.acked) == (CLUSTER, "outbound|80||a", True)
    assert list(resource.origins) == [a_ref("ServiceEntry", "a")]
    other = config_pb2.GetProxyConfigRequest(proxy="good", type_urls=[ROUTE])
    assert list((await service.GetProxyConfig(other, ADMIN)).resources) == []


async def test_a_key_is_never_shown():
    """Neither to administrators: who reads a dump needs none, and dumps are passed on."""
    secret = pair_resource("cert", Credential(b"the chain", b"the key"), ())
    stream = DeltaStream(a_set(3, secret))
    stream.request(DeltaRequest(SECRET, subscribe=(secret.name,)))
    deltas(stream.take())
    item = a_proxy("good")
    service = await a_mesh(Connected(item.proxy, stream, item.since, StillView(stream.current)))
    request = config_pb2.GetProxyConfigRequest(proxy="good.shop")
    (shown,) = (await service.GetProxyConfig(request, ADMIN)).resources
    assert (shown.name, shown.version) == (secret.name, secret.version)
    assert b"the key" not in shown.body
    assert b"the chain" in shown.body
    assert b"[redacted]" in shown.body


async def test_a_proxy_is_named_exactly():
    service = await a_mesh(a_proxy("twin"), a_proxy("twin"))
    absent = service.GetProxyConfig(config_pb2.GetProxyConfigRequest(proxy="absent"), ADMIN)
    assert await code_of(absent) is grpc.StatusCode.NOT_FOUND
    several = service.GetProxyConfig(config_pb2.GetProxyConfigRequest(proxy="twin"), ADMIN)
    assert await code_of(several) is grpc.StatusCode.INVALID_ARGUMENT
