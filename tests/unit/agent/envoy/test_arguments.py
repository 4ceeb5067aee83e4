"""Envoy's command line."""

from __future__ import annotations

import pytest

from services.agent.envoy.arguments import arguments, log_levels
from tests.unit.agent.settings import settings
from windward.process import FatalError


@pytest.mark.parametrize(
    ("over", "pair"),
    [
        ({}, ("-c", "/dev/fd/9")),
        ({}, ("--local-address-ip-version", "v4")),
        ({"address": "fd00::7"}, ("--local-address-ip-version", "v6")),
        ({"instance_ips": ("fd00::7", "10.0.0.1")}, ("--local-address-ip-version", "v4")),
        ({"instance_ips": ("fd00::7", "fd00::8")}, ("--local-address-ip-version", "v6")),
        ({}, ("--drain-time-s", "45")),
        ({"listener_drain_time": 0.2}, ("--drain-time-s", "1")),
        ({"concurrency": 4}, ("--concurrency", "4")),
        ({}, ("--drain-strategy", "immediate")),
        ({"access_log_flush": 0.25}, ("--file-flush-interval-msec", "250")),
        ({"envoy_log_level": "info,misc:error"}, ("-l", "info")),
        ({"envoy_log_level": "info,misc:error"}, ("--component-log-level", "misc:error")),
    ],
)
def test_what_settings_make_of_it(over, pair):
    made = arguments(settings(**over), "/dev/fd/9")
    assert (pair[0], made[made.index(pair[0]) + 1]) == pair
    assert {"--disable-hot-restart", "--allow-unknown-static-fields"} <= set(made)
    assert not {"--component-log-level", "--config-yaml"} & set(arguments(settings(), "/dev/fd/9"))


def test_an_override_comes_as_text():
    assert arguments(settings(), "/dev/fd/9", "admin: {}")[-2:] == ["--config-yaml", "admin: {}"]


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("", ("warning", "")),
        ("debug", ("debug", "")),
        ("misc:error", ("warning", "misc:error")),
        ("http:debug, warning,router:trace", ("warning", "http:debug,router:trace")),
    ],
)
def test_levels(text, levels):
    assert log_levels(text) == levels


@pytest.mark.parametrize(
    "text", ["loud", "http:loud", "http:", ":debug", "a b:debug", "http:x:debug"]
)
def test_a_level_that_is_none_is_named(text):
    with pytest.raises(FatalError, match="is no level or component:level"):
        log_levels(text)
