"""Pilot's measurements that have a bar, each a scenario of benchmarks.xds at the size that the bar is for.

A scenario that fails leaves its rows without a figure, and not held; the others go on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.rows import Row
from benchmarks.xds.run import Failed, several
from benchmarks.xds.scene import Wish

MESH = "1,000 services x"


@dataclass(frozen=True, slots=True)
class Measurement:
    key: str
    """Under which the raw figures are kept."""
    scenario: str
    wish: Wish
    rows: tuple[tuple[str, str, float], ...]
    """(what, name of the figure, bar)."""


MEASUREMENTS = (
    Measurement(
        "endpoint",
        "xds-endpoint",
        Wish(services=1000, streams=1000),
        (
            (f"{MESH} 1,000 streams, endpoint -> ACK, p50, ms", "p50_ms", 300),
            (f"{MESH} 1,000 streams, endpoint -> ACK, p99, ms", "p99_ms", 1000),
            (f"{MESH} 1,000 streams, endpoint: server CPU, s", "server_cpu_s", 0.15),
            (f"{MESH} 1,000 streams, endpoint: resources beyond that one", "resources_in_excess", 0),
            (f"{MESH} 1,000 streams, endpoint: longest hold of the loop, ms", "loop_hold_ms", 10),
            (f"{MESH} 1,000 streams, endpoint: what the fleet found wrong", "faults", 0),
        ),
    ),
    Measurement(
        "route",
        "xds-route",
        Wish(services=1000, streams=1000),
        (
            (f"{MESH} 1,000 streams, VirtualService -> last ACK, ms", "last_ms", 1000),
            (f"{MESH} 1,000 streams, VirtualService: resources beyond the changed", "resources_in_excess", 0),
            (f"{MESH} 1,000 streams, VirtualService: longest hold of the loop, ms", "loop_hold_ms", 10),
            (f"{MESH} 1,000 streams, VirtualService: what the fleet found wrong", "faults", 0),
        ),
    ),
    Measurement(
        "envoy",
        "xds-envoy",
        Wish(services=1000, streams=100, changes=50),
        (
            (f"{MESH} 100 proxies, 2 of them Envoys, endpoint -> ACK, p50, ms", "p50_ms", 5),
            (f"{MESH} 100 proxies, 2 of them Envoys, endpoint -> ACK, p99, ms", "p99_ms", 50),
            (f"{MESH} 100 proxies, endpoint -> an Envoy serves it, p50, ms", "served_p50_ms", 30),
            (f"{MESH} 100 proxies, endpoint -> an Envoy serves it, p99, ms", "served_p99_ms", 100),
            (f"{MESH} 100 proxies, endpoint: failed requests", "failed_requests", 0),
        ),
    ),
    Measurement(
        "cold",
        "xds-cold",
        Wish(services=1000, streams=1000),
        (
            (f"{MESH} 1 proxy of a fresh Pilot, CPU, ms", "generate_cpu_ms", 500),
            (f"{MESH} 1,000 proxies connect at once -> all in sync, s", "all_synced_s", 20),
        ),
    ),
    Measurement(
        "storm",
        "xds-storm",
        Wish(services=1000, streams=1000),
        (
            (f"{MESH} 1,000 streams, Pilot killed -> all in sync again, s", "all_synced_again_s", 20),
            (f"{MESH} 1,000 streams, Pilot killed: RSS, most to idle before", "rss_ratio", 1.5),
        ),
    ),
    Measurement(
        "many",
        "xds-endpoint",
        Wish(services=5000, streams=200, changes=10),
        (
            ("5,000 services x 200 streams, endpoint -> ACK, p50, ms", "p50_ms", 300),
            ("5,000 services x 200 streams, endpoint -> ACK, p99, ms", "p99_ms", 1000),
            ("5,000 services x 200 streams, endpoint: server CPU, s", "server_cpu_s", 0.15),
            ("5,000 services x 200 streams, endpoint: resources beyond that one", "resources_in_excess", 0),
            ("5,000 services x 200 streams, RSS at its most, MB", "rss_peak_mb", 600),
        ),
    ),
    Measurement(
        "store",
        "xds-store",
        Wish(),
        (("store of 30,000 objects: Pilot's start -> ready, s", "ready_s", 30),),
    ),
    Measurement(
        "churn",
        "xds-churn",
        Wish(services=1000, streams=500, rate=100, seconds=60),
        (
            (f"{MESH} 500 streams, 100 changes/s for 60 s -> ACK, p99, ms", "p99_ms", 500),
            (f"{MESH} 500 streams, churn: growth of the time to the last ACK, ms", "queue_growth_ms", 100),
            (f"{MESH} 500 streams, churn: longest hold of the loop, ms", "loop_hold_ms", 10),
            (f"{MESH} 500 streams, churn: what the fleet found wrong", "faults", 0),
        ),
    ),
    Measurement(
        "memory",
        "xds-memory",
        Wish(services=1000, streams=2000),
        (
            (f"{MESH} 2,000 streams, RSS at its most, MB", "rss_peak_mb", 600),
            (f"{MESH} 2,000 streams, growth over 1,000 endpoint changes, MB", "rss_slope_mb_per_1000", 0.5),
        ),
    ),
)  # fmt: skip


def measurements(runs: int = 1) -> Iterator[tuple[str, list[Row], dict[str, Any]]]:
    """(key, rows, raw figures) of each measurement, as they come."""
    for measurement in MEASUREMENTS:
        try:
            figures = several(measurement.scenario, measurement.wish, runs, None)
        except Failed as error:
            sys.stderr.write(f"{error}\n")
            yield measurement.key, rows_of(measurement, {}, str(error)), {"failed": str(error)}
        else:
            yield measurement.key, rows_of(measurement, figures), figures


def rows_of(measurement: Measurement, figures: Mapping[str, Any], why: str = "") -> list[Row]:
    """The measurement's rows; the load average stands beside each figure."""
    load = f"load {figures.get('load_before')}/{figures.get('load_after')}" if figures else why[:80]
    return [Row(name, figures.get(key), bar, load) for name, key, bar in measurement.rows]
