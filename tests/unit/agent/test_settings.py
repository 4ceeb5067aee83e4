"""The agent's settings from the command line: what it needs, what it takes, what it refuses."""

from __future__ import annotations

import pytest

from services.agent.settings import Settings
from windward.settings import SettingsError, load

NEEDED = (
    "citadel-address", "citadel-mtls-address", "pilot-address", "trust-bundle-file", "token-file",
    "state-dir", "namespace", "service-account", "workload-name", "address",
)  # fmt: skip


def read(*argv: str, without: str = "") -> Settings:
    needed = [part for name in NEEDED if name != without for part in ("--" + name, "x")]
    return load(
        Settings,
        program="windward-agent",
        environment_prefix="WINDWARD_AGENT_",
        argv=[*needed, *argv],
        environ={},
        description="",
    )


def test_defaults_are_those_of_a_container():
    made = read()
    assert (made.interception, made.proxy_type, made.proxy_uid) == ("redirect", "sidecar", 1337)
    assert made.admin_address.startswith("127.0.0.1:")


@pytest.mark.parametrize("name", NEEDED)
def test_what_it_cannot_do_without(name):
    with pytest.raises(SettingsError, match=f"--{name} is required"):
        read(without=name)


def test_lists_maps_and_durations():
    made = read(
        "--pilot-address", "a:1,b:2", "--labels", "app=reviews,version=v1", "--drain-time", "30s"
    )
    assert made.pilot_address == ("a:1", "b:2")
    assert made.labels == {"app": "reviews", "version": "v1"}
    assert float(made.drain_time) == 30.0


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--interception", "sometimes"),
        ("--proxy-type", "ambient"),
        ("--proxy-uid", "0"),
        ("--concurrency", "0"),
        ("--concurrency", "257"),
        ("--labels", "app"),
    ],
)
def test_what_is_not_possible_is_refused_with_its_flag(flag, value):
    with pytest.raises(SettingsError, match=f"^{flag}: "):
        read(flag, value)
