"""What the status port serves, made of the settings: merged metrics and the application's probes."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, generate_latest

from services.agent.envoy.bootstrap import Place
from services.agent.settings import Settings
from services.agent.status.merged import BadScrape, MergedMetrics, parse_scrape
from services.agent.status.probes import AppProbes, BadProbes, parse_probes
from windward.process import FatalError

STATS_PATH = "/stats/prometheus"


def merged_metrics(settings: Settings, place: Place, registry: CollectorRegistry) -> MergedMetrics:
    """Raises FatalError for a scrape configuration that cannot be."""
    scrapes = Counter("windward_agent_scrapes", "Scrapes of merged metrics", registry=registry)
    failures = Counter(
        "windward_agent_scrape_failures",
        "Parts that a scrape of merged metrics had to leave out",
        ["part"],
        registry=registry,
    )

    def own() -> bytes:
        scrapes.inc()
        return generate_latest(registry)

    try:
        targets = parse_scrape(settings.scrape, frozenset({place.agent[1]}))
    except BadScrape as error:
        raise FatalError(str(error)) from error
    host, port = place.admin
    if place.prometheus_port:
        host, port = place.listen_host or "127.0.0.1", place.prometheus_port
    return MergedMetrics(
        own, (host, port, STATS_PATH), targets, lambda part: failures.labels(part).inc()
    )


def app_probes(settings: Settings, place: Place) -> AppProbes:
    """Raises FatalError for probes that cannot be."""
    try:
        probes = parse_probes(settings.app_probers)
    except BadProbes as error:
        raise FatalError(str(error)) from error
    direct = settings.app_address or "127.0.0.1"
    destination = direct if settings.interception == "none" else settings.address
    return AppProbes(probes, destination, place.agent[1])
