"""What the process that starts workers decides by itself; the rest is tests/fault/test_workers.py."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from services.pilot.settings import Settings
from services.pilot.workers import check_free
from windward.process import FatalError
from windward.settings import Seconds, as_flags, load

NEEDED: dict[str, Any] = {
    "store": "etcd://127.0.0.1:1",
    "citadel_address": "127.0.0.1:2",
    "citadel_mtls_address": "127.0.0.1:3",
    "trust_bundle_file": "roots.pem",
    "token_file": "-token",
    "state_dir": "/state",
}


def test_a_port_that_somebody_has_is_an_error():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(FatalError, match=f"--mtls-address {address}"):
            check_free(address, "--mtls-address")
    check_free(address, "--mtls-address")
    for nothing in ("", "127.0.0.1:0", "[::1]:0"):
        check_free(nothing, "--mtls-address")


def test_a_worker_has_the_settings_of_its_starter():
    given = Settings(
        **NEEDED,
        mixer_address=("a:1", "b:2"),
        admin_open_on_loopback=True,
        stream_age=Seconds(0),
        behind=Seconds(0.25),
        workers=3,
        registry=("mesh", "file:/x=y"),
        log_level="debug",
    )
    read = load(
        Settings,
        program="windward-pilot",
        environment_prefix="WINDWARD_PILOT_",
        argv=as_flags(given),
        environ={},
        description="",
    )
    assert read == given
    assert not any(flag.startswith("--endpoint-ttl") for flag in as_flags(given))
