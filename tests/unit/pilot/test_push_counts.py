"""What is counted is what a scrape shows, under Istio's names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from services.pilot import metrics
from services.pilot.push_counts import PushCounts
from windward.xds.resource import CLUSTER, ENDPOINT


def a_registry(pushes: PushCounts) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(pushes)
    return registry


def test_pushes_are_counted_by_type():
    pushes = PushCounts()
    for url in (CLUSTER, ENDPOINT, ENDPOINT, "type.googleapis.com/example.Other"):
        pushes.record(url, 100, 0.001, 0.002)
    value = a_registry(pushes).get_sample_value
    counts = {
        short: value("pilot_xds_pushes", {"type": short}) for short in ("cds", "eds", "other")
    }
    assert counts == {"cds": 1, "eds": 2, "other": 1}
    assert value("pilot_xds_pushes", {"type": "rds"}) is None


def test_counters_have_the_very_names_that_istios_dashboards_ask_for():
    pushes = PushCounts()
    pushes.record(CLUSTER, 100, 0.001, 0.002)
    pushes.rejected(CLUSTER)
    pushes.expired()
    lines = generate_latest(a_registry(pushes)).decode().splitlines()
    for line in (
        'pilot_xds_pushes{type="cds"} 1.0',
        'pilot_total_xds_rejects{type="cds"} 1.0',
        "pilot_xds_expired_nonce 1.0",
    ):
        assert line in lines


def test_distributions_are_cumulative():
    pushes = PushCounts()
    for size, sent_s in ((1, 0.00005), (10_000, 0.0005), (10_001, 50.0)):
        pushes.record(CLUSTER, size, 0.0, sent_s)
    value = a_registry(pushes).get_sample_value
    sizes = [
        value("pilot_xds_config_size_bytes_bucket", {"type": "cds", "le": bound})
        for bound in ("1", "10000", "1000000", "+Inf")
    ]
    assert sizes == [1, 2, 3, 3]
    assert value("pilot_xds_config_size_bytes_sum", {"type": "cds"}) == 20_002
    assert value("pilot_xds_send_time_bucket", {"type": "cds", "le": "30"}) == 2
    assert value("pilot_xds_send_time_count", {"type": "cds"}) == 3


def test_the_time_of_a_push_holds_its_sending():
    pushes = PushCounts()
    pushes.record(CLUSTER, 1, 0.25, 0.5)
    value = a_registry(pushes).get_sample_value
    assert value("pilot_xds_push_time_sum", {"type": "cds"}) == 0.75
    assert value("pilot_xds_send_time_sum", {"type": "cds"}) == 0.5


def test_versions_that_proxies_claim_are_bounded():
    for number in range(100):
        metrics.connected(f"{number}" * 100, 1)
    try:
        labels = [
            sample.labels["version"]
            for family in metrics.CONNECTED.collect()
            for sample in family.samples
        ]
        assert len(labels) <= metrics.MOST_VERSIONS + 1
        assert max(map(len, labels)) <= 40
    finally:
        for number in range(100):
            metrics.connected(f"{number}" * 100, -1)
