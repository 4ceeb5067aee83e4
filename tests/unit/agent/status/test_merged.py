"""Metrics of three as one text."""

from __future__ import annotations

import json

import pytest

from services.agent.status import merged as module
from services.agent.status.merged import BadScrape, MergedMetrics, parse_scrape
from tests.unit.agent.status.serving import answering, http
from windward.rpc.http import Request

OPEN = "application/openmetrics-text; version=1.0.0"


async def scrape(envoy: int, *apps: int, target: str = "/metrics", **headers: str):
    failed: list[str] = []
    merged = MergedMetrics(
        lambda: b"own 1\n",
        ("127.0.0.1", envoy, "/stats/prometheus"),
        tuple((port, "/app") for port in apps),
        failed.append,
    )
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = await merged.answer(Request("GET", "/metrics", {}, "", named, target))
    return response, failed


async def test_all_three_in_order():
    async with answering(http(body=b"envoy 1\n")) as envoy, answering(http(body=b"app 1")) as app:
        response, failed = await scrape(envoy.port, app.port)
    assert (response.body, failed) == (b"own 1\nenvoy 1\napp 1\n", [])
    assert response.content_type.startswith("text/plain")
    assert envoy.heads[0].startswith("GET /stats/prometheus HTTP")
    assert app.heads[0].startswith("GET /app HTTP")


async def test_query_and_scrapers_headers_are_passed_on():
    async with answering(http()) as envoy:
        await scrape(
            envoy.port,
            target="/metrics?usedonly",
            user_agent="Prometheus/3",
            accept=OPEN,
            x_prometheus_scrape_timeout_seconds="3.5",
            cookie="x",
        )
    assert envoy.heads[0].startswith("GET /stats/prometheus?usedonly HTTP")
    headers = envoy.headers()
    assert headers["user-agent"] == "Prometheus/3"
    assert headers["x-prometheus-scrape-timeout-seconds"] == "3.5"
    assert headers["accept"] == "text/plain", "Envoy's text can be joined with ours"
    assert "cookie" not in headers


async def test_an_open_metrics_text_ends_once():
    texts = [http(body=b"app 1\n# EOF\n", content_type=OPEN) for _ in range(2)]
    async with answering(http(body=b"envoy 1\n")) as envoy, answering(*texts) as app:
        response, _ = await scrape(envoy.port, app.port, app.port, accept=OPEN)
    assert response.body == b"own 1\nenvoy 1\napp 1\napp 1\n# EOF\n"
    assert response.content_type == OPEN


async def test_texts_of_two_kinds_are_plain():
    texts = [http(body=b"a 1\n# EOF\n", content_type=OPEN), http(body=b"b 1\n")]
    async with answering(http()) as envoy, answering(*texts) as app:
        response, _ = await scrape(envoy.port, app.port, app.port)
    assert b"# EOF" not in response.body
    assert response.content_type.startswith("text/plain")


async def test_who_fails_is_left_out_and_counted(unused_tcp_port, monkeypatch):
    monkeypatch.setattr(module, "APPLICATION_LIMIT_BYTES", 10)
    async with answering(http(body=b"x" * 11), http(500), http(body=b"app 1\n")) as app:
        response, failed = await scrape(unused_tcp_port, *[app.port] * 3)
    assert response.body.startswith(b"own 1\n")
    assert sorted(failed) == ["application", "application", "envoy"]


@pytest.mark.parametrize(
    ("scrape", "found"),
    [
        ({}, ((80, "/metrics"),)),
        ({"scrape": "true", "port": "8080", "path": "/m"}, ((8080, "/m"),)),
        ({"scrape": "false", "port": "15020"}, ()),
        ({"targets": [{"port": "1", "path": "/a"}, {"port": "02"}]}, ((1, "/a"), (2, "/metrics"))),
    ],
)
def test_what_the_pod_exposes(scrape, found):
    assert parse_scrape(json.dumps(scrape), frozenset()) == found
    assert parse_scrape("", frozenset()) == ()


@pytest.mark.parametrize(
    "port",
    [
        "15000",
        "15001",
        "15004",
        "15006",
        "15008",
        "15020",
        "15021",
        "15053",
        "15090",
        "015090",
        "9",
    ],
)
def test_it_never_scrapes_itself(port):
    with pytest.raises(BadScrape, match="would scrape itself"):
        parse_scrape(json.dumps({"port": port}), frozenset({9}))


@pytest.mark.parametrize(
    "scrape",
    [
        {"port": "http"},
        {"port": "0"},
        {"port": "70000"},
        {"port": 80},
        {"path": "metrics"},
        {"path": "/a b"},
        {"path": "/a\r\nx: y"},
        {"other": 1},
        {"targets": [{"port": "1"}] * 17},
    ],
)
def test_what_cannot_be_scraped_is_refused(scrape):
    with pytest.raises(BadScrape, match=r"^--scrape: "):
        parse_scrape(json.dumps(scrape), frozenset())
