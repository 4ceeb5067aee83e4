"""The agent's settings and environment as Envoy's bootstrap."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from services.agent.envoy.compose import (
    compose,
    node_id,
    on_loopback_too,
    override_text,
    place,
    split_address,
    status_listen,
)
from tests.unit.agent.settings import settings
from windward.process import FatalError


def metadata(environ=None, **over):
    return json.loads(compose(settings(**over), environ or {}))["node"]["metadata"]


@pytest.mark.parametrize("kind", ["sidecar", "router"])
def test_the_node_id_is_istios(kind):
    made = node_id(settings(proxy_type=kind))
    assert made == f"{kind}~10.0.0.7~reviews-v1-1.shop~shop.svc.cluster.local"


def test_the_node_carries_what_pilot_and_mixer_ask_for():
    made = metadata(app_address="127.0.0.9", interception="none", labels={"version": "v1"})
    told = {
        "NAME": "reviews-v1-1",
        "NAMESPACE": "shop",
        "LABELS": {"version": "v1"},
        "WORKLOAD_NAME": "reviews-v1-1",
        "SERVICE_ACCOUNT": "reviews",
        "INSTANCE_IPS": "10.0.0.7",
        "INTERCEPTION_MODE": "NONE",
        "APP_ADDRESS": "127.0.0.9",
    }
    assert told.items() <= made.items()
    assert metadata()["INTERCEPTION_MODE"] == "REDIRECT"


def test_pilot_is_told_who_resolves_names_by_the_mesh():
    made = metadata(dns_capture=True)
    assert (made["DNS_CAPTURE"], made["DNS_AUTO_ALLOCATE"]) == ("true", "true")
    assert metadata(dns_capture=True, dns_auto_allocate=False)["DNS_AUTO_ALLOCATE"] == "false"
    assert not {"DNS_CAPTURE", "DNS_AUTO_ALLOCATE"} & metadata().keys()


def test_the_environment_cannot_claim_another_identity():
    made = metadata({"ISTIO_META_SERVICE_ACCOUNT": "admin", "ISTIO_META_MESH_ID": "one"})
    assert (made["SERVICE_ACCOUNT"], made["MESH_ID"]) == ("reviews", "one")


def test_mounted_labels_and_annotations_are_read(tmp_path):
    (tmp_path / "labels").write_text('app="reviews"\npod-template-hash="abc"\n')
    (tmp_path / "annotations").write_text('sidecar.istio.io/statsFlushInterval="10s"\n')
    made = json.loads(compose(settings(pod_info=str(tmp_path), labels={"x": "1"}), {}))
    assert made["node"]["metadata"]["LABELS"] == {"app": "reviews", "x": "1"}
    assert made["stats_flush_interval"] == "10s"
    assert made["node"]["cluster"] == "reviews.shop"


@pytest.mark.parametrize(
    ("addresses", "asked", "listens"),
    [
        (("10.0.0.7",), "0.0.0.0:15020", "0.0.0.0:15020"),
        (("fd00::7",), "0.0.0.0:15020", ":15020"),
        (("10.0.0.7", "fd00::7"), "0.0.0.0:15020", ":15020"),
        (("fd00::7",), "10.0.0.7:15020", "10.0.0.7:15020"),
        (("fd00::7",), "[::]:15020", "[::]:15020"),
    ],
)
def test_the_status_port_is_there_for_both_families_where_the_workload_has_both(
    addresses, asked, listens
):
    made = settings(instance_ips=addresses, status_address=asked)
    assert status_listen(made) == listens
    assert place(made).agent[1] == 15020


def test_an_access_log_service_that_nothing_here_logs_to_is_told_of(monkeypatch):
    told: list[str] = []
    said = SimpleNamespace(warning=lambda _, **data: told.append(data["field"]))
    monkeypatch.setattr("services.agent.envoy.compose.log", said)
    config = '{"envoyAccessLogService": {"address": "logs:9000"}}'
    assert "envoy_accesslog_service" in compose(settings(proxy_config=config), {})
    compose(settings(), {})
    assert told == ["PROXY_CONFIG: envoyAccessLogService"]


def test_workloads_that_share_a_host_keep_to_their_own_addresses():
    alone = place(settings(status_address="0.0.0.0:15020"))
    assert (alone.listen_host, alone.source_address, alone.agent) == ("", "", ("127.0.0.1", 15020))
    shared = place(
        settings(interception="none", address="127.1.2.3", status_address="127.1.2.3:15020")
    )
    assert shared.listen_host == shared.source_address == "127.1.2.3"
    assert shared.agent == ("127.1.2.3", 15020)


@pytest.mark.parametrize(
    ("address", "interception", "too"),
    [
        ("0.0.0.0:15020", "redirect", False),
        ("[::]:15020", "redirect", False),
        ("127.0.0.1:15020", "redirect", False),
        ("[::1]:15020", "tproxy", False),
        ("10.0.0.7:15020", "redirect", True),
        ("10.0.0.7:15020", "tproxy", True),
        ("10.0.0.7:15020", "none", False),
    ],
)
def test_where_traffic_is_intercepted_the_status_port_is_at_loopback_too(
    address, interception, too
):
    made = settings(status_address=address, interception=interception)
    assert on_loopback_too(made) is too
    if too:
        assert place(made).agent == ("127.0.0.1", 15020)


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"proxy_config": "{"}, "PROXY_CONFIG"),
        ({"proxy_config": '{"tracing": {"zipkin": {"address": "x"}}}'}, "zipkin"),
        ({"instance_ips": ("localhost",)}, "--instance-ips"),
        ({"admin_address": "15000"}, "--admin-address 15000: must be host:port"),
        ({"status_address": "x:y"}, "--status-address x:y: must be host:port"),
    ],
)
def test_what_cannot_be_is_one_line(over, said):
    with pytest.raises(FatalError, match=said):
        compose(settings(**over), {})


def test_a_broken_mount_is_one_line(tmp_path):
    (tmp_path / "labels").write_text("app=reviews\n")
    with pytest.raises(FatalError, match="app: not a quoted text"):
        compose(settings(pod_info=str(tmp_path)), {})


def test_an_override_is_read_with_the_nodes_address(tmp_path):
    file = tmp_path / "override.yaml"
    file.write_text("admin: {address: $(HOST_IP)}\n")
    over = {"bootstrap_override": str(file)}
    assert override_text(settings(**over, host_ip="10.9.9.9")) == "admin: {address: 10.9.9.9}\n"
    assert "$(HOST_IP)" in override_text(settings(**over))
    assert override_text(settings()) == ""


@pytest.mark.parametrize("content", [None, b"x" * (1 << 20) + b"x", b"\xff"])
def test_an_override_that_cannot_be_read_is_one_line(tmp_path, content):
    file = tmp_path / "override.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(FatalError, match=f"^--bootstrap-override {file}: "):
        override_text(settings(bootstrap_override=str(file)))


def test_addresses():
    assert split_address("[::1]:15000", "--x") == ("::1", 15000)
    for wrong in ("15000", "a:b", "a:99999", ""):
        with pytest.raises(FatalError, match=r"^--x .*must be host:port"):
            split_address(wrong, "--x")
