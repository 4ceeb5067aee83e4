"""What Envoy is served: its socket is Envoy's alone, and an earlier run's state is there before any Pilot is."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2
from prometheus_client import CollectorRegistry

from services.agent.envoy.bootstrap import SOCKET
from services.agent.envoy.compose import node_id
from services.agent.xds_proxy.cache import Accepted, Held
from services.agent.xds_proxy.disk import LastGood
from services.agent.xds_proxy.last_good import Owner
from services.agent.xds_proxy.served import Served
from services.citadel.authority.root import load_or_create
from services.citadel.authority.signing import Policy, issue
from tests.unit.agent.settings import settings
from windward.client.certificates import CertificateKeeper, Enrolment
from windward.identity.csr import new_csr
from windward.identity.keys import key_pem, new_key
from windward.identity.spiffe_id import workload_id
from windward.process import FatalError
from windward.rpc.credentials import TlsMaterial, TlsSource
from windward.rpc.http import Request
from windward.store.memory import MemoryStore
from windward.xds.resource import CLUSTER, NAME_TABLE

REVIEWS = workload_id("cluster.local", "shop", "reviews")
ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
SDS = "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets"


async def material() -> TlsMaterial:
    now = datetime.now(UTC)
    root = await load_or_create(MemoryStore(), b"k" * 32, "cluster.local", 10**7, lambda: now)
    key = new_key()
    policy = Policy(3600, 10**6, strict=True)
    issued = issue(root, policy, REVIEWS, new_csr(key, REVIEWS), 3600, now)
    return TlsMaterial(issued.chain[0].encode(), key_pem(key), root.pem)


def entry(type_url: str, name: str, body: bytes) -> Held:
    response = discovery_pb2.DeltaDiscoveryResponse()
    added = response.resources.add(name=name, version="1")
    added.resource.type_url = type_url
    added.resource.value = body
    return Held("1", added.SerializeToString())


@pytest.fixture
async def earlier(tmp_path, monkeypatch):
    """The folder of an agent that ran before and is to run without any control plane."""
    monkeypatch.chdir(tmp_path)
    types = {
        CLUSTER: Accepted({"a": entry(CLUSTER, "a", b"")}, answered=True),
        NAME_TABLE: Accepted({"h": entry(NAME_TABLE, "h", b"table")}, answered=True),
    }

    class Frozen:
        revision = "41"

        def frozen(self):
            return types

    kept = LastGood(tmp_path, Owner(str(REVIEWS), node_id(settings())))
    made: Any = Frozen()
    assert await kept.save(made, TlsSource(await material()), 0.0)
    return tmp_path


def served(folder) -> tuple[Served, CertificateKeeper, CollectorRegistry]:
    absent = folder / "nowhere"
    enrolment = Enrolment(REVIEWS, "127.0.0.1:1", "127.0.0.1:1", absent, absent, absent)
    keeper, registry = CertificateKeeper(enrolment), CollectorRegistry()
    made = Served(settings(pilot_address=("127.0.0.1:1",)), keeper, registry, folder)
    return made, keeper, registry


async def test_the_state_on_disk_is_served_with_no_control_plane_at_all(earlier):
    made, keeper, registry = served(earlier)
    source = await keeper.first(made.kept)
    names: list[Any] = []
    async with (
        made.over_socket(lambda upserts, removed: names.append((upserts, removed))),
        grpc.aio.insecure_channel(f"unix:{SOCKET}") as channel,
    ):
        assert names == [({"h": b"table"}, ())]
        stream: Any = channel.stream_stream(ADS)()
        asked = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER)
        await stream.write(asked.SerializeToString())
        response = discovery_pb2.DeltaDiscoveryResponse.FromString(await stream.read())
        assert [item.name for item in response.resources] == ["a"]
        assert response.system_version_info == "41"
        fetch: Any = channel.unary_unary(SDS)
        wanted = discovery_pb2.DiscoveryRequest(resource_names=["default"])
        secrets = await fetch(wanted.SerializeToString())
        assert source.current.chain_pem in secrets
        assert registry.get_sample_value("windward_agent_config_source", {"source": "disk"}) == 1
        assert registry.get_sample_value("windward_agent_pilot_connected") == 0
        assert registry.get_sample_value("windward_agent_certificate_condition") == 0
        assert (registry.get_sample_value("windward_agent_config_age_seconds") or 0) > 0
        assert registry.get_sample_value("windward_agent_secret_file_failures_total") == 0
        view = await config(made)
        assert view["configuration"]["source"] == "disk"
        assert view["configuration"]["resources"]["envoy.config.cluster.v3.Cluster"] == 1
        assert view["certificate"]["condition"] == "good"
        assert view["last_good"]["problem"] == ""
        stream.cancel()


async def config(made: Served) -> Any:
    handler = made.routes()["GET", "/debug/config"]
    return json.loads((await handler(Request("GET", "/debug/config", {}, "127.0.0.1"))).body)


async def test_the_state_is_shown_on_this_machine_only(earlier):
    made, _, _ = served(earlier)
    handler = made.routes()["GET", "/debug/config"]
    assert (await handler(Request("GET", "/debug/config", {}, "10.0.0.9"))).status == 403
    assert (await config(made))["certificate"]["condition"] == "missing"


async def test_only_envoys_user_may_come_near_the_socket(earlier):
    made, keeper, _ = served(earlier)
    await keeper.first(made.kept)
    folder = earlier / SOCKET
    folder.parent.mkdir(mode=0o755)
    async with made.over_socket(None):
        for path, mode in ((folder.parent, 0o700), (folder, 0o600)):
            about = path.stat()
            assert about.st_mode & 0o777 == mode
            assert about.st_uid == (1337 if os.geteuid() == 0 else os.geteuid())


async def test_a_folder_that_cannot_be_made_is_said_plainly(earlier):
    made, keeper, _ = served(earlier)
    await keeper.first(made.kept)
    (earlier / SOCKET).parent.write_bytes(b"a file stands here")
    with pytest.raises(FatalError, match="--state-dir"):
        async with made.over_socket(None):
            pass


async def test_a_first_start_has_nothing_and_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made, keeper, registry = served(tmp_path)
    assert made.kept is None
    await keeper.first(await material())
    async with made.over_socket(None):
        assert registry.get_sample_value("windward_agent_config_source", {"source": "none"}) == 1


@pytest.mark.root
async def test_a_full_disk_is_no_reason_not_to_serve(tmp_path, monkeypatch):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(small)], check=True)
    try:
        monkeypatch.chdir(small)
        filling = ["dd", "if=/dev/zero", f"of={small}/fill"]
        subprocess.run(filling, check=False, capture_output=True)
        made, keeper, registry = served(small)
        await keeper.first(await material())
        async with made.over_socket(None), asyncio.timeout(30):
            assert (small / SOCKET).is_socket()
            while not registry.get_sample_value("windward_agent_last_good_failures_total"):
                await asyncio.sleep(0.05)
        assert "No space left" in (await config(made))["last_good"]["problem"]
    finally:
        monkeypatch.chdir(tmp_path)
        subprocess.run(["umount", str(small)], check=True)
