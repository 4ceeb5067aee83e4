"""Pilot's settings: what makes no sense together. Registries and gateways' accounts have tests of their own."""

from __future__ import annotations

import pytest

from services.pilot.settings import Settings
from windward.settings import Seconds, SettingsError, load

NEEDED = {
    "--store": "memory:",
    "--citadel-address": "127.0.0.1:1",
    "--citadel-mtls-address": "127.0.0.1:2",
    "--trust-bundle-file": "/roots.pem",
    "--token-file": "/token",
    "--state-dir": "/state",
}


def settings_of(**flags: str) -> Settings:
    given = {f"--{name.replace('_', '-')}": value for name, value in flags.items()}
    return load(
        Settings,
        program="windward-pilot",
        environment_prefix="WINDWARD_PILOT_",
        argv=[word for flag in {**NEEDED, **given}.items() for word in flag],
        environ={},
        description="",
    )


def test_configuration_waits_as_long_as_it_is_quiet_and_no_longer_than_the_longest():
    made = settings_of(config_quiet="1s", config_longest="1s")
    assert (made.config_quiet, made.config_longest) == (Seconds(1), Seconds(1))
    with pytest.raises(SettingsError, match="--config-longest must be at least --config-quiet"):
        settings_of(config_quiet="1s")


def test_a_lease_is_no_shorter_than_etcd_grants():
    with pytest.raises(SettingsError, match="--endpoint-ttl must be at least 1s"):
        settings_of(endpoint_ttl="500ms")
