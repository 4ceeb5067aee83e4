"""Citadel's settings: defaults of the design, and what makes no sense together."""

from __future__ import annotations

import pytest

from services.citadel.settings import Settings
from windward.settings import Seconds, SettingsError, load

NEEDED = ("--store", "memory:", "--kek-file", "/k")


def settings_of(*argv: str, **environ: str) -> Settings:
    return load(
        Settings,
        program="windward-citadel",
        environment_prefix="WINDWARD_CITADEL_",
        argv=[*NEEDED, *argv],
        environ=environ,
        description="",
    )


def test_defaults():
    made = settings_of()
    assert (made.tls_address, made.mtls_address) == ("0.0.0.0:8060", "0.0.0.0:8061")
    assert made.default_ttl == Seconds(86_400)
    assert made.max_ttl == Seconds(90 * 86_400)
    assert made.root_ttl == Seconds(3650 * 86_400)
    assert made.csr_mode == "override"
    assert made.trust_domain == "cluster.local"


def test_flags_and_environment():
    made = settings_of(
        "--csr-mode", "strict", "--default-ttl", "1h30m", WINDWARD_CITADEL_MAX_TTL="2h"
    )
    assert made.csr_mode == "strict"
    assert made.default_ttl == Seconds(5400)
    assert made.max_ttl == Seconds(7200)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("--csr-mode", "lenient"), "csr-mode"),
        (("--default-ttl", "soon"), "default-ttl"),
        (("--default-ttl", "2h", "--max-ttl", "1h"), "default-ttl"),
        (("--max-ttl", "1h"), "max-ttl"),
        (("--jwt-default-ttl", "2h"), "jwt-default-ttl"),
        (("--jwt-default-ttl", "0"), "jwt-default-ttl"),
        (("--jwt-key-rotation", "59m"), "jwt-key-rotation"),
        (("--jwt-key-announce", "13h"), "jwt-key-announce"),
    ],
)
def test_what_is_refused_names_its_setting(argv: tuple[str, ...], named: str):
    with pytest.raises(SettingsError, match=named):
        settings_of(*argv)


@pytest.mark.parametrize("missing", ["--store", "--kek-file"])
def test_what_must_be_said(missing: str):
    at = NEEDED.index(missing)
    argv = [*NEEDED[:at], *NEEDED[at + 2 :]]
    with pytest.raises(SettingsError, match=missing.strip("-").replace("-", "[-_]")):
        load(
            Settings,
            program="windward-citadel",
            environment_prefix="WINDWARD_CITADEL_",
            argv=argv,
            environ={},
            description="",
        )
