from itertools import product

from benchmarks.added_latency import VARIANTS, rows, summary, write_topology
from benchmarks.many_envoys import rows as many_rows
from benchmarks.many_envoys import write_topology as many_topology
from windward.local.topology import load_topology

P90_US = {
    "none": (100.0, 5000.0, 100.0),
    "bare": (900.0, 5800.0, 1000.0),
    "alone": (950.0, 5900.0, 1100.0),
    "windward": (1100.0, 6000.0, 1300.0),
    "checked": (3100.0, 8000.0, 3300.0),
}


def made() -> list[dict[str, object]]:
    """Three rounds, the second of them on a busy machine."""
    cuts = {f"{when}_{cut}_us": 1.0 for when, cut in product(("due", "sent"), ("p50", "p99"))}
    return [
        {"variant": name, "failed": 0, "envoy_cpu": 0.2, **cuts, "due_p90_us": P90_US[name][number]}
        for number in range(3)
        for name in VARIANTS
    ]


def test_what_is_added_is_the_median_difference_within_a_round():
    seen = summary(made())
    assert seen["windward_over_none_p90_ms"] == 1.0
    assert seen["windward_over_bare_p90_ms"] == 0.2
    assert seen["alone_over_bare_p90_ms"] == 0.1
    assert seen["checked_over_none_p90_ms"] == 3.0
    assert all(row.held for row in rows(seen))


def test_one_failed_request_shows():
    rounds = made()
    rounds[5]["failed"] = 1
    assert [row.held for row in rows(summary(rounds))].count(False) == 1


def test_the_meshes_are_meshes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert load_topology(write_topology(tmp_path / "one", tmp_path)).names == ("caller", "callee")
    assert len(load_topology(many_topology(tmp_path / "two", 200, tmp_path)).names) == 200


def test_every_envoy_that_is_not_live_or_not_in_sync_counts():
    costs = dict.fromkeys(
        ("agent_pss_mean_mb", "agent_idle_percent", "envoy_pss_mean_mb", "envoy_idle_percent"), 1.0
    )
    figures = {"envoys": 5, "live": 5, "in_sync": 5, **costs}
    assert all(row.held for row in many_rows(figures))
    assert not any(row.held for row in many_rows(figures | {"live": 4, "in_sync": 3}))
