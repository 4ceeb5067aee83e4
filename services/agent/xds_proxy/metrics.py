"""What the xDS proxy, the state on disk and the certificate tell Prometheus, and a person at /debug/config."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from time import time
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.agent.sds.server import SecretServer
from services.agent.xds_proxy.disk import LastGood
from services.agent.xds_proxy.proxy import XdsProxy
from windward.client.certificates import CertificateKeeper
from windward.rpc.http import Request, Response, Routes

SOURCES = ("none", "disk", "memory", "live")


@dataclass(frozen=True, slots=True)
class Freshness:
    """Where Envoy's configuration comes from, and for how long it has not been known to be the mesh's."""

    source: str
    """``live``: a Pilot stands behind it; ``memory``: one did; ``disk``: one did in an earlier run; ``none``: there is none."""
    age_s: float


def freshness(proxy: XdsProxy, last_good: LastGood, now: float) -> Freshness:
    if proxy.connected:
        return Freshness("live", 0.0)
    if proxy.counts.connected_until:
        return Freshness("memory", max(now - proxy.counts.connected_until, 0.0))
    if last_good.loaded:
        return Freshness("disk", max(now - last_good.confirmed_at, 0.0))
    return Freshness("none", 0.0)


class AgentState(Collector):
    """Reads the parts when asked. They may be None until the agent has a certificate."""

    def __init__(
        self, keeper: CertificateKeeper, last_good: LastGood, now: Callable[[], float] = time
    ) -> None:
        self._keeper = keeper
        self._last_good = last_good
        self._now = now
        self.proxy: XdsProxy | None = None
        self.secrets: SecretServer | None = None

    def register(self, registry: CollectorRegistry) -> None:
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        prefix = "windward_agent_"
        condition = "How the certificate is: 0 good, 1 near its end while renewal fails, 2 expired, 3 missing"
        yield _gauge(f"{prefix}certificate_condition", condition, float(self._keeper.condition))
        until = self._keeper.until
        expiry = until.timestamp() if until else 0.0
        yield _gauge(
            f"{prefix}certificate_expiry_timestamp", "When the certificate expires", expiry
        )
        disk = self._last_good
        saved = "When the state on disk was written; 0: none of use is there"
        yield _gauge(f"{prefix}last_good_saved_timestamp", saved, disk.saved_at)
        behind = "Whether something that Envoy has is not on disk yet"
        yield _gauge(f"{prefix}last_good_pending", behind, float(disk.pending))
        failed = "Times that the state on disk could not be read or written"
        yield _counter(f"{prefix}last_good_failures", failed, disk.failures)
        if self.proxy is not None:
            yield from self._of_proxy(self.proxy)
        if self.secrets is not None:
            pushed = "Responses that hold secrets"
            yield _counter(f"{prefix}secret_pushes", pushed, self.secrets.pushes)
            refused = "Secrets that Envoy has refused"
            yield _counter(f"{prefix}secret_rejected", refused, self.secrets.rejected)
            files = "Times that the files of a secret could not be used"
            yield _counter(f"{prefix}secret_file_failures", files, self.secrets.file_failures)

    def _of_proxy(self, proxy: XdsProxy) -> Iterator[Metric]:
        prefix = "windward_agent_"
        yield _gauge(f"{prefix}pilot_connected", "1 while connected to a Pilot", proxy.connected)
        fresh = freshness(proxy, self._last_good, self._now())
        age = "Seconds since Envoy's configuration was last known to be what the mesh wants"
        yield _gauge(f"{prefix}config_age_seconds", age, fresh.age_s)
        source = GaugeMetricFamily(
            f"{prefix}config_source",
            "1 for where Envoy's configuration comes from",
            labels=["source"],
        )
        for name in SOURCES:
            source.add_metric([name], float(name == fresh.source))
        yield source
        counts = proxy.counts
        for name, about, value in (
            (
                "xds_reconnects",
                "Streams to a Pilot that ended or could not be opened",
                counts.reconnects,
            ),
            ("xds_requests", "Requests of Envoy", counts.requests),
            ("xds_responses", "Responses of Pilots", counts.responses),
            ("xds_resources", "Resources that Pilots have sent or removed", counts.resources),
            ("xds_rejected", "Responses that Envoy has refused", counts.rejected),
            ("xds_from_cache", "Responses that no Pilot was asked for", counts.served_from_cache),
        ):
            yield _counter(prefix + name, about, value)

    def view(self) -> dict[str, Any]:
        """What a person asks for: where the configuration and the certificate come from, and how they are."""
        keeper, disk, proxy = self._keeper, self._last_good, self.proxy
        view: dict[str, Any] = {
            "certificate": {
                "condition": keeper.condition.name.lower(),
                "expires_at": keeper.until.isoformat() if keeper.until else None,
                "failing": keeper.failing,
            },
            "last_good": {
                "file": str(disk.path),
                "saved_at": _iso(disk.saved_at),
                "problem": disk.problem,
            },
        }
        if proxy is not None:
            fresh = freshness(proxy, disk, self._now())
            view["configuration"] = {
                "source": fresh.source,
                "age_s": round(fresh.age_s, 3),
                "pilot": proxy.pilot if proxy.connected else None,
                "revision": proxy.cache.revision,
                "resources": {
                    url.rpartition("/")[2]: len(known.resources)
                    for url, known in proxy.cache.frozen().items()
                },
            }
        return view

    def routes(self) -> Routes:
        async def config(request: Request) -> Response:
            if not request.local:
                return Response(403, b"from this machine only\n")
            body = msgspec.json.format(msgspec.json.encode(self.view()), indent=1)
            return Response(200, body + b"\n", "application/json")

        return {("GET", "/debug/config"): config}


def _iso(at: float) -> str | None:
    return datetime.fromtimestamp(at, UTC).isoformat() if at else None


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value=float(value))


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(name, about, value=float(value))
