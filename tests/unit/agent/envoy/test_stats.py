"""Statistics: what is kept, what it is called, how often it is sent."""

from __future__ import annotations

import pytest

from services.agent.envoy.proxy_config import BadProxyConfig, ProxyConfig, ProxyStatsMatcher
from services.agent.envoy.stats import ANNOTATION, build_sinks, build_stats, socket_address


def patterns(annotations=None, proxy=None, addresses=("10.0.0.7",)):
    made = build_stats(
        {ANNOTATION + name: value for name, value in (annotations or {}).items()},
        proxy or ProxyConfig(),
        addresses,
    )
    return made["stats_config"]["stats_matcher"]["inclusion_list"]["patterns"]


def test_what_the_agent_needs_is_always_kept():
    always = patterns()
    assert {"prefix": "cluster_manager"} in always
    assert {"suffix": "downstream_cx_active"} in always
    mine = patterns({"statsInclusionPrefixes": "mine,,", "statsInclusionSuffixes": "end"})
    assert {"prefix": "mine"} in mine
    assert {"suffix": "end"} in mine
    assert all(pattern in mine for pattern in always)
    assert {"prefix": ""} not in mine


def test_of_the_meshs_other_clusters_nothing_is_kept_unless_somebody_asks():
    def kept(made):
        name = "cluster.outbound|80||a.shop.svc.cluster.local;.upstream_rq_total"
        return any(name.startswith(item.get("prefix", "-")) for item in made)

    assert not kept(patterns())
    assert kept(patterns({"statsInclusionPrefixes": "cluster.outbound"}))


def test_an_annotation_replaces_what_the_mesh_configures():
    proxy = ProxyConfig(proxy_stats_matcher=ProxyStatsMatcher(inclusion_prefixes=("meshs",)))
    assert {"prefix": "meshs"} in patterns(proxy=proxy)
    both = patterns({"statsInclusionPrefixes": "mine"}, proxy)
    assert {"prefix": "mine"} in both
    assert {"prefix": "meshs"} not in both


def test_a_pattern_of_addresses_is_one_for_each():
    made = patterns({"statsInclusionPrefixes": "http.{pod_ip}_"}, addresses=("10.0.0.7", "fd00::7"))
    assert {"prefix": "http.10.0.0.7_"} in made
    assert {"prefix": "http.fd00::7_"} in made


def test_extra_tags_once_each():
    made = build_stats(
        {ANNOTATION + "extraStatTags": "a,b"}, ProxyConfig(extra_stat_tags=("a", "")), ()
    )
    names = [tag["tag_name"] for tag in made["stats_config"]["stats_tags"]]
    assert names.count("a") == names.count("b") == 1
    assert "" not in names


@pytest.mark.parametrize(
    ("flush", "eviction", "found"),
    [
        ("", "", {}),
        ("10s", "", {"stats_flush_interval": "10s"}),
        ("", "10s", {"stats_eviction_interval": "10s"}),
        ("", "11s", {}),
        ("10s", "20s", {"stats_flush_interval": "10s", "stats_eviction_interval": "20s"}),
        ("10s", "5s", {"stats_flush_interval": "10s"}),
        ("250ms", "1m", {"stats_flush_interval": "0.25s", "stats_eviction_interval": "60s"}),
        ("often", "x", {}),
        ("0s", "0s", {}),
        ("301s", "", {}),
    ],
)
def test_intervals_that_envoy_would_not_take_are_left_out(flush, eviction, found):
    annotations = {
        ANNOTATION + "statsFlushInterval": flush,
        ANNOTATION + "statsEvictionInterval": eviction,
    }
    made = build_stats(annotations, ProxyConfig(), ())
    made.pop("stats_config")
    assert made == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"b": [1, 2.5], "a": [3]}',
         [{"match": {"prefix": "a"}, "buckets": [3]}, {"match": {"prefix": "b"}, "buckets": [1, 2.5]}]),
        ('{"a": [2, 1]}', None),
        ('{"a": []}', None),
        ('{"a": [0]}', None),
        ('{"a": ["x"]}', None),
        ('{"a": 1}', None),
        ("[1]", None),
        ("{", None),
    ],
)  # fmt: skip
def test_buckets_must_rise(text, found):
    made = build_stats({ANNOTATION + "statsHistogramBuckets": text}, ProxyConfig(), ())
    assert made["stats_config"].get("histogram_bucket_settings") == found


def test_no_sink_unless_asked_for():
    assert build_sinks(ProxyConfig()) == []
    (sink,) = build_sinks(ProxyConfig(statsd_udp_address="10.1.1.1:9125"))
    assert sink["typed_config"]["address"] == socket_address("10.1.1.1:9125", "")


@pytest.mark.parametrize("text", ["host", "host:", ":1", "host:x", "host:0", "host:65536", ""])
def test_an_address_needs_host_and_port(text):
    with pytest.raises(BadProxyConfig, match=r"^here: .* is not host:port"):
        socket_address(text, "here")


def test_the_nodes_address_may_stand_for_itself():
    made = socket_address("$(HOST_IP):6000", "", "10.9.9.9")
    assert made == {"socket_address": {"address": "10.9.9.9", "port_value": 6000}}
    assert socket_address("[fd00::1]:1", "")["socket_address"]["address"] == "fd00::1"
