"""Interception with what Pilot makes: a real kernel and a real Envoy; TPROXY, and IPv6 beside IPv4."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from google.protobuf.json_format import MessageToDict

from services.agent.netfilter.apply import apply
from services.agent.netfilter.rules import Family
from services.pilot.model.proxy import Interception
from tests.unit.agent.netfilter.lab import APPLICATION, ENVOY, PEER, POD, SELF, User, lab
from tests.unit.agent.netfilter.test_probes import interception
from tests.unit.pilot.mesh import (
    OPTIONS,
    cluster,
    generate,
    listener,
    make,
    port,
    service_entry,
    sidecar,
    snap,
    workload,
)
from windward.xds import resource as xds

ADDRESS = POD[Family.V4]
PROXY = replace(sidecar(ADDRESS, account="reviews"), interception=Interception.TPROXY)


def pod():
    plain = make("PeerAuthentication", "default", {"mtls": {"mode": "DISABLE"}})
    entry = service_entry(ports=[{**port(8080), "targetPort": 8080}])
    return snap(entry, plain, workloads=[workload(address=ADDRESS)])


def test_only_what_tproxy_needs_differs_from_redirect():
    made = generate(pod(), PROXY)
    usual = generate(pod(), replace(PROXY, interception=Interception.REDIRECT))
    differing = {
        (url, name)
        for url in made
        for name in {*made[url], *usual[url]}
        if made[url].get(name) != usual[url].get(name)
    }
    clusters = {(xds.CLUSTER, name) for name in ("inbound|8080||", "InboundPassthroughCluster")}
    assert differing == {(xds.LISTENER, "virtualInbound"), *clusters}
    for _, name in clusters:
        assert not cluster(made, name).HasField("upstream_bind_config")
        assert cluster(usual, name).HasField("upstream_bind_config")
    inbound = listener(made, "virtualInbound")
    assert inbound.transparent.value
    assert [item.name.rpartition(".")[2] for item in inbound.listener_filters][:2] == [
        "original_dst",
        "original_src",
    ]


def envoy(proxy) -> dict[str, Any]:
    """What Pilot makes for a proxy, as far as calls here need it."""
    made = generate(pod(), proxy, OPTIONS)
    clusters = (
        "inbound|8080||",
        "InboundPassthroughCluster",
        "PassthroughCluster",
        "BlackHoleCluster",
    )
    return {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 15000}}},
        "static_resources": {
            "clusters": [
                MessageToDict(cluster_pb2.Cluster.FromString(made[xds.CLUSTER][name].body))
                for name in clusters
            ],
            "listeners": [
                MessageToDict(listener_pb2.Listener.FromString(made[xds.LISTENER][name].body))
                for name in ("virtualInbound", "virtualOutbound")
            ],
        },
    }


@pytest.mark.root
@pytest.mark.parametrize("mode", ["TPROXY", "REDIRECT"])
def test_calls_of_both_families_come_through_and_tproxy_keeps_the_clients_address(mode):
    proxy = replace(PROXY, interception=Interception(mode), ipv6=True)
    with lab() as here:
        here.serve(here.pod, "application", 8080)
        here.serve(here.pod, "unnamed", 7070)
        here.serve(here.peer, "peer", 9000)
        apply(here.host, interception(mode), forced="nft")
        user = User(0 if mode == "TPROXY" else ENVOY, ENVOY)
        assert here.start_envoy(envoy(proxy), user), here.envoy_log
        application = User(APPLICATION, APPLICATION)
        for family in Family:
            client = PEER[family] if mode == "TPROXY" else SELF[family]
            for number, server in ((8080, "application"), (7070, "unnamed")):
                answer = here.call(here.peer, application, POD[family], number)
                assert answer.startswith("{"), f"{answer}\n{here.envoy_log}"
                found = json.loads(answer)
                assert (found["server"], found["peer"]) == (server, client)
            outward = here.call(here.pod, application, PEER[family], 9000)
            assert json.loads(outward)["server"] == "peer"
        assert here.taken(Family.V4)["15006"] == 4
        assert here.taken(Family.V4)["15001"] == 2


def test_listeners_for_any_address_are_for_both_families_where_the_workload_has_both():
    tcp = service_entry("db", ports=[port(3306, "TCP", "tcp")])
    plain = generate(snap(service_entry(), tcp), replace(PROXY, ipv6=False))
    made = generate(snap(service_entry(), tcp), replace(PROXY, ipv6=True))
    for name in ("virtualInbound", "virtualOutbound", "0.0.0.0_9080", "0.0.0.0_3306"):
        [other] = listener(made, name).additional_addresses
        found = listener(made, name).address.socket_address
        assert other.address.socket_address.address == "::"
        assert other.address.socket_address.port_value == found.port_value
        assert not listener(plain, name).additional_addresses
