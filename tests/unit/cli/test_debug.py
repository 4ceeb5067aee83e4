"""``windward debug`` and what ``windward proxy status`` says of refusals: the views of a real Pilot, printed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.unit.pilot.mesh import service_entry, sidecar, workload
from tests.unit.pilot.test_index import register
from tests.unit.pilot_admin.world import World, running
from windward.api.admin.v1 import admin_pb2
from windward.api.config.v1 import config_pb2
from windward.cli import debug, proxies
from windward.cli.failures import UserError
from windward.xds.resource import CLUSTER, SECRET


class Pilot:
    """Answers with what was read before: the command line is synchronous."""

    def __init__(self) -> None:
        self.answers: dict[str, list[bytes]] = {}
        self.asked: list[admin_pb2.ReadRequest] = []
        self.proxies: list[config_pb2.ProxyStatus] = []

    async def remember(self, world: World, **queries: dict[str, str]) -> None:
        for view, query in queries.items():
            rows = await world.read(view, **query)
            self.answers[view] = [json.dumps(row).encode() for row in rows]

    def Read(self, request: admin_pb2.ReadRequest, **_: Any) -> Iterator[admin_pb2.ReadResponse]:  # noqa: N802
        self.asked.append(request)
        rows = self.answers[request.view]
        most = request.limit or len(rows)
        for row in rows[:most]:
            yield admin_pb2.ReadResponse(rows=[row])
        yield admin_pb2.ReadResponse(truncated=most < len(rows))

    def ListProxies(self, *_: Any, **__: Any) -> config_pb2.ListProxiesResponse:  # noqa: N802
        return config_pb2.ListProxiesResponse(proxies=self.proxies)


@pytest.fixture
def pilot(monkeypatch) -> Pilot:
    found = Pilot()

    @contextmanager
    def connected(_: str | None) -> Iterator[Pilot]:
        yield found

    monkeypatch.setattr(debug, "admin", connected)
    monkeypatch.setattr(proxies, "pilot", connected)
    return found


async def test_every_view_prints_as_a_table_and_as_json(pilot, capsys):
    async with running() as world:
        await world.put(service_entry())
        await register(world.store, workload())
        await world.reached(lambda: any(world.index.snapshot.endpoints.values()))
        (await world.follow(sidecar())).answer("no such cluster", CLUSTER)
        await pilot.remember(world, **{name: {} for name in debug.COLUMNS})
    capsys.readouterr()  # what Pilot logged
    for view, columns in debug.COLUMNS.items():
        debug.show(view, {}, 0, "table", None)
        head, *lines = capsys.readouterr().out.splitlines()
        assert [name for name in columns if name not in head] == []
        assert len(lines) == len(pilot.answers[view]) > 0
        debug.show(view, {}, 0, "json", None)
        assert json.loads(capsys.readouterr().out) == [json.loads(r) for r in pilot.answers[view]]


async def test_filters_that_are_empty_are_not_asked_for_and_a_cut_is_said(pilot, capsys):
    async with running() as world:
        await world.put(service_entry(), service_entry("ratings"))
        await pilot.remember(world, services={})
    capsys.readouterr()
    debug.show("services", {"host": "", "namespace": None}, 1, "table", None)
    assert dict(pilot.asked[-1].query) == {}
    assert "only the first 1 rows" in capsys.readouterr().err
    debug.show("services", {"namespace": "shop"}, 2, "table", None)
    assert dict(pilot.asked[-1].query) == {"namespace": "shop"}
    assert capsys.readouterr().err == ""


async def test_proxy_status_says_whose_field_the_newest_refusal_is(pilot, capsys):
    identity, node = "spiffe://cluster.local/ns/shop/sa/web", "sidecar~1~web.shop~d"
    blame = {"object": "VirtualService/shop/reviews", "path": "spec.http[0]", "words": "bad regex"}
    rows = [
        {"at": "2030-01-02T00:00:00Z", "by": [identity], "blames": [blame]},
        {"at": "2030-01-01T00:00:00Z", "by": [identity], "blames": [{**blame, "path": "old"}]},
        {"at": "2030-01-03T00:00:00Z", "by": ["other"], "blames": [{**blame, "path": "theirs"}]},
    ]
    pilot.answers["status"] = []
    pilot.answers["refusals"] = [json.dumps(row).encode() for row in rows]
    kind = config_pb2.TypeStatus(state="ERROR", last_error="Envoy says no")
    pilot.proxies = [config_pb2.ProxyStatus(id=node, identity=identity, types={CLUSTER: kind})]
    proxies.status("table", None)
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"{node}: Cluster: Envoy says no",
        f"{node}: to blame: VirtualService/shop/reviews spec.http[0]: bad regex",
    ]
    kind.last_error = ""
    pilot.proxies = [config_pb2.ProxyStatus(id=node, identity=identity, types={CLUSTER: kind})]
    proxies.status("table", None)
    assert capsys.readouterr().err == ""


def test_proxy_status_has_a_column_a_type_and_how_long_pushes_took(pilot, capsys):
    def row(p50_ms: float | None) -> bytes:
        pushes = {"p50Ms": p50_ms, "p99Ms": p50_ms and 20.4}
        return json.dumps({"pilot": "here:15012", "pushes": pushes}).encode()

    synced = config_pb2.TypeStatus(state="SYNCED")
    pilot.answers["status"] = [row(7.2), row(None)]
    pilot.proxies = [
        config_pb2.ProxyStatus(id="router~1~gateway.shop~d", types={SECRET: synced}),
        config_pb2.ProxyStatus(id="sidecar~1~web.shop~d", types={CLUSTER: synced}),
    ]
    proxies.status("table", None)
    said = capsys.readouterr()
    head, *lines = (line.split() for line in said.out.splitlines())
    assert head == ["PROXY", "ADDRESS", "CDS", "EDS", "LDS", "RDS", "ECDS", "SDS", "IDENTITY"]
    assert [line[-1] for line in lines] == ["SYNCED", "-"]
    assert said.err == "from change to ACK, last pushes of here:15012: p50 7 ms, p99 20 ms\n"


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("", ""),
        ("vs", "VirtualService"),
        ("virtualservices", "VirtualService"),
        ("Workload", "workload"),
        ("workloads", "workload"),
    ],
)
def test_what_caused_a_push_has_many_names(word, kind):
    assert debug.cause(word) == kind


def test_what_causes_no_push_is_refused():
    with pytest.raises(UserError, match="there is no kind 'nonsense'"):
        debug.cause("nonsense")
