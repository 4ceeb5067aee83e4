"""Counts of what is pushed, cheap enough for every response: plain lists, turned into metrics when somebody asks.

Names and meaning are Istio's: pilot_xds_pushes, pilot_total_xds_rejects, pilot_xds_expired_nonce, pilot_xds_config_size_bytes,
pilot_xds_push_time, pilot_xds_send_time (pilot/pkg/xds/monitoring.go, pilot/pkg/xds/metrics.go). Its counters end in no
``_total``, and what was made for Istio asks for them as they are: no client library's counter can be called so.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import HistogramMetricFamily, Metric, UnknownMetricFamily
from prometheus_client.registry import Collector

from windward.xds.resource import (
    CLUSTER,
    ENDPOINT,
    EXTENSION,
    LISTENER,
    NAME_TABLE,
    ROUTE,
    SECRET,
)

SHORT: Final = {
    CLUSTER: "cds",
    ENDPOINT: "eds",
    LISTENER: "lds",
    ROUTE: "rds",
    SECRET: "sds",
    EXTENSION: "ecds",
    NAME_TABLE: "nds",
}
OTHER: Final = "other"
SIZES: Final = (1, 10_000, 1_000_000, 4_000_000, 10_000_000, 40_000_000)
"""Istio's: bytes."""
TIMES: Final = (0.0001, 0.001, 0.01, 0.1, 1, 3, 5, 10, 20, 30)
"""Istio's, and two below them: seconds."""


class Distribution:
    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def to(self, family: HistogramMetricFamily, labels: list[str]) -> None:
        buckets, below = [], 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            below += count
            buckets.append((bound, below))
        family.add_metric(labels, buckets, self._total)


class OfType:
    """What was pushed of one type."""

    __slots__ = ("count", "push_s", "rejects", "send_s", "size_bytes")

    def __init__(self) -> None:
        self.count = 0
        self.rejects = 0
        self.size_bytes = Distribution(SIZES)
        self.push_s = Distribution(TIMES)
        self.send_s = Distribution(TIMES)


class PushCounts(Collector):
    def __init__(self) -> None:
        self._of = {short: OfType() for short in (*SHORT.values(), OTHER)}
        self._by_url = {url: self._of[short] for url, short in SHORT.items()}
        self._expired = 0

    def record(self, type_url: str, size_bytes: int, made_s: float, sent_s: float) -> None:
        """A response was made in ``made_s`` and taken by the transport within another ``sent_s``."""
        found = self._by_url.get(type_url) or self._of[OTHER]
        found.count += 1
        found.size_bytes.add(size_bytes)
        found.push_s.add(made_s + sent_s)
        found.send_s.add(sent_s)

    def rejected(self, type_url: str) -> None:
        """A proxy refused a response."""
        (self._by_url.get(type_url) or self._of[OTHER]).rejects += 1

    def expired(self) -> None:
        """A proxy answered a response that is not waited for."""
        self._expired += 1

    def count(self, short: str) -> int:
        return self._of[short].count

    def collect(self) -> Iterator[Metric]:
        pushes = UnknownMetricFamily("pilot_xds_pushes", "xDS responses sent", labels=["type"])
        rejects = UnknownMetricFamily(
            "pilot_total_xds_rejects", "xDS responses that proxies refused", labels=["type"]
        )
        expired = UnknownMetricFamily(
            "pilot_xds_expired_nonce", "Answers to responses that are not waited for", self._expired
        )
        size = HistogramMetricFamily(
            "pilot_xds_config_size_bytes", "Size of an xDS response", labels=["type"]
        )
        push = HistogramMetricFamily(
            "pilot_xds_push_time", "Making and sending an xDS response, seconds", labels=["type"]
        )
        send = HistogramMetricFamily(
            "pilot_xds_send_time",
            "Until the transport has taken an xDS response, seconds",
            labels=["type"],
        )
        for short, found in self._of.items():
            if found.count:
                pushes.add_metric([short], found.count)
                rejects.add_metric([short], found.rejects)
                found.size_bytes.to(size, [short])
                found.push_s.to(push, [short])
                found.send_s.to(send, [short])
        yield from (pushes, rejects, expired, size, push, send)
