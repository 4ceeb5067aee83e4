"""PROXY_CONFIG: what it may say, and what is said of the rest."""

from __future__ import annotations

import sys

import pytest

from services.agent.envoy.proxy_config import BadProxyConfig, duration, parse_proxy_config


@pytest.mark.parametrize(
    "text",
    ['{"concurrency": 2, "drainDuration": "5s"}', "concurrency: 2\ndrainDuration: 5s\n"],
)
def test_json_and_yaml_say_the_same(text):
    config, raw = parse_proxy_config(text)
    assert (config.concurrency, config.drain_duration) == (2, "5s")
    assert raw == {"concurrency": 2, "drainDuration": "5s"}


@pytest.mark.parametrize("text", ["", "  \n"])
def test_nothing_is_all_defaults(text):
    config, raw = parse_proxy_config(text)
    assert (config.tracing, raw) == (None, {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"concurency": 2}', "concurency"),
        ('{"concurrency": "two"}', "concurrency"),
        ('{"controlPlaneAuthPolicy": "NONE"}', "controlPlaneAuthPolicy"),
        ('{"tracing": {"sampling": 10}}', "sampling: no tracer is named"),
        ('{"tracing": {"sampling": 101, "zipkin": {"address": "a:1"}}}', "sampling"),
        (
            '{"tracing": {"zipkin": {"address": "a:1"}, "datadog": {"address": "b:1"}}}',
            "one tracer",
        ),
        ('{"tracing": {"stackdriver": {}}}', "stackdriver"),
        ('{"drainDuration": "soon"}', "drain_duration"),
        ("[1]", "must be a mapping"),
        ("{", "PROXY_CONFIG"),
    ],
)
def test_what_cannot_be_acted_on_is_refused_with_its_name(text, said):
    with pytest.raises(BadProxyConfig, match=said):
        parse_proxy_config(text)


def test_without_a_yaml_parser_only_json_is_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(BadProxyConfig, match="not JSON"):
        parse_proxy_config("concurrency: 2")


@pytest.mark.parametrize(("text", "seconds"), [("", None), ("5s", 5.0), ("1m30s", 90.0)])
def test_durations(text, seconds):
    assert duration(text, "here") == seconds
    with pytest.raises(BadProxyConfig, match=r"^there: "):
        duration("x", "there")
